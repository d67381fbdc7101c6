"""A trained model becomes the registry's challenger, once, whatever happens on the way."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from killed import KilledError, kill_at
from unispector.config import load_config
from unispector.data.protocol.split_tree import SplitTree
from unispector.errors import CheckpointError, DataError, RegistryError
from unispector.evaluation.alarms import AlarmFigures
from unispector.evaluation.coco_metrics import AveragePrecision, SetMetrics
from unispector.evaluation.results import EvaluationReport, EvaluationRow, ModelRecord
from unispector.inference.detector import UniSpector
from unispector.project.paths import EVALUATION, MODELS, SPLITS
from unispector.registry import registered_model
from unispector.registry.register import models_of_training, read_lineage, register_challenger
from unispector.tracking.registry import ModelRegistry


def row(variant, data_set, subset, seeds, value, threshold=None):
    """Boxes of AP50 `value`, masks of half as much."""
    boxes, masks = (AveragePrecision(v / 2, v, v / 4, {}, {}) for v in (value, value / 2))
    alarms = None if threshold is None else AlarmFigures(8, 0.3, 0.5, 0.1, threshold, 60.0, 50.0)
    return EvaluationRow(variant, data_set, subset, *seeds, SetMetrics(boxes, masks, 5, 3), {}, alarms)


ROWS = (
    row("unispector", "tile", "unseen", (42, 1), 40.0, 0.2),
    row("unispector", "tile", "unseen", (42, 2), 50.0, 0.4),
    row("unispector", "steel", "unseen", (42, 1), 15.0, 0.1),
    row("unispector", "cable", "unseen", (42, 1), 30.0),
    row("unispector", "tile", "seen", (42, 1), 90.0, 0.9),
    row("unispector", "tile", "unseen", (82, 1), 1.0, 0.8),
    row("base", "tile", "unseen", (42, 1), 2.0, 0.7),
    row("untrained", "tile", "unseen", (42, 1), 20.0, 0.6),
    row("untrained", "steel", "unseen", (42, 1), 10.0),
    row("untrained", "tile", "unseen", (82, 1), 3.0),
)


@pytest.fixture
def project(tiny_project, tiny_model, other_tiny_model) -> Path:
    """A project after its evaluation; the models of both seeds are tiny ones."""
    records = [save_trained(tiny_project, 42, tiny_model), save_trained(tiny_project, 82, other_tiny_model)]
    write_report(tiny_project, *records)
    outs = {"outs": [{"path": "data/splits", "md5": "abc.dir"}]}
    (tiny_project / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"split": outs}}))
    return tiny_project


def save_trained(project, seed, model):
    """A model as the training of a seed would have saved it; the evaluation's record of it."""
    directory = project / MODELS / "unispector" / f"seed{seed}"
    shutil.copytree(model, directory)
    description = json.loads((directory / "config.json").read_text())
    training = SplitTree(project / SPLITS).training(seed)
    description["provenance"] |= {
        "split_seed": str(seed),
        "git_commit": "c" * 40,
        "git_dirty": "true",
        "train_file_sha256": hashlib.sha256(training.read_bytes()).hexdigest(),
    }
    (directory / "config.json").write_text(json.dumps(description))
    return ModelRecord("unispector", seed, description["fingerprint"], {})


def write_report(project, *models):
    (project / EVALUATION).parent.mkdir(exist_ok=True)
    (project / EVALUATION).write_text(EvaluationReport(ROWS, (), models, True).evaluation_json())


@pytest.fixture
def registered(project, store):
    """`registered(key)` -> the version."""
    return lambda key="k": register_challenger(load_config(project / "params.yaml"), project, store, key)


@pytest.fixture
def trusted(monkeypatch) -> list[Path]:
    """Models are not tried in a process of their own; where that would have been done."""
    tried: list[Path] = []
    monkeypatch.setattr(registered_model, "try_registered_model", tried.append)
    return tried


def test_a_version_tells_where_it_comes_from_and_what_it_reached(
    registered, project, store, trusted, tiny_model
):
    with store.run("training", "unispector-seed42", {}) as run:
        pass
    config = project / MODELS / "unispector" / "seed42" / "config.json"
    config.write_text(
        config.read_text().replace('"provenance": {', f'"provenance": {{"mlflow_run_id": "{run.run_id}", ')
    )
    version = registered()
    assert (version.aliases, version.run_id) == (("challenger",), run.run_id)
    assert version.tags == {
        "state": "challenger",
        "key": "k",
        "training": "k",
        "fingerprint": UniSpector.load(tiny_model).fingerprint,
        "training_run": run.run_id,
        "data.dvc": "abc.dir",
        "git.commit": "c" * 40,
        "git.dirty": "true",
        "split_seed": "42",
        "seeds": "42, 82",
        "unseen_bbox_AP50": "30.0000",  # of (40 + 50) / 2, 15 and 30
        "unseen_segm_AP50": "15.0000",
        "seen_bbox_AP50": "90.0000",
        "seen_segm_AP50": "45.0000",
        "untrained_unseen_bbox_AP50": "15.0000",  # of 20 and 10
        "untrained_unseen_segm_AP50": "7.5000",
        "alarm_threshold": "0.200000",  # of (0.2 + 0.4) / 2 and 0.1
    }
    registry = ModelRegistry(store)
    assert version.number == 2  # the newest
    directory = registry.model_directory(2)
    lineage = read_lineage(directory)
    assert lineage.trained_classes == ("set/dark", "set/bright")
    assert lineage.metrics["unseen_bbox_AP50"] == 30.0
    assert lineage.thresholds == pytest.approx({"tile": 0.3, "steel": 0.1})
    assert (lineage.split_seed, lineage.seeds, lineage.data) == (42, (42, 82), "abc.dir")
    assert UniSpector.load(directory).fingerprint == version.tags["fingerprint"]
    assert trusted == [registry.mlflow_directory(2)]
    card = (directory / "README.md").read_text()
    assert "| tile | unseen classes | 45.0 | 22.5 | 0.300 |" in card
    assert "| cable | unseen classes | 30.0 | 15.0 |  |" in card
    assert version.tags["fingerprint"] in card


def test_every_seed_has_a_version_that_names_its_training(registered, project, store, trusted):
    registry = ModelRegistry(store)
    first = registered()
    other = registry.version(1)
    assert (other.aliases, other.tags["state"], other.tags["split_seed"]) == ((), "replicate", "82")
    assert (other.tags["training"], other.tags["unseen_bbox_AP50"]) == ("k", "1.0000")
    assert other.tags["fingerprint"] != first.tags["fingerprint"]
    assert {seed: each.number for seed, each in models_of_training(registry, first).items()} == {42: 2, 82: 1}
    assert list(models_of_training(registry, other)) == [82, 42]
    again = registered("another training")
    assert {seed: each.number for seed, each in models_of_training(registry, again).items()} == {42: 4, 82: 3}
    assert registered().number == 2
    assert len(registry.versions()) == 4


def test_a_version_from_before_there_were_several_stands_alone(registered, store, trusted):
    registry, version = ModelRegistry(store), registered()
    store.client().delete_model_version_tag(registry.name, str(version.number), "training")
    store.client().delete_model_version_tag(registry.name, "1", "training")
    assert list(models_of_training(registry, registry.version(version.number))) == [42]


@pytest.mark.slow
def test_the_registered_model_is_tried_before_it_becomes_challenger(registered, project, store, monkeypatch):
    example = registered_model.example

    def unanswerable():
        data, params = example()
        return data, {**params, "prompts": "[]"}

    with monkeypatch.context() as patch:
        patch.setattr(registered_model, "example", unanswerable)
        with pytest.raises(RegistryError, match="the registered model does not work"):
            registered("broken")
    registry = ModelRegistry(store)
    assert registry.find("challenger") is None
    assert registered("fine").aliases == ("challenger",)
    with pytest.raises(RegistryError, match="the registered model does not work"):
        registered("broken")
    assert [version.aliases for version in registry.versions()] == [("challenger",), (), (), ()]


def test_a_later_challenger_retires_the_one_before_and_keeps_its_place(registered, store, trusted):
    first, second = registered("a"), registered("b")
    again = registered("a")
    assert (first.number, second.number, again.number) == (2, 4, 2)
    assert again.tags["state"] == "retired"
    assert ModelRegistry(store).version("challenger").number == 4
    assert len(trusted) == 2


def test_what_was_decided_is_not_undone_by_registering_again(registered, store, trusted):
    registry, version = ModelRegistry(store), registered()
    registry.set_alias("champion", 2)  # the decision's state was not yet written
    registry.remove_alias("challenger")
    assert registered().aliases == ("champion",)
    registry.remove_alias("champion")
    registry.tag(2, {"state": "refused"})
    assert registered().aliases == ()
    assert registered().number == version.number


WRITES = [
    "create_run", "log_artifacts", "create_registered_model", "create_model_version", "set_model_version_tag",
    "set_registered_model_alias", "set_terminated",
]  # fmt: skip
TRIALS = [(registered_model, name) for name in ("save_registered_model", "try_registered_model")]


def test_a_registration_that_is_killed_anywhere_is_completed_by_the_next(
    registered, store, trusted, monkeypatch
):
    registry = ModelRegistry(store)
    for step in range(0, 30, 2):
        key = f"key {step}"
        before = registry.versions()
        with monkeypatch.context() as patch:
            done = kill_at(patch, [*((MlflowClient, name) for name in WRITES), *TRIALS], step)
            try:
                registered(key)
            except KilledError:
                assert len(done) == step
            else:
                assert len(done) > 4
                break
        version = registered(key)
        own = [each for each in registry.versions() if each.tags["training"] == key]
        assert [each.tags["split_seed"] for each in own] == ["42", "82"], done
        assert own[0] == version
        assert len(registry.versions()) == len(before) + 2
        assert version.aliases == ("challenger",)
        assert {each.tags["state"] for each in registry.versions()[1:]} <= {"retired", "replicate"}
        assert all(registry.model_directory(each.number).is_dir() for each in own)
    else:
        raise AssertionError("never came to its end")
    assert done[0] == "save_registered_model"
    assert done[-1] == "set_registered_model_alias"
    assert done.index("create_model_version") < done.index("try_registered_model")


def test_an_evaluation_of_another_model_is_refused(registered, project, store, trusted):
    write_report(project, ModelRecord("unispector", 42, "0" * 64, {}), ModelRecord("base", 42, "1" * 64, {}))
    with pytest.raises(
        RegistryError, match=r"evaluation.json: has no evaluation of unispector/seed\d+ as it is"
    ):
        registered()
    (project / EVALUATION).unlink()
    with pytest.raises(DataError, match="run the stage evaluate"):
        registered()
    assert ModelRegistry(store).versions() == ()


def test_data_that_changed_since_training_are_refused(registered, project, store, trusted):
    training = SplitTree(project / SPLITS).training(42)
    training.write_text(training.read_text() + " ")
    with pytest.raises(RegistryError, match="has changed since the model was trained"):
        registered()
    assert ModelRegistry(store).versions() == ()


def test_without_a_model_nothing_is_registered(registered, project, store):
    shutil.rmtree(project / MODELS)
    with pytest.raises(CheckpointError, match="not a model directory"):
        registered()
    assert ModelRegistry(store).versions() == ()


@pytest.mark.parametrize("content", [None, "", "{}", '{"seeds": 3}', "[]"])
def test_a_damaged_lineage_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "lineage.json").write_text(content)
    with pytest.raises(RegistryError, match=r"lineage.json: not the lineage of a registered model"):
        read_lineage(tmp_path)


def test_an_evaluation_without_defect_free_pictures_gives_no_threshold(registered, project, store, trusted):
    rows = tuple(
        replace(each, alarms=None) for each in ROWS if each.subset == "unseen" and each.variant != "untrained"
    )
    report = EvaluationReport.read(project / EVALUATION)
    (project / EVALUATION).write_text(replace(report, rows=rows).evaluation_json())
    tags = registered().tags
    assert not {"alarm_threshold", "seen_bbox_AP50"} & {*tags}
