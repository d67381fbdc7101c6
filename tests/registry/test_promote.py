"""Promotions in a real registry: decisions, what they lead to, and kills in between."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from killed import KilledError, kill_at
from unispector.config import PromoteConfig, SweepConfig
from unispector.data.checks.expectations import CheckReport, CheckResult
from unispector.data.coco import Annotations
from unispector.errors import RegistryError
from unispector.evaluation.intervals import Interval
from unispector.modeling.saved_model import load_model, save_model
from unispector.project.paths import SPLITS, check_report
from unispector.registry import promote as stage
from unispector.registry.decisions import approve, refuse, rollback
from unispector.registry.promote import BY_RULES, decision_files, promote, settled
from unispector.registry.register import LINEAGE, TRAINING, Lineage
from unispector.registry.rules import DECISION, Comparison
from unispector.tracking.registry import CHALLENGER, CHAMPION, ModelRegistry
from unispector.tracking.run import TrackingStore


@pytest.fixture(scope="module")
def config(benchmark):
    split = benchmark.config.split.model_copy(update={"prompt_seeds": (1,)})
    rules = PromoteConfig(resamples=100, box_trials=1, alarm_rise=100.0)
    sweep = SweepConfig(sets=(), prompt_seeds=(1,))
    return benchmark.config.model_copy(update={"split": split, "promote": rules, "sweep": sweep})


@pytest.fixture
def root(benchmark, tmp_path) -> Path:
    """A project with the benchmark's data, all checks passed."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "data").symlink_to(benchmark.root / "data")
    for name in ("tile", "steel"):
        write_report(folder, name, failed=0)
    return folder


@pytest.fixture
def registry(store) -> ModelRegistry:
    return ModelRegistry(store)


@pytest.fixture
def add(registry, tmp_path):
    """`add(model directory)` -> number of a new version, the challenger, or another seed's if `other`.

    `reached` and `untrained` are mean AP50 of boxes on unseen classes in percent.
    """

    def make(
        directory, trained=(), training="", seed=42, other=False, reached=40.0, untrained=30.0, seeds=()
    ):
        folder = tmp_path / f"version-{len(list(tmp_path.glob('version-*')))}"
        package = folder / "artifacts" / "package"
        shutil.copytree(directory, package)
        (folder / "MLmodel").write_text("flavors: {}\n")
        metrics = {"unseen_bbox_AP50": reached, "untrained_unseen_bbox_AP50": untrained}
        known = {name: value for name, value in metrics.items() if value is not None}
        lineage = Lineage(tuple(trained), "d", "c", "false", seed, seeds or (seed,), "", known, {})
        (package / LINEAGE).write_text(json.dumps(asdict(lineage)))
        fingerprint = json.loads((package / "config.json").read_text())["fingerprint"]
        tags = {"state": "replicate" if other else "challenger", "fingerprint": fingerprint}
        version = registry.register(folder, "", tags | ({TRAINING: training} if training else {}))
        if not other:
            registry.set_alias(CHALLENGER, version.number)
        return version.number

    return make


def write_report(root, name, failed):
    results = (CheckResult("box is inside", 9, failed, ("7.png",) * failed),)
    CheckReport(name, not failed, results).write(root / check_report(name))


def make_champion(registry, number):
    registry.set_alias(CHAMPION, number)
    registry.tag(number, {"state": "champion"})
    registry.remove_alias(CHALLENGER)


def number_of(registry, alias):
    version = registry.find(alias)
    return None if version is None else version.number


def told(registry):
    return [(event.action, event.version, event.before, event.by) for event in registry.history()]


@pytest.fixture
def decide(config, root, store):
    return lambda: promote(config, root, store)


@pytest.fixture
def unmeasured(monkeypatch):
    """Nothing may be measured any more."""
    monkeypatch.setattr(stage, "compare_models", None)


def test_the_first_version_becomes_champion_without_being_measured(
    decide, root, registry, add, sharp_model, unmeasured
):
    add(sharp_model)
    decision = decide()
    assert decision.promoted
    assert [rule.name for rule in decision.rules] == [
        "data checks", "working model", "all seeds", "more than untrained", "first AP",
    ]  # fmt: skip
    assert (number_of(registry, CHAMPION), number_of(registry, CHALLENGER)) == (1, None)
    assert registry.version(1).tags["state"] == "champion"
    assert told(registry) == [("promoted", 1, None, BY_RULES)]
    (event,) = registry.history()
    assert event.reason == decision.summary
    page, data = decision_files(decision.challenger, decision.champion, root)
    assert page.read_text() == decision.markdown()
    assert DECISION.validate_json(data.read_text()) == decision
    kept = {file.name: file.read_bytes() for file in registry.event_files(event)}
    assert kept == {file.name: file.read_bytes() for file in (page, data)}
    assert decide() == decision
    assert len(registry.history()) == 1


@pytest.mark.parametrize(
    ("figures", "broken"),
    [
        ({"reached": 30.0}, ["more than untrained"]),
        ({"reached": 12.0, "untrained": 4.0}, ["first AP"]),
        ({"reached": None, "untrained": None}, ["more than untrained", "first AP"]),
    ],
)
def test_a_first_model_that_training_did_not_make_better_is_refused_until_a_person_approves(
    decide, registry, add, sharp_model, unmeasured, figures, broken
):
    add(sharp_model, **figures)
    decision = decide()
    assert [rule.name for rule in decision.broken] == broken
    assert number_of(registry, CHAMPION) is None
    assert told(registry) == [("refused", 1, None, BY_RULES)]
    assert decide() == decision
    approve(registry, 1, "ada", "better than nothing")
    assert number_of(registry, CHAMPION) == 1


def test_of_several_seeds_the_first_champion_is_judged_by_their_mean(
    decide, registry, add, sharp_model, unmeasured
):
    add(sharp_model, training="t", seed=82, other=True, reached=15.0, untrained=30.0)
    add(sharp_model, training="t", seed=42, reached=41.0, untrained=30.0)
    decision = decide()
    assert decision.challenger == 2
    assert [(rule.name, rule.figure) for rule in decision.broken] == [
        ("more than untrained", "28.00, untrained 30.00")
    ]


def test_a_training_whose_seeds_are_not_all_registered_is_refused(
    decide, registry, add, sharp_model, unmeasured
):
    add(sharp_model, training="t", seed=82, other=True, seeds=(42, 82, 777))
    add(sharp_model, training="t", seed=42, seeds=(42, 82, 777))
    decision = decide()
    assert [(rule.name, rule.figure) for rule in decision.broken] == [
        ("all seeds", "none of seed 777; register the training again")
    ]
    add(sharp_model, training="t", seed=777, other=True, seeds=(42, 82, 777))
    assert decide().promoted


@pytest.mark.parametrize("figure", [float("inf"), float("-inf"), 4100.0, -5.0])
def test_a_figure_that_is_no_percentage_decides_nothing(
    decide, registry, add, sharp_model, unmeasured, figure
):
    number = add(sharp_model, untrained=figure)
    lineage = registry.model_directory(number) / LINEAGE
    with pytest.raises(RegistryError, match="not the lineage of a registered model; register it again"):
        decide()
    assert lineage.is_file()
    assert number_of(registry, CHAMPION) is None


@pytest.fixture
def compared(monkeypatch):
    """What was to be compared: seed, challenger's and champion's folder of each pair; nothing is measured."""
    met = []

    def note(pairs, config):
        met.append([(pair.seed, pair.challenger, pair.champion) for pair in pairs])
        met.append(pairs)
        return Comparison((), Interval(0, 0), ())

    monkeypatch.setattr(stage, "compare_models", note)
    return met


def test_models_of_the_seeds_that_both_trainings_have_are_paired(
    decide, config, root, store, registry, add, sharp_model, other_model, compared
):
    own = registry.model_directory
    add(sharp_model, ["tile/dark"], training="old", seed=777, other=True)
    add(sharp_model, ["tile/bright"], training="old", seed=82, other=True)
    make_champion(registry, add(sharp_model, training="old", seed=42))
    add(other_model, ["tile/half"], training="new", seed=82, other=True)
    add(other_model, training="new", seed=42)
    assert decide().champion == 3
    assert compared[0] == [(42, own(5), own(3)), (82, own(4), own(2))]
    assert compared[1][1].trained == {"tile/bright", "tile/half"}
    splits = [{str(test.target) for each in pair.evaluations for test in each.tests} for pair in compared[1]]
    assert splits[0] != splits[1]  # each on its own unseen classes

    # A model of the champion's that is gone is another question.
    registry.set_alias(CHALLENGER, 5)
    before = len(compared)
    decide()
    assert len(compared) == before  # known
    registry._store.client().delete_model_version(registry.name, "2")
    decide()
    assert compared[-2] == [(42, own(5), own(3))]


def test_trainings_without_a_seed_in_common_are_compared_by_what_is_served(
    decide, registry, add, sharp_model, other_model, compared
):
    own = registry.model_directory
    make_champion(registry, add(sharp_model, ["steel/dark"], seed=777))  # from before there was a tag
    add(other_model, training="new", seed=82, other=True)
    add(other_model, ["tile/dark"], training="new", seed=42)
    decide()
    assert compared[0] == [(42, own(3), own(1))]
    assert compared[1][0].trained == {"steel/dark", "tile/dark"}


def test_a_model_of_another_seed_that_does_not_work_is_a_no(decide, registry, add, sharp_model, unmeasured):
    make_champion(registry, add(sharp_model))
    add(sharp_model, training="new", seed=82, other=True)
    add(sharp_model, training="new", seed=42)
    (registry.model_directory(2) / "model.safetensors").write_bytes(b"damaged")
    assert decide().broken[0].name == "working model"
    assert number_of(registry, CHAMPION) == 1


def test_a_better_model_takes_over_and_the_worse_one_does_not_get_it_back(
    decide, registry, add, sharp_model, other_model, monkeypatch
):
    make_champion(registry, add(other_model))
    add(sharp_model)  # the benchmark's truth is what this one found
    better = decide()
    assert better.promoted, better.markdown()
    assert {member.name for member in better.comparison.sets} == {"tile", "steel"}
    assert number_of(registry, CHAMPION) == 2
    add(other_model)
    worse = decide()
    assert "gain" in [rule.name for rule in worse.broken]
    old = better.comparison.mean(lambda s: s.boxes)
    again = worse.comparison.mean(lambda s: s.boxes)
    assert (again.challenger, again.champion) == pytest.approx((old.champion, old.challenger))
    assert (number_of(registry, CHAMPION), number_of(registry, CHALLENGER)) == (2, None)
    assert [version.tags["state"] for version in registry.versions()] == ["refused", "champion", "retired"]
    assert told(registry) == [("refused", 3, 2, BY_RULES), ("promoted", 2, 1, BY_RULES)]
    monkeypatch.setattr(stage, "compare_models", None)
    assert decide() == worse
    assert len(registry.history()) == 2


def test_the_same_model_again_is_refused_with_a_difference_of_nothing(decide, registry, add, sharp_model):
    make_champion(registry, add(sharp_model))
    add(sharp_model)
    decision = decide()
    assert [rule.name for rule in decision.broken] == ["gain"]
    assert decision.comparison.mean(lambda s: s.boxes).change == 0
    assert decision.comparison.interval.low < 0 < decision.comparison.interval.high
    assert number_of(registry, CHAMPION) == 1
    assert told(registry) == [("refused", 2, 1, BY_RULES)]


def test_classes_either_model_knows_leave_nothing_to_compare(
    decide, root, registry, add, benchmark, sharp_model
):
    names = {"tile": [], "steel": []}
    for file in (benchmark.root / SPLITS).rglob("target/*.json"):
        names[file.parts[-3]] += Annotations.read(file).class_names
    make_champion(registry, add(sharp_model, {f"tile/{name}" for name in names["tile"]}))
    add(sharp_model, {f"steel/{name}" for name in names["steel"]})
    decision = decide()
    assert sorted(decision.comparison.left_out) == ["steel", "tile"]
    assert decision.broken[0].figure == "no set has a class that neither model was trained on"
    assert number_of(registry, CHAMPION) == 1


def test_data_that_do_not_pass_are_a_no_until_they_are_mended(
    decide, root, registry, add, sharp_model, unmeasured
):
    write_report(root, "tile", failed=2)
    write_report(root, "gone", failed=0)
    (root / check_report("steel")).write_text("{")
    add(sharp_model)
    decision = decide()
    assert decision.broken[0].figure == (
        "steel: damaged report; run the stage validate; tile: rule broken: box is inside: 7.png and 1 more"
    )
    (root / check_report("steel")).unlink()
    assert "steel: no report" in decide().broken[0].figure
    assert number_of(registry, CHAMPION) is None
    for name in ("tile", "steel"):
        write_report(root, name, failed=0)
    assert decide().promoted
    assert number_of(registry, CHAMPION) == 1


def test_a_model_that_does_not_work_is_refused_and_nothing_measured(
    decide, config, registry, add, sharp_model, tmp_path, unmeasured
):
    make_champion(registry, add(sharp_model))
    add(sharp_model)
    (registry.model_directory(2) / "model.safetensors").write_bytes(b"damaged")
    decision = decide()
    assert "do not belong together" in decision.broken[0].figure
    assert {rule.figure for rule in decision.broken[1:]} == {"not measured"}
    saved = load_model(sharp_model)
    with torch.no_grad():
        next(saved.model.heads.parameters()).view(-1)[0] = torch.nan
    save_model(tmp_path / "nan", saved.model, saved.config, {})
    add(tmp_path / "nan")
    (broken, *_) = decide().broken
    assert "values that are not finite" in broken.figure
    assert number_of(registry, CHAMPION) == 1


def test_where_a_person_decides_a_challenger_that_passes_waits(
    config, root, store, registry, add, sharp_model, unmeasured
):
    rules = config.promote.model_copy(update={"automatic": False})
    slow = config.model_copy(update={"promote": rules})
    add(sharp_model)
    decision = promote(slow, root, store)
    assert decision.passed
    assert "it waits for `unispector registry approve 1`" in decision.markdown()
    assert promote(slow, root, store) == decision
    assert (number_of(registry, CHAMPION), number_of(registry, CHALLENGER)) == (None, 1)
    assert registry.history() == ()
    approve(registry, 1, "ada", "looked at it")
    assert promote(slow, root, store) == decision
    assert told(registry) == [("approved", 1, None, "ada")]


def test_what_people_decided_since_is_not_overruled(decide, registry, add, sharp_model, unmeasured):
    make_champion(registry, add(sharp_model))
    registry.remove_alias(CHAMPION)
    add(sharp_model)
    first = decide()
    assert first.promoted
    rollback(registry, "ada", "false alarms on line 2", to=1)
    assert decide() == first
    assert number_of(registry, CHAMPION) == 1
    add(sharp_model)
    refuse(registry, 3, "ada", "not today")
    with pytest.raises(RegistryError, match="is a challenger; register"):
        decide()


def test_lost_files_come_back_from_the_history(decide, root, registry, add, sharp_model, unmeasured):
    add(sharp_model)
    decision = decide()
    page, data = decision_files(decision.challenger, decision.champion, root)
    content = page.read_text(), data.read_text()
    shutil.rmtree(page.parent)
    assert decide() == decision
    assert (page.read_text(), data.read_text()) == content


def test_a_decision_of_another_registry_is_not_this_ones(
    decide, config, root, registry, add, sharp_model, other_model, template, tmp_path
):
    add(sharp_model)
    old = decide()
    shutil.copytree(template, tmp_path / "new")
    new = ModelRegistry(TrackingStore(tmp_path / "new"))
    source = registry.mlflow_directory(1)
    version = new.register(source, "", {"state": "challenger", "fingerprint": "another"})
    new.set_alias(CHALLENGER, version.number)
    decision = promote(config, root, TrackingStore(tmp_path / "new"))
    assert (decision.challenger, decision.fingerprint) == (old.challenger, "another")
    assert number_of(new, CHAMPION) == 1


def test_without_a_challenger_there_is_nothing_to_decide(decide):
    with pytest.raises(RegistryError, match="no version of unispector is a challenger; register") as error:
        decide()
    assert "\n" not in str(error.value)


WRITES = [(ModelRegistry, name) for name in ("begin", "set_alias", "remove_alias", "tag", "finish")]
WRITES += [(stage, name) for name in ("atomic_write_text", "atomic_write_json")]


@pytest.mark.slow
@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("step", range(8))
def test_a_kill_between_any_two_writes_is_healed_by_the_next_call(
    decide, root, registry, add, sharp_model, monkeypatch, unmeasured, step, good
):
    make_champion(registry, add(sharp_model))
    if good:
        registry.remove_alias(CHAMPION)
    else:
        write_report(root, "tile", failed=1)
    add(sharp_model)
    with monkeypatch.context() as patch:
        kill_at(patch, WRITES, step)
        try:
            decide()
            killed = False
        except KilledError:
            killed = True
    assert killed or step >= (6 if good else 5)
    known = [json.loads(file.read_text())["time"] for file in root.glob("reports/promotion/2-vs-*.json")]
    decision = decide()
    assert known in ([], [decision.time])
    assert decide() == decision
    assert decision.promoted == good
    assert (number_of(registry, CHAMPION), number_of(registry, CHALLENGER)) == (2 if good else 1, None)
    action, before = ("promoted", None) if good else ("refused", 1)
    assert told(registry) == [(action, 2, before, BY_RULES)]
    assert registry.begun() == ()
    assert registry.version(2).tags["state"] == ("champion" if good else "refused")
    (event,) = registry.history()
    assert {file.suffix for file in registry.event_files(event)} == {".md", ".json"}


def test_what_a_person_decided_stands_though_a_decision_was_cut_off(
    decide, root, store, registry, add, sharp_model, monkeypatch, unmeasured
):
    add(sharp_model)
    with monkeypatch.context() as patch:
        kill_at(patch, [(ModelRegistry, "begin")], 0)
        with pytest.raises(KilledError):
            decide()
    assert list(root.glob("reports/promotion/1-vs-none.json"))  # written down, not carried out
    refuse(registry, 1, "ada", "not on my line")
    decide()
    assert number_of(registry, CHAMPION) is None
    assert "refused by ada" in settled(root, store, 1)


def test_a_champion_exchanged_while_the_models_are_measured_is_measured_anew(
    decide, registry, add, sharp_model, monkeypatch
):
    make_champion(registry, add(sharp_model))
    make_champion(registry, add(sharp_model))
    add(sharp_model)
    met = []
    real = stage.compare_models

    def slow_comparison(pairs, config):
        met.append(pairs[0].champion)
        if len(met) == 1:
            rollback(registry, "ada", "false alarms", to=1)
        return real(pairs, config)

    monkeypatch.setattr(stage, "compare_models", slow_comparison)
    decision = decide()
    assert decision.champion == 1
    assert met == [registry.model_directory(2), registry.model_directory(1)]


def test_a_version_that_may_still_be_decided_on_is_not_settled(
    decide, root, store, registry, add, sharp_model
):
    add(sharp_model)
    assert settled(root, store, 1) is None
    decide()
    assert settled(root, store, 1).startswith("Version 1 has this data and code already, promoted by rules")
