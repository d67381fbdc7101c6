"""Decisions on registered versions, and what is left of them when they are cut off."""

import json
import shutil
from pathlib import Path

import pytest

from killed import KilledError, kill_at
from unispector.errors import RegistryError
from unispector.registry import decisions as registry_actions
from unispector.registry.decisions import approve, check_model, promote_version, refuse, rollback
from unispector.tracking.registry import CHALLENGER, CHAMPION, ModelRegistry
from unispector.tracking.run import TrackedRun


@pytest.fixture
def package(tiny_model, tmp_path) -> Path:
    """What the registry and a decision need of an MLflow model."""
    folder = tmp_path / "saved"
    shutil.copytree(tiny_model, folder / "artifacts" / "package")
    (folder / "MLmodel").write_text("flavors: {}\n")
    return folder


@pytest.fixture
def registry(store, package) -> ModelRegistry:
    """Three versions, the last one challenger; nothing was decided."""
    registry = ModelRegistry(store)
    for key in "abc":
        registry.register(package, "", {"key": key, "state": "challenger"})
    registry.set_alias(CHALLENGER, 3)
    return registry


@pytest.fixture
def trusted(monkeypatch):
    """The models are known to work; the tests of this check are others."""
    monkeypatch.setattr(registry_actions, "check_model", lambda *_: None)


def states(registry) -> list[str]:
    """Of version 1, 2, ..."""
    return [version.tags["state"] for version in reversed(registry.versions())]


def aliases(registry) -> dict[str, int]:
    return {alias: version.number for version in registry.versions() for alias in version.aliases}


def told(registry) -> list[tuple]:
    """The history, oldest first."""
    return [(e.action, e.version, e.before, e.by, e.reason) for e in reversed(registry.history())]


def test_approval_makes_a_champion_and_retires_the_one_before(registry):
    first = approve(registry, 1, "ann", "the first")
    assert (first.action, first.version, first.before, first.by) == ("approved", 1, None, "ann")
    approve(registry, CHALLENGER, "bob", "better")
    assert aliases(registry) == {CHAMPION: 3}
    assert states(registry) == ["retired", "challenger", "champion"]
    assert told(registry) == [("approved", 1, None, "ann", "the first"), ("approved", 3, 1, "bob", "better")]


def test_the_same_decision_again_is_no_second_event(registry, trusted):
    for decide in (approve, approve):
        decide(registry, 1, "ann", "good")
    for _ in range(2):
        refuse(registry, 2, "ann", "bad")
    assert [event[:2] for event in told(registry)] == [("approved", 1), ("refused", 2)]


def test_refusal_leaves_the_champion_and_can_be_overruled(registry, trusted, tmp_path):
    approve(registry, 1, "ann", "good")
    (tmp_path / "decision.md").write_text("rules")
    refuse(registry, 3, "rules", "worse", [tmp_path / "decision.md"])
    assert aliases(registry) == {CHAMPION: 1}
    assert states(registry) == ["champion", "challenger", "refused"]
    assert [file.read_text() for file in registry.event_files(registry.history()[0])] == ["rules"]
    approve(registry, 3, "ann", "all the same")
    assert states(registry) == ["retired", "challenger", "champion"]
    assert told(registry)[-2:] == [
        ("refused", 3, 1, "rules", "worse"),
        ("approved", 3, 1, "ann", "all the same"),
    ]


def test_the_champion_cannot_be_refused(registry, trusted):
    approve(registry, 1, "ann", "good")
    with pytest.raises(RegistryError, match="unispector 1 is champion; roll back, or approve another"):
        refuse(registry, 1, "ann", "bad")


def test_rollbacks_go_back_step_by_step_and_not_to_and_fro(registry, trusted):
    for number in (1, 2, 3):
        approve(registry, number, "ann", "good")
    refuse(registry, 1, "ann", "old")
    event = rollback(registry, "bob", "worse on line 3")
    assert (event.action, event.version, event.before, event.by) == ("rolled back", 2, 3, "bob")
    assert states(registry) == ["refused", "champion", "retired"]
    rollback(registry, "bob", "still")
    assert aliases(registry) == {CHAMPION: 1}
    with pytest.raises(RegistryError, match="the history has no champion before version 1; name one"):
        rollback(registry, "bob", "still")
    rollback(registry, "bob", "forward", to=3)
    assert aliases(registry) == {CHAMPION: 3}
    rollback(registry, "bob", "back")
    assert aliases(registry) == {CHAMPION: 1}
    with pytest.raises(RegistryError, match="unispector 1 is champion already"):
        rollback(registry, "bob", "again", to=1)


def test_a_version_that_was_champion_twice_has_two_champions_before_it(registry, trusted):
    for number in (1, 2, 1, 3):
        approve(registry, number, "ann", "good")
    found = [rollback(registry, "bob", "back").version for _ in range(3)]
    assert found == [1, 2, 1]


def test_without_a_champion_there_is_nothing_to_roll_back(registry):
    with pytest.raises(RegistryError, match="no version with the alias champion"):
        rollback(registry, "ann", "why not")


def test_a_model_that_does_not_load_becomes_no_champion(registry, trusted, monkeypatch):
    approve(registry, 1, "ann", "good")
    monkeypatch.undo()
    weights = registry.model_directory(3) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    for decide in (
        lambda: approve(registry, 3, "ann", "good"),
        lambda: promote_version(registry, 3, "rules", "good"),
        lambda: rollback(registry, "ann", "bad", to=3),
    ):
        with pytest.raises(
            RegistryError, match=r"^unispector 3 does not work with this code \(.*copy the model"
        ):
            decide()
    assert aliases(registry) == {CHAMPION: 1, CHALLENGER: 3}
    assert [event[:2] for event in told(registry)] == [("approved", 1)]
    check_model(registry, 1)


@pytest.mark.parametrize("reason", ["", "  \n", "x" * 2001])
def test_a_reason_is_needed(registry, reason):
    for decide in (approve, refuse):
        with pytest.raises(RegistryError, match="say why"):
            decide(registry, 1, "ann", reason)
    with pytest.raises(RegistryError, match="say why"):
        rollback(registry, "ann", reason)


WRITES = [(ModelRegistry, name) for name in ("begin", "set_alias", "tag", "remove_alias", "finish")]
WRITES.append((TrackedRun, "artifact"))


DECISIONS = {
    "promoted": lambda registry, files: promote_version(registry, 3, "rules", "passed", files),
    "refused": lambda registry, files: refuse(registry, 3, "rules", "failed", files),
    "rolled back": lambda registry, _: rollback(registry, "ann", "bad"),
}
OUTCOMES = {
    "promoted": ({CHAMPION: 3}, ["retired", "retired", "champion"], ("promoted", 3, 2)),
    "refused": ({CHAMPION: 2}, ["retired", "champion", "refused"], ("refused", 3, 2)),
    "rolled back": (
        {CHAMPION: 1, CHALLENGER: 3},
        ["champion", "retired", "challenger"],
        ("rolled back", 1, 2),
    ),
}


@pytest.mark.parametrize("action", DECISIONS)
def test_a_decision_that_is_cut_off_anywhere_is_healed_by_asking_again(
    registry, trusted, monkeypatch, tmp_path, action
):
    (tmp_path / "decision.json").write_text(json.dumps({"passed": 1}))
    files = [tmp_path / "decision.json"]
    expected_aliases, expected_states, expected = OUTCOMES[action]
    for step in range(20):
        begin_anew(registry)
        before = len(registry.history())
        with monkeypatch.context() as patch:
            done = kill_at(patch, WRITES, step)
            try:
                DECISIONS[action](registry, files)
            except KilledError:
                assert len(done) == step
            else:
                assert step == len(done) > 3
                break
        event = DECISIONS[action](registry, files)
        assert (event.action, event.version, event.before) == expected, step
        assert aliases(registry) == expected_aliases, step
        assert states(registry) == expected_states, step
        assert [each[:3] for each in told(registry)[before:]] == [expected], step
        assert registry.begun() == ()
        kept = [file.name for file in registry.event_files(registry.history()[0])]
        assert kept == ([] if action == "rolled back" else ["decision.json"]), step
    else:
        raise AssertionError("never came to its end")


def begin_anew(registry) -> None:
    """Version 2 is champion, was 1 before that, and 3 is challenger."""
    for number in (3, 1, 2):
        approve(registry, number, "ann", "good")
    registry.tag(3, {"state": "challenger"})
    registry.set_alias(CHALLENGER, 3)


def test_what_was_cut_off_is_carried_out_before_another_decision(registry, trusted, monkeypatch):
    approve(registry, 1, "ann", "one")
    with monkeypatch.context() as patch:
        kill_at(patch, WRITES, 1)
        with pytest.raises(KilledError):
            promote_version(registry, 2, "rules", "passed")
    assert states(registry) == ["champion", "challenger", "challenger"]
    approve(registry, 3, "ann", "three")
    assert [event[:3] for event in told(registry)] == [
        ("approved", 1, None),
        ("promoted", 2, 1),
        ("approved", 3, 2),
    ]
    assert states(registry) == ["retired", "retired", "champion"]


def test_a_person_refuses_what_the_rules_refused_and_it_is_remembered(registry):
    refuse(registry, 2, "rules", "2 of 8 rules not met")
    refuse(registry, 2, "ada", "dangerous")
    refuse(registry, 2, "ada", "dangerous")
    assert [(event.by, event.reason) for event in registry.history()] == [
        ("ada", "dangerous"),
        ("rules", "2 of 8 rules not met"),
    ]
