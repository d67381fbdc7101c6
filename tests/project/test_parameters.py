"""A preset goes into params.yaml and changes nothing else there; every value in force has its source."""

import json
import re
from pathlib import Path

import pytest
import yaml

from unispector.cli import main
from unispector.config import load_config, params, preset_names
from unispector.errors import ConfigError
from unispector.project.parameters import Change, parameters, use_preset

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A copy of the shipped params.yaml."""
    copy = tmp_path / "params.yaml"
    copy.write_bytes(PARAMS.read_bytes())
    return copy


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of presets, with one of a few values only."""
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "small.yaml").write_text(
        "train:\n  steps: 9 # short\n  seeds: [42, 82]\nmodel:\n  backbone:\n    drop_path: 0.2\n"
    )
    monkeypatch.setattr(params, "_PRESETS", folder)
    return folder


def without_values(content: str) -> list[str]:
    """The lines with the value taken out: key, layout and comment."""
    return [re.sub(r"^( *[\w-]+:) (\[.*?\]|[^#{ ]+)(?= #)", r"\1", line) for line in content.splitlines()]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_stands_in_the_file_afterwards(name: str, file: Path) -> None:
    before, wanted = load_config(file), load_config(file, name)
    use_preset(name, file)
    assert load_config(file) == wanted
    assert wanted.split == before.split
    added = [f"    {set_name}: {{" for set_name in wanted.data.sets if set_name not in before.data.sets]
    lines = [line for line in file.read_text().splitlines() if not line.startswith(tuple(added))]
    assert without_values("\n".join(lines)) == without_values(PARAMS.read_text())
    assert len(file.read_text().splitlines()) == len(lines) + len(added)
    assert use_preset(name, file) == ()


def test_the_sets_of_a_preset_join_those_of_the_file_in_either_order(file: Path) -> None:
    assert Change("data.sets.weld_seg.path", "nothing", "weld_seg") in use_preset("real", file)
    first = load_config(file)
    own = "    mini-GC10:"
    other = PARAMS.read_text().replace(
        own, f"    weld_seg: {{source: coco, path: weld_seg, domain: in}}\n{own}"
    )
    file.write_text(other)
    assert load_config(file).data.sets["weld_seg"].unseen is None
    use_preset("real", file)
    assert load_config(file) == first
    assert file.read_text().count("weld_seg:") == 1


def test_real_and_back_leaves_but_its_sets(file: Path) -> None:
    before = load_config(file)
    use_preset("real", file)
    use_preset("default", file)
    after = load_config(file)
    assert after.model_copy(update={"data": before.data}) == before
    assert before.data.sets.items() < after.data.sets.items()


def test_paper_and_back_is_the_shipped_file_to_the_byte(file: Path) -> None:
    assert len(use_preset("paper", file)) > 20
    assert file.read_bytes() != PARAMS.read_bytes()
    use_preset("default", file)
    assert file.read_bytes() == PARAMS.read_bytes()


def test_what_the_user_set_beside_the_preset_stays(file: Path, small: Path) -> None:
    mine = file.read_text().replace("seed: 42 # of the", "seed: 7 # my own, of the")
    file.write_text(mine.replace("log_every: 20", "log_every: 5"))
    steps = str(load_config(PARAMS).train.steps)
    changes = use_preset("small", file)
    assert changes == (
        Change("train.steps", steps, "9"),
        Change("train.seeds", "[42]", "[42, 82]"),
        Change("model.backbone.drop_path", "0.0", "0.2"),
    )
    expected = file.read_text()
    for old, new in (
        ("steps: 9 ", f"steps: {steps} "),
        ("[42, 82] # split", "[42] # split"),
        ("drop_path: 0.2", "drop_path: 0.0"),
    ):
        expected = expected.replace(old, new)
    assert expected == mine.replace("log_every: 20", "log_every: 5")


def test_a_dry_run_tells_the_same_and_writes_nothing(file: Path) -> None:
    told = use_preset("paper", file, dry_run=True)
    assert file.read_bytes() == PARAMS.read_bytes()
    assert told == use_preset("paper", file)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(
            "data: {sets: {}}\ntrain:\n  log_every: 5 # often\n\n# of the split\nsplit: {seeds: [1]} # one\n",
            "data: {sets: {}}\ntrain:\n  log_every: 5 # often\n"
            "  steps: 9 # optimiser steps (paper, 3.4: 20,000); at least 1\n"
            "  seeds: [42, 82] # split seeds on which a model is trained, among `split.seeds`; [42, 82, 777] "
            "for the whole protocol\n"
            "\n# of the split\nsplit: {seeds: [1]} # one\n"
            "model: # the detector; every row of the ablation is a setting of this section and of loss\n"
            "  backbone: # network that images are read with, or a list of several whose features are "
            "joined\n"
            "    drop_path: 0.2 # stochastic depth rate while training; at least 0, below 1\n",
            id="sections and fields that are not there",
        ),
        pytest.param(
            "# head\ndata: {sets: {}}\nmodel: {backbone: {drop_path: 0.5}, width: 96}\n"
            "train:\n    seeds: # two\n    - 42\n    # the last one\n    - 777\n\n    # of the optimiser\n"
            "    steps:   '3'  # few\n    log_every:   5   # often\n",
            "# head\ndata: {sets: {}}\nmodel: {backbone: {drop_path: 0.2}, width: 96}\n"
            "train:\n    seeds: [42, 82] # two\n\n    # of the optimiser\n"
            "    steps: 9 # few\n    log_every: 5     # often\n",
            id="other styles",
        ),
        pytest.param(
            "data: {sets: {}}\nmodel: {backbone: {}}\ntrain: {log_every: 5}\n",
            "data: {sets: {}}\nmodel: {backbone: {drop_path: 0.2}}\n"
            "train: {log_every: 5, steps: 9, seeds: [42, 82]}\n",
            id="sections on one line",
        ),
        pytest.param(
            "{data: {sets: {}}}",
            "{data: {sets: {}}, train: {steps: 9, seeds: [42, 82]}, model: {backbone: {drop_path: 0.2}}}\n",
            id="a file on one line",
        ),
    ],
)
def test_files_written_otherwise(content: str, expected: str, tmp_path: Path, small: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(content)
    wanted = load_config(file, "small")
    use_preset("small", file)
    assert file.read_text() == expected
    assert load_config(file) == wanted


def test_a_value_that_was_not_written_is_told_with_its_default(tmp_path: Path, small: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("data: {sets: {}}\n")
    assert Change("train.steps", "160 (default)", "9") in use_preset("small", file)


def test_a_file_that_cannot_be_rewritten_is_left(tmp_path: Path, small: Path) -> None:
    file, content = tmp_path / "params.yaml", "train: {steps: 2}\n".encode("utf-16")
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"params\.yaml: cannot be rewritten .*`unispector params write`"):
        use_preset("small", file)
    assert file.read_bytes() == content


def test_params_write_brings_such_a_file_in_order(tmp_path, small, capsys):
    file = tmp_path / "params.yaml"
    file.write_bytes("train: {steps: 2}\n".encode("utf-16"))
    assert main(["params", "write", "--params", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: every parameter is written\n"
    assert load_config(file).train.steps == 2
    use_preset("small", file)
    assert load_config(file).train.steps == 9


def test_params_write_without_a_file_is_what_the_project_ships(tmp_path: Path) -> None:
    assert main(["params", "write", "--params", str(tmp_path / "new.yaml")]) == 0
    assert (tmp_path / "new.yaml").read_bytes() == PARAMS.read_bytes()


def test_params_write_keeps_values_and_names_what_was_left_out(file: Path) -> None:
    use_preset("real", file)
    before = load_config(file)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "  points:" not in line).replace("0.001 #", "0.002 #"))
    assert main(["params", "write", "--params", str(file)]) == 0
    train = before.train.model_copy(update={"learning_rate": 0.002})
    assert load_config(file) == before.model_copy(update={"train": train})
    assert len(file.read_text().splitlines()) == len(lines)


def test_the_source_of_every_value(tmp_path: Path, small: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {sets: {}}\ntrain:\n  log_every: 5 # often, # very\n  steps: 160\n  seeds: [42]\n")
    found = {each.name: each for each in parameters(file)}
    assert (found["train.log_every"].source, found["train.log_every"].value) == ("mine.yaml", 5)
    assert found["train.log_every"].meaning == "steps between logged losses; at least 1"
    assert (found["train.batch_size"].source, found["train.batch_size"].value) == ("default", 8)
    assert {name for name, each in found.items() if each.changed} == {"train.log_every"}
    assert {name for name, each in found.items() if each.source != "default"} == {
        "train.log_every",
        "train.steps",
        "train.seeds",
    }

    above = {each.name: each for each in parameters(file, "small")}
    assert [name for name, each in above.items() if each.source == "preset small"] == [
        "model.backbone.drop_path",
        "train.steps",
        "train.seeds",
    ]
    assert above["train.seeds"].value == [42, 82]
    assert above["train.log_every"] == found["train.log_every"]


def test_every_shipped_parameter_is_shown_once_with_its_meaning() -> None:
    shown = parameters(PARAMS)
    text = PARAMS.read_text()
    for each in shown:
        leaf = each.name.rpartition(".")[2]
        if each.name.startswith("data.sets."):
            continue
        assert re.search(rf"^ +{leaf}: .* # {re.escape(each.meaning)}$", text, re.MULTILINE), each.name
    nested = yaml.safe_load(text)
    for each in shown:
        value = nested
        for key in each.name.split("."):
            value = value[key]
        assert value == each.value
    assert {each.source for each in shown} == {"params.yaml"}


def test_show_prints_aligned_sections(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", "show", "--params", str(file), "--preset", "paper"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == list(
        yaml.safe_load(file.read_text())
    )
    (steps,) = [line for line in lines if line.startswith("  steps ")]
    meaning = "optimiser steps (paper, 3.4: 20,000); at least 1"
    assert steps.split(maxsplit=4) == ["steps", "20000", "preset", "paper", meaning]
    rows = [line for line in lines if line.startswith("  ")]
    assert len({re.search(r"(params\.yaml|preset paper)(  |$)", row).start() for row in rows}) == 1


def test_show_changed_hides_what_the_code_would_do_anyway(file, capsys):
    assert main(["params", "show", "--params", str(file), "--changed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {}
    use_preset("paper", file)
    assert main(["params", "show", "--params", str(file), "--changed", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {
        each.name: {"value": each.value, "source": "params.yaml", "changed": True, "meaning": each.meaning}
        for each in parameters(file)
        if each.changed
    }
    assert "train.steps" in shown
    assert "loss.scale" not in shown


def test_use_prints_what_changes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", "use", "paper", "--params", str(file), "--dry-run"]) == 0
    dry = capsys.readouterr().out.splitlines()
    assert file.read_bytes() == PARAMS.read_bytes()
    assert main(["params", "use", "paper", "--params", str(file)]) == 0
    done = capsys.readouterr().out.splitlines()
    assert done[:-1] == dry[:-1]
    batch = str(load_config(PARAMS).train.batch_size)
    assert ["train.batch_size", batch, "->", "48"] in [line.split() for line in done]
    assert len({line.index("->") for line in done[:-1]}) == 1
    assert dry[-1].endswith(f"{len(dry) - 1} values would change; nothing is written")
    assert done[-1].endswith(f"{len(dry) - 1} values changed to preset paper; `make repro` runs by them")
    assert main(["params", "use", "paper", "--params", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: says what preset paper says already\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["use", "papers"], "papers: no such preset; there are "),
        (["show", "--preset", "papers"], "papers: no such preset; there are "),
        (["show", "--params", "absent.yaml"], "absent.yaml: cannot be read (No such file or directory)"),
        (["use"], "Missing argument 'preset'"),
    ],
)
def test_a_mistake_is_one_line(arguments, problem, file, monkeypatch, capsys):
    monkeypatch.chdir(file.parent)
    assert main(["params", *arguments]) in (1, 2)
    assert problem in capsys.readouterr().err
    assert file.read_bytes() == PARAMS.read_bytes()
