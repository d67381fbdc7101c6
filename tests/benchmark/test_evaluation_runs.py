"""Evaluations in a real MLflow store, read back through MLflow's own client."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest

from made_up_evaluation import HOSTILE, make_alarms, make_row
from unispector.benchmark.runs import track_evaluation, track_report, track_sweeps
from unispector.config import Config, DataConfig
from unispector.errors import DataError
from unispector.evaluation.results import FIGURES, EvaluationReport, ModelRecord
from unispector.evaluation.sweeps import SweepReport, SweepRow
from unispector.tracking.run import TrackingStore

CONFIG = Config(data=DataConfig(sets={}))
LOCK = (
    "schema: '2.0'\nstages:\n  split:\n    cmd: x\n    outs:\n    - path: data/splits\n      md5: abc.dir\n"
)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "dvc.lock").write_text(LOCK)
    return tmp_path / "project"


@pytest.fixture
def files(tmp_path):
    return report_files(tmp_path / "reports")


def report_files(folder):
    (folder / "pictures").mkdir(parents=True)
    (folder / "evaluation.json").write_text("{}")
    (folder / "pictures" / "a.jpg").write_text("a")
    return [folder / "evaluation.json", folder / "pictures"]


def client_of(store):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store.uri)


def runs(store):
    """All runs of the experiment by name; no name twice."""
    client = client_of(store)
    found = client.search_runs([client.get_experiment_by_name("evaluation").experiment_id])
    by_name = {
        run.info.run_name.partition("-")[0] if not _parent(run) else run.info.run_name: run for run in found
    }
    assert len(by_name) == len(found)
    return by_name


def _parent(run):
    return run.data.tags.get("mlflow.parentRunId")


def artifact(store, run, path):
    return next(store.root.glob(f"artifacts/evaluation/{run.info.run_id}/artifacts/{path}")).read_text()


def row(variant, data_set, subset, split_seed, prompt_seed, value, alarms=None):
    half_width = 1 if prompt_seed == 1 else None
    return make_row(variant, data_set, subset, (split_seed, prompt_seed), value, half_width, alarms)


def alarms(number):
    return make_alarms(number, 10 * number)


def model(variant, seed, fingerprint="f" * 64):
    provenance = {"job": "trained", "data_sha256": "d"}
    if variant != "untrained":
        provenance["mlflow_run_id"] = f"run-of-{variant}-{seed}"
    return ModelRecord(variant, seed, fingerprint, provenance)


ROWS = (
    row("unispector", "tile", "unseen", 42, 1, 40.0, alarms(1.0)),
    row("unispector", "tile", "unseen", 42, 2, 50.0, alarms(2.0)),
    row("unispector", "tile", "seen", 42, 1, 90.0, alarms(0.0)),
    row("unispector", "steel", "unseen", 42, 1, 10.0),
    row("unispector", "steel", "unseen", 42, 2, 20.0),
    row("unispector", "tile", "unseen", 82, 1, 60.0),
    row("unispector", "tile", "unseen", 82, 2, 80.0),
    row("base", "tile", "unseen", 42, 1, 4.0),
)
MODELS = (model("unispector", 42), model("unispector", 82, "e" * 64), model("base", 42, "b" * 64))
REPORT = EvaluationReport(ROWS, (), MODELS, False)


@pytest.fixture(scope="module")
def tracked(template, tmp_path_factory):
    """A store with one evaluation, to read."""
    folder = tmp_path_factory.mktemp("tracked")
    shutil.copytree(template, folder / "mlflow")
    (folder / "dvc.lock").write_text(LOCK)
    store = TrackingStore(folder / "mlflow")
    track_evaluation(store, CONFIG, REPORT, report_files(folder / "reports"), folder)
    return store


def test_each_model_has_a_run_with_its_figures(tracked):
    found = runs(tracked)
    assert set(found) == {"evaluation", "unispector-seed42", "unispector-seed82", "base-seed42"}
    metrics = found["unispector-seed42"].data.metrics
    expected = {
        "unseen/tile/bbox_AP50": 45,
        "unseen/tile/bbox_AP50_std": 5,
        "unseen/tile/bbox_AP": 22.5,
        "unseen/tile/bbox_AP75_std": 1.25,
        "unseen/tile/segm_AP50": 22.5,
        "unseen/tile/bbox_AP50_medium": 22.5,
        "unseen/tile/segm_AP50_large": 22.5,
        "unseen/steel/bbox_AP50": 15,
        "unseen/mean/bbox_AP50": 30,
        "unseen/mean/false_alarms": 1.5,
        "seen/tile/bbox_AP50": 90,
        "seen/mean/bbox_AP50": 90,
        "unseen/tile/false_alarms": 1.5,
        "unseen/tile/false_alarms_std": 0.5,
        "unseen/tile/recall_boxes": 15,
        "unseen/tile/recall_masks": 7.5,
        "unseen/tile/alarm_threshold": 0.625,
        "seen/tile/false_alarms": 0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    for absent in (
        "seen/tile/bbox_AP50_std",
        "unseen/steel/false_alarms",
        "seen/steel/bbox_AP50",
        "unseen/tile/bbox_AP50_small",
    ):
        assert absent not in metrics
    means = REPORT.summaries("unispector")  # of both seeds, as the report's pages have them
    parent = found["evaluation"].data.metrics
    for summary in means:
        for figure, spread in summary.figures.items():
            name = f"unispector/{summary.subset}/{summary.data_set}/{figure.replace('.', '_')}"
            assert parent[name] == pytest.approx(spread.mean, abs=1e-4)
    assert parent["unispector/unseen/mean/bbox_AP50"] == pytest.approx((57.5 + 15) / 2)
    assert parent["unispector/unseen/tile/bbox_AP50_std"] == pytest.approx(np.std([40, 50, 60, 80]), abs=1e-4)
    assert parent["base/unseen/tile/bbox_AP50"] == 4


def test_runs_are_nested_and_say_what_they_are_of(tracked):
    found = runs(tracked)
    parent = found.pop("evaluation")
    assert _parent(parent) is None
    assert {_parent(run) for run in found.values()} == {parent.info.run_id}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    tags = found["unispector-seed42"].data.tags
    expected = {
        "variant": "unispector",
        "split_seed": "42",
        "fingerprint": "f" * 64,
        "training_run": "run-of-unispector-42",
        "provenance.data_sha256": "d",
        "provenance.job": "trained",
        "data.dvc": "abc.dir",
        "git.commit": "unknown",
        "git.dirty": "unknown",
    }
    assert {name: tags[name] for name in expected} == expected
    assert parent.data.tags["data.dvc"] == "abc.dir"
    parameters = found["unispector-seed42"].data.params
    assert parameters["model.spectral.enabled"] == "True"
    assert parameters["evaluate.detections"] == str(CONFIG.evaluate.detections)
    assert {name.partition(".")[0] for name in parameters} == {
        "model", "loss", "augment", "prompt", "train", "evaluate",
    }  # fmt: skip
    assert parent.data.params == parameters
    base = found["base-seed42"].data.params
    assert base["model.spectral.enabled"] == "False"
    assert base["loss.contrastive"] == "0.0"


def test_rows_classes_and_files_are_artifacts(tracked):
    found = runs(tracked)
    table = json.loads(artifact(tracked, found["unispector-seed42"], "evaluation/rows.json"))
    rows = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    assert [(r["data_set"], r["subset"], r["prompt_seed"], r["bbox_AP50"]) for r in rows] == [
        (r.data_set, r.subset, r.prompt_seed, r.metrics.bbox.AP50) for r in ROWS[:5]
    ]
    assert (rows[0]["bbox_AP50_low"], rows[0]["bbox_AP50_high"], rows[0]["false_alarms"]) == (39, 41, 1)
    assert rows[4]["bbox_AP50_low"] is None
    assert rows[4]["recall_boxes"] is None
    table = json.loads(artifact(tracked, found["unispector-seed42"], "evaluation/classes.json"))
    lines = {tuple(line[:3]): dict(zip(table["columns"], line, strict=True)) for line in table["data"]}
    assert set(lines) == {
        (HOSTILE, s, u) for s, u in (("tile", "unseen"), ("tile", "seen"), ("steel", "unseen"))
    }
    assert lines[HOSTILE, "tile", "unseen"]["bbox_AP50"] == 45
    assert lines[HOSTILE, "tile", "unseen"]["segm_AP75"] == pytest.approx(45 / 8, abs=1e-4)
    assert artifact(tracked, found["evaluation"], "evaluation.json") == "{}"
    assert artifact(tracked, found["evaluation"], "pictures/a.jpg") == "a"


def test_the_same_evaluation_again_brings_its_runs_up_to_date(store, root, files):
    track_evaluation(store, CONFIG, REPORT, files, root)
    before = {name: run.info.run_id for name, run in runs(store).items()}
    changed = EvaluationReport(
        (*ROWS[:-1], row("base", "tile", "unseen", 42, 1, 8.0)), (), MODELS[::-1], False
    )
    for _ in range(2):
        track_evaluation(store, CONFIG, changed, files, root)
    after = runs(store)
    assert {name: run.info.run_id for name, run in after.items()} == before
    assert after["base-seed42"].data.metrics["unseen/tile/bbox_AP50"] == 8
    history = client_of(store).get_metric_history(before["base-seed42"], "unseen/tile/bbox_AP50")
    assert [entry.value for entry in history] == [4, 8]
    table = json.loads(artifact(store, after["base-seed42"], "evaluation/rows.json"))
    assert len(table["data"]) == 1


def test_other_models_data_or_parameters_are_another_evaluation(store, root, files):
    one = EvaluationReport(ROWS[-1:], (), MODELS[-1:], False)
    fresh = EvaluationReport(ROWS[-1:], (), (model("base", 42, "c" * 64),), False)
    other = CONFIG.model_copy(update={"evaluate": CONFIG.evaluate.model_copy(update={"detections": 7})})
    track_evaluation(store, CONFIG, one, [], root)
    track_evaluation(store, CONFIG, fresh, [], root)
    track_evaluation(store, other, one, [], root)
    (root / "dvc.lock").write_text(LOCK.replace("abc", "def"))
    track_evaluation(store, CONFIG, one, [], root)
    client = client_of(store)
    found = client.search_runs([client.get_experiment_by_name("evaluation").experiment_id])
    assert len(found) == 8
    assert sum(_parent(run) is None for run in found) == 4
    assert len({run.data.tags["job"] for run in found}) == 8


def sweep_row(data_set, sweep, level, value, **others):
    whole = {
        "variant": "unispector",
        "subset": "unseen",
        "split_seed": 42,
        "prompt_seed": 1,
        "trial": 0,
        **others,
    }
    figures = {figure: value / (1 + index) for index, figure in enumerate(FIGURES)}
    return SweepRow(sweep=sweep, level=level, data_set=data_set, figures=figures, images=5, **whole)


SWEEPS_FOUND = SweepReport(
    (
        sweep_row("tile", "prompt_blur", 0.0, 60.0),
        sweep_row("tile", "prompt_blur", 1.5, 30.0),
        sweep_row("tile", "prompt_blur", 1.5, 40.0, trial=1),
        sweep_row("tile", "prompt_blur", 0.5, 50.0),
        sweep_row("steel", "prompt_blur", 0.0, 20.0),
        sweep_row("steel", "prompt_blur", 0.5, 10.0),
        sweep_row("tile", "prompt_box_iou", 0.1 * 3, 12.0),
        sweep_row("tile", "prompt_box_iou", 1.0, 60.0),
        sweep_row("tile", "target_noise", 5.0, 6.0, subset="seen"),
        sweep_row("tile", "prompt_blur", 0.5, 70.0, split_seed=82),
    )
)


def curve(store, run, name):
    return {entry.step: entry.value for entry in client_of(store).get_metric_history(run.info.run_id, name)}


def test_sweeps_are_curves_over_whole_steps_in_the_runs_of_the_evaluation(store, root, files, tmp_path):
    track_evaluation(store, CONFIG, REPORT, files, root)
    before = {name: run.info.run_id for name, run in runs(store).items()}
    (tmp_path / "sweeps.json").write_text("[]")
    for _ in range(2):
        track_sweeps(store, CONFIG, MODELS, SWEEPS_FOUND, [tmp_path / "sweeps.json"], root)
    found = runs(store)
    assert {name: run.info.run_id for name, run in found.items()} == before
    own = found["unispector-seed42"]
    assert curve(store, own, "sweep/tile/prompt_blur/bbox_AP") == {0: 60, 1: 50, 3: 35}
    assert curve(store, own, "sweep/tile/prompt_blur/bbox_AP50") == {0: 30, 1: 25, 3: 17.5}
    assert curve(store, own, "sweep/tile/prompt_box_iou/bbox_AP") == {3: 12, 10: 60}
    assert curve(store, own, "sweep/mean/prompt_blur/bbox_AP") == {0: 40, 1: 30}
    assert curve(store, own, "sweep_seen/tile/target_noise/bbox_AP") == {5: 6}
    assert curve(store, found["unispector-seed82"], "sweep/tile/prompt_blur/bbox_AP") == {1: 70}
    assert curve(store, found["evaluation"], "unispector/sweep/tile/prompt_blur/bbox_AP") == {
        0: 60,
        1: 60,
        3: 35,
    }
    assert own.data.metrics["unseen/tile/bbox_AP50"] == 45
    assert not [name for name in found["base-seed42"].data.metrics if "sweep" in name]
    # Nothing was recorded twice by the second time.
    history = client_of(store).get_metric_history(own.info.run_id, "sweep/tile/prompt_blur/bbox_AP")
    assert len(history) == 3
    assert artifact(store, found["evaluation"], "sweeps.json") == "[]"


def test_set_names_of_any_kind_keep_their_own_figures(store, root):
    names = ("a+b", "a b", "a/b", "Größe", "..", "mean", "sub/..")
    rows = tuple(
        row("unispector", name, "unseen", 42, 1, float(10 * number))
        for number, name in enumerate(names, start=1)
    )
    track_evaluation(store, CONFIG, EvaluationReport(rows, (), MODELS[:1], False), [], root)
    sweeps = SweepReport(tuple(sweep_row(name, "prompt_blur", 0.5, 1.0) for name in names))
    track_sweeps(store, CONFIG, MODELS[:1], sweeps, [], root)
    metrics = runs(store)["unispector-seed42"].data.metrics
    of_sets = {n: v for n, v in metrics.items() if n.endswith("/bbox_AP50") and n.startswith("unseen/")}
    assert sorted(of_sets.values()) == [10, 20, 30, 40, 40, 50, 60, 70]
    assert of_sets["unseen/mean/bbox_AP50"] == 40
    assert of_sets["unseen/Größe/bbox_AP50"] == 40
    assert (
        sum(name.startswith("sweep/") and name.endswith("/bbox_AP50") for name in metrics) == len(names) + 1
    )


def test_what_is_no_number_is_left_out(store, root):
    odd = dataclasses.replace(alarms(1.0), recall_boxes=float("nan"))
    rows = (row("unispector", "tile", "unseen", 42, 1, 40.0, odd),)
    track_evaluation(store, CONFIG, EvaluationReport(rows, (), MODELS[:1], False), [], root)
    metrics = runs(store)["unispector-seed42"].data.metrics
    assert "unseen/tile/recall_boxes" not in metrics
    assert metrics["unseen/tile/recall_masks"] == 5


def test_the_page_goes_to_the_latest_evaluation_of_the_models(store, root, tmp_path, caplog):
    page = tmp_path / "index.html"
    page.write_text("<html>")
    track_report(store, MODELS, page)
    assert "no run of this evaluation" in caplog.text
    track_evaluation(store, CONFIG, EvaluationReport(ROWS[-1:], (), MODELS[-1:], False), [], root)
    track_evaluation(store, CONFIG, REPORT, [], root)
    track_report(store, MODELS[::-1], page)
    client = client_of(store)
    (run,) = client.search_runs(
        [client.get_experiment_by_name("evaluation").experiment_id],
        "tags.variant = 'unispector' and tags.split_seed = '82'",
    )
    assert artifact(store, client.get_run(_parent(run)), "index.html") == "<html>"
    assert len(list(store.root.glob("artifacts/**/index.html"))) == 1


def test_a_broken_store_is_warned_of_once_and_stops_nothing(tmp_path, root, files, caplog):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "mlflow.db").write_text("no database " * 100)
    store = TrackingStore(tmp_path / "broken")
    calls = {
        "the evaluation": lambda: track_evaluation(store, CONFIG, REPORT, files, root),
        "the sweeps": lambda: track_sweeps(store, CONFIG, MODELS, SWEEPS_FOUND, files, root),
        "the report": lambda: track_report(store, MODELS, files[0]),
    }
    for what, call in calls.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            call()
        assert [what in record.getMessage() for record in caplog.records] == [True]


def test_a_damaged_lock_is_no_trouble_of_the_store(store, root, files):
    (root / "dvc.lock").write_text("- no lock")
    with pytest.raises(DataError, match=r"dvc\.lock"):
        track_evaluation(store, CONFIG, REPORT, files, root)
