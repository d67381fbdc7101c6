"""YAML read strictly, at every door that reads it."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given

from plain_values import plain_values
from releases import put, put_image, refused
from unispector.cli.main import main
from unispector.config.params import load_config, parse_config
from unispector.config.yaml_text import read_yaml
from unispector.errors import ConfigError, DataError
from unispector.project.lineage import dvc_hash

DEEP = "[" * 100_000


@given(plain_values)
def test_what_is_written_properly_is_read_as_ever(value):
    assert read_yaml(yaml.safe_dump(value, allow_unicode=True)) == value


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", r"key 'a' twice, in lines 1 and 3"),
        ("a: {b: 1, c: 2, b: 1}", r"key 'b' twice, in lines 1 and 1"),
        ("1: a\n01: b\n", r"key '01' twice, in lines 1 and 2"),
        ("1: a\n0x1: b\n", r"key '0x1' twice, in lines 1 and 2"),
        ("1: a\n\n1.0: b\n", r"key '1\.0' twice, in lines 1 and 3"),
        ("yes: a\non: b\n", r"key 'on' twice, in lines 1 and 2"),
        ("a:\n  - x: 1\n    'x': 2\n", r"key 'x' twice, in lines 2 and 3"),
    ],
)
def test_a_key_twice_is_told_by_its_lines(text: str, lines: str):
    with pytest.raises(ValueError, match=lines):
        read_yaml(text)


def test_what_is_no_repetition():
    merged = "base: &base {a: 1, b: 2}\nown:\n  <<: *base\n  a: 3\n"
    assert read_yaml(merged)["own"] == {"a": 3, "b": 2}
    deeper = "x: {base: &base {a: 1}, own: &own {<<: *base, a: 3}}\nlast: {<<: *own, b: 2}\n"
    assert read_yaml(deeper)["last"] == {"a": 3, "b": 2}
    assert read_yaml(deeper)["x"]["own"] == {"a": 3}
    assert read_yaml("1: a\n'1': b\n") == {1: "a", "1": "b"}


@pytest.mark.parametrize(
    "text", [DEEP, "{a: " * 50_000, "- " * 50_000, "a: !!bool x", "[a", "? [b]\n: c", "\0"]
)
def test_whatever_is_wrong_is_one_line(text: str):
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value)


BOMB = "x0: &m0 {a: 1}\n" + "".join(
    f"x{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}\n" for n in range(1, 9)
)
WIDE = f"a: &a {{{', '.join(f'k{n}: 1' for n in range(200))}}}\nb: {{<<: [{', '.join(['*a'] * 20_000)}]}}\n"


@pytest.mark.parametrize("text", [BOMB, WIDE])
def test_merges_that_grow_without_a_bound_are_refused(text: str, tmp_path: Path, monkeypatch, capsys):
    with pytest.raises(ValueError, match=r"merges \(<<\) bring in more than 10000 keys up to line \d; write"):
        read_yaml(text)
    put_image(tmp_path / "images/a.png")
    put(tmp_path / "labels/a.txt", "0 .5 .5 .5 .5")
    put(tmp_path / "data.yaml", f"{text}names: [dent]\n")
    refused("yolo", tmp_path, r"data\.yaml: not valid YAML \(merges")
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["params", "show"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_many_plain_merges_are_read():
    text = "base: &base {a: 1, b: 2}\n" + "".join(f"own{n}: {{<<: *base, b: {n}}}\n" for n in range(900))
    assert read_yaml(text)["own899"] == {"a": 1, "b": 899}
    assert read_yaml("a: &a {<<: *a, b: 1}") == {"a": {"b": 1}}


@pytest.mark.parametrize("text", [DEEP, "train:\n  steps: 4\ntrain:\n  steps: 5\n"])
def test_params_refuse_it(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    with pytest.raises(
        ConfigError, match=r"^params\.yaml: not valid YAML \((nested too deep|key 'train' twice)"
    ):
        parse_config(text.encode(), "params.yaml")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"params\.yaml: not valid YAML"):
        load_config(tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    assert main(["params", "show"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("text", [DEEP, "names: [dent]\nnames: [scratch]\n"])
def test_the_names_of_a_yolo_set_refuse_it(text: str, tmp_path: Path):
    put_image(tmp_path / "images/a.png")
    put(tmp_path / "labels/a.txt", "0 .5 .5 .5 .5")
    put(tmp_path / "data.yaml", text)
    refused("yolo", tmp_path, r"data\.yaml: not valid YAML \((nested too deep|key 'names' twice)")


@pytest.mark.parametrize("text", [DEEP, "stages: {}\nstages: {}\n"])
def test_a_lock_file_refuses_it(text: str, tmp_path: Path):
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(DataError, match=r"dvc\.lock: not a lock file of DVC"):
        dvc_hash(tmp_path, "data/splits")
