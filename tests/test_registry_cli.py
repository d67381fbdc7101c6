"""`unispector registry`, on a store of its own."""

import getpass
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unispector.cli.registry import registry_app
from unispector.errors import RegistryError
from unispector.project.paths import TRACKING
from unispector.registry.decisions import promote_version
from unispector.registry.register import Lineage, version_tags
from unispector.tracking.registry import CHALLENGER, ModelRegistry
from unispector.tracking.run import TrackingStore

LINEAGE = Lineage(
    trained_classes=("set/dark", "set/bright"),
    data="abc.dir",
    commit="c" * 40,
    dirty="false",
    split_seed=42,
    seeds=(42,),
    training_run="",
    metrics={"unseen_bbox_AP50": 41.26, "unseen_segm_AP50": 20.0},
    thresholds={"tile": 0.25},
)


@pytest.fixture
def registry(store, tiny_model, tmp_path, monkeypatch) -> ModelRegistry:
    """Two versions in the working folder's store; the second is challenger."""
    monkeypatch.chdir(tmp_path)
    TRACKING.parent.mkdir(parents=True, exist_ok=True)
    store.root.rename(TRACKING)
    package = tmp_path / "saved"
    shutil.copytree(tiny_model, package / "artifacts" / "package")
    (package / "artifacts" / "package" / "lineage.json").write_text(json.dumps(asdict(LINEAGE)))
    (package / "MLmodel").write_text("flavors: {}")
    registry = ModelRegistry(TrackingStore(TRACKING))
    for key in "ab":
        registry.register(package, "", {**version_tags(LINEAGE, "f" * 64), "key": key})
    registry.set_alias(CHALLENGER, 2)
    return registry


def said(*arguments: str) -> str:
    result = CliRunner().invoke(registry_app, arguments)
    if result.exception is not None:
        raise result.exception
    return result.output


def test_an_empty_registry_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no model is registered yet" in said("list")
    assert "nothing was decided yet" in said("history")
    with pytest.raises(RegistryError, match="it is empty; register a trained model, or name a packaged one"):
        said("show", "1")
    assert list(tmp_path.iterdir()) == []


def test_decisions_are_in_the_tables_under_the_users_name(registry):
    user = getpass.getuser()
    assert said("approve", "1", "--reason", "the\nfirst").startswith(f"version 1 approved by {user}, ")
    said("approve", "challenger", "--reason", "better")
    assert "(champion before: 2): lamps changed" in said("rollback", "--reason", "lamps changed")
    said("refuse", "2", "--reason", "lamps changed")
    heading, *versions = said("list").splitlines()
    assert [line.split()[0] for line in versions] == ["2", "1"]
    assert heading.split()[:2] == ["version", "created"]
    assert "refused" in versions[0]
    assert versions[1].split()[3:7] == ["champion", "champion", "41.3", "20.0"]
    heading, *events = said("history").splitlines()
    assert [line.split(user)[0].split()[2:] for line in events] == [
        ["refused", "2", "1"],
        ["rolled", "back", "1", "2"],
        ["approved", "2", "1"],
        ["approved", "1", "none"],
    ]
    assert events[-1].endswith("  the first")


def test_a_version_is_shown_with_the_rules_of_its_last_decision(registry, tmp_path):
    Path("decision.md").write_text("# Promoted\n\nall rules passed\n")
    Path("decision.json").write_text("{}")
    promote_version(registry, 2, "rules", "passed", [Path("decision.md"), Path("decision.json")])
    shown = said("show", "champion")
    for part in ("models:/unispector/2", "c" * 40, "41.2600", "set/dark, set/bright", "threshold tile"):
        assert part in shown
    assert shown.endswith("# Promoted\n\nall rules passed\n")
    assert "Promoted" not in said("show", "1")


def test_a_reason_must_be_given(registry):
    for verb in (["approve", "1"], ["refuse", "1"], ["rollback"]):
        assert CliRunner().invoke(registry_app, verb).exit_code == 2
    assert registry.history() == ()
