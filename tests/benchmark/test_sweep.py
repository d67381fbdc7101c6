"""Sweeps against the naive way: change the files on disk, then evaluate them, one level at a time."""

import dataclasses
import zlib
from collections import Counter

import cv2
import numpy as np
import pytest

from unispector.benchmark import sweep
from unispector.benchmark.evaluate import evaluate_files
from unispector.benchmark.judge import share_bar
from unispector.benchmark.sweep import (
    SweepTask,
    passes,
    sweep_counts,
    sweep_pair,
    sweep_prompts,
    sweep_targets,
)
from unispector.benchmark.sweep_files import sweep_files
from unispector.config import EvaluateConfig, SweepConfig
from unispector.data.prompt_changes import prompt_pool, with_shifted_boxes
from unispector.data.target_changes import LEVELS, change_annotations, change_image
from unispector.errors import ConfigError, DataError
from unispector.evaluation.results import FIGURES, figure_of
from unispector.evaluation.sweeps import SWEEPS as KINDS
from unispector.evaluation.sweeps import SweepReport
from unispector.pipeline.evaluate import evaluate
from unispector.pipeline.report import report
from unispector.pipeline.sweep import sweep as sweep_stage
from unispector.project.paths import SWEEPS
from unispector.tracking.run import TrackingStore

SETTINGS = EvaluateConfig(batch_size=4, detections=20)
LEVELS_OF_PROMPTS = SweepConfig(
    blur=(0.0, 1.0, 2.0), box_iou=(0.3, 0.7), box_trials=2, counts=(1, 3, 5, 6), count_trials=2
)
SEVERITY = 3


@pytest.fixture(scope="module")
def task(benchmark, detector, truth_for):
    """Sharp prompts find most of the targets, so that every change of either is seen in the figures."""
    images = benchmark.root / "data/raw/raw-steel"
    prompts = benchmark.annotations["steel"].keep_images(range(1, 9))
    truth = truth_for("steel", detector.encode_annotations(prompts, images))
    targets = truth.keep_images(range(9, 25))
    return SweepTask(detector, prompts, targets, images, 7, LEVELS_OF_PROMPTS, SETTINGS)


@pytest.fixture(scope="module")
def of_prompts(task):
    measured = sweep_prompts(task, float)
    by_place = {(m.sweep, m.level, m.trial): m.metrics for m in measured}
    assert len(by_place) == len(measured)
    return by_place


@pytest.fixture
def naive(task, sharp_model, tmp_path):
    """`naive(...)` -> metrics of files written to disk, those of the task where nothing else is given."""

    def evaluate(prompts=task.prompts, targets=task.targets, images=task.images, roi="box"):
        prompts.write(tmp_path / "p.json")
        targets.write(tmp_path / "t.json")
        return evaluate_files(
            sharp_model, tmp_path / "p.json", tmp_path / "t.json", images, config=SETTINGS, roi=roi
        )

    return evaluate


@pytest.fixture
def folder_with(task, tmp_path):
    """`folder_with(change, annotations)` -> a folder with all images, those of the file changed."""

    def make(change, annotations):
        names = {image.file_name for image in annotations.images}
        (tmp_path / "images").mkdir()
        for file in task.images.glob("*.png"):
            pixels = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
            changed = change(pixels, file.name) if file.name in names else pixels
            cv2.imwrite(str(tmp_path / "images" / file.name), changed[..., ::-1])
        return tmp_path / "images"

    return make


def figures(metrics):
    return [figure_of(metrics, figure) for figure in FIGURES]


def test_prompts_as_drawn_are_what_the_stage_evaluate_judges(of_prompts, naive):
    clean = naive()
    assert of_prompts["prompt_kind", 0.0, 0] == clean
    assert of_prompts["prompt_box_iou", 1.0, 0] == clean
    assert of_prompts["prompt_blur", 0.0, 0] == clean
    assert min(figures(clean)) > 10


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_blurred_prompts_are_blurred_pictures(of_prompts, naive, task, folder_with, sigma):
    images = folder_with(lambda pixels, _: cv2.GaussianBlur(pixels, (0, 0), sigma), task.prompts)
    assert of_prompts["prompt_blur", sigma, 0] == naive(images=images) != of_prompts["prompt_kind", 0.0, 0]


@pytest.mark.parametrize(("iou", "trial"), [(0.3, 0), (0.3, 1), (0.7, 0)])
def test_inexact_boxes_are_files_with_other_boxes(of_prompts, naive, task, iou, trial):
    prompts = with_shifted_boxes(task.prompts, iou, task.seed, trial)
    assert of_prompts["prompt_box_iou", iou, trial] == naive(prompts) != of_prompts["prompt_kind", 0.0, 0]


def test_masks_are_prompts_of_another_kind(of_prompts, naive):
    assert of_prompts["prompt_kind", 1.0, 0] == naive(roi="mask") != of_prompts["prompt_kind", 0.0, 0]


def test_every_number_of_prompts_meets_the_same_targets_and_no_prompt_is_one(task, naive):
    measured = sweep_counts(task, float)
    pool = prompt_pool(task.prompts, task.targets, 6, task.seed)
    assert len(pool.taken) > 0
    left = [image.id for image in task.targets.images if image.file_name not in pool.taken]
    targets = task.targets.keep_images(left)
    assert {(m.metrics.images, m.metrics.instances) for m in measured} == {
        (len(targets.images), len(targets.instances))
    }
    assert {m.sweep for m in measured} == {"prompt_count"}
    # No class has 6 images to prompt with.
    assert sorted((m.level, m.trial) for m in measured) == [(1, 0), (1, 1), (3, 0), (3, 1), (5, 0), (5, 1)]
    by_place = {(m.level, m.trial): m.metrics for m in measured}
    everything = naive(pool.annotations, targets)
    assert by_place[5, 0] == by_place[5, 1] == everything
    assert by_place[1, 0] != everything


@pytest.mark.parametrize("kind", LEVELS)
def test_changed_targets_are_changed_files(task, naive, folder_with, of_prompts, kind):
    def change(pixels, name):
        chance = np.random.default_rng((zlib.crc32(f"{kind}/{name}".encode()), SEVERITY))
        return change_image(pixels, kind, SEVERITY, chance)

    images = folder_with(change, task.targets)
    expected = naive(targets=change_annotations(task.targets, kind, SEVERITY), images=images)
    bank = task.detector.encode_annotations(task.prompts, task.images, batch_size=SETTINGS.batch_size)
    shares = []
    measured = sweep_targets(task, bank, kind, SEVERITY, shares.append)
    assert (measured.sweep, measured.level, measured.trial) == (f"target_{kind}", SEVERITY, 0)
    assert measured.metrics == expected != of_prompts["prompt_kind", 0.0, 0]
    assert sum(shares) == pytest.approx(1)


def test_a_sweep_too_large_for_one_pass_takes_several(task, of_prompts, monkeypatch):
    monkeypatch.setattr(sweep, "KEPT_AT_ONCE", 2 * len(task.targets.images))
    shares = []
    again = {(m.sweep, m.level, m.trial): m.metrics for m in sweep_prompts(task, shares.append)}
    assert again == of_prompts
    assert sum(shares) == pytest.approx(1)


def test_numbers_no_class_reaches_leave_nothing_to_judge(task):
    config = dataclasses.replace(task, config=SweepConfig(counts=(1000,)))
    shares = []
    assert sweep_counts(config, shares.append) == []
    assert sum(shares) == 1


def test_the_bar_moves_by_the_passes_there_are(task):
    config = SweepConfig(blur=(), box_iou=(), counts=(1,), count_trials=1, severities=(1, 5))
    few = dataclasses.replace(task, config=config, targets=task.targets.keep_images(range(9, 15)))
    with share_bar(passes(config)) as bar:
        measured = sweep_pair(few, bar)
        assert bar.n == pytest.approx(2 + 7 * 2)
    clean = next(m.metrics for m in measured if (m.sweep, m.level) == ("prompt_kind", 0))
    references = [m.metrics for m in measured if m.sweep.startswith("target") and m.level == 0]
    assert references == [clean] * 7


@pytest.fixture(scope="module")
def config(short):
    sweep = SweepConfig(
        sets=("tile",),
        prompt_seeds=(2,),
        blur=(1.0,),
        box_iou=(0.5,),
        box_trials=2,
        counts=(1, 2),
        count_trials=2,
        severities=(SEVERITY,),
    )
    split = short.split.model_copy(update={"prompt_seeds": (1, 2)})
    evaluate = short.evaluate.model_copy(
        update={"pictures": 0, "failures": 0, "resamples": 0, "good_images": 0}
    )
    return short.model_copy(update={"sweep": sweep, "split": split, "evaluate": evaluate})


@pytest.fixture(scope="module")
def project(config, new_project):
    root = new_project(["unispector", "untrained"])
    return root, evaluate(config, root, None)


def test_the_main_model_is_swept_on_unseen_classes_of_the_sets_named(project, config):
    root, evaluated = project
    found = sweep_stage(config, root, None)
    assert {(r.variant, r.data_set, r.subset, r.split_seed, r.prompt_seed) for r in found.rows} == {
        ("unispector", "tile", "unseen", 42, 2)
    }
    assert Counter((row.sweep, row.level) for row in found.rows) == {
        ("prompt_kind", 0): 1,
        ("prompt_kind", 1): 1,
        ("prompt_blur", 0): 1,
        ("prompt_blur", 1): 1,
        ("prompt_box_iou", 1): 1,
        ("prompt_box_iou", 0.5): 2,
        ("prompt_count", 1): 2,
        ("prompt_count", 2): 2,
        **{(f"target_{kind}", level): 1 for kind in LEVELS for level in (0, SEVERITY)},
    }
    assert {row.sweep for row in found.rows} == set(KINDS)
    expected = next(
        row
        for row in evaluated.rows
        if (row.variant, row.data_set, row.subset, row.prompt_seed) == ("unispector", "tile", "unseen", 2)
    )
    for row in found.rows:
        if row.level == KINDS[row.sweep].reference:
            assert list(row.figures.values()) == figures(expected.metrics)
            assert row.images == expected.metrics.images
    read = SweepReport.read(root / SWEEPS)
    assert [dataclasses.replace(row, figures={}.fromkeys(FIGURES, 0)) for row in read.rows] == [
        dataclasses.replace(row, figures={}.fromkeys(FIGURES, 0)) for row in found.rows
    ]
    for row, again in zip(found.rows, read.rows, strict=True):
        assert again.figures == pytest.approx(row.figures, abs=1e-4)


def test_the_same_sweeps_twice_give_the_same_file(project, config):
    root, _ = project
    texts = []
    for _ in range(2):
        sweep_stage(config, root, None)
        texts.append((root / SWEEPS).read_bytes())
        (root / SWEEPS).unlink()
    assert texts[0] == texts[1]


def changed(config, **settings):
    return config.model_copy(update={"sweep": config.sweep.model_copy(update=settings)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sets": ("tile", "stele")}, "sweep.sets: 'stele' is not among data.sets ['tile', 'steel']"),
        ({"prompt_seeds": (1, 3)}, "sweep.prompt_seeds: 3 is not among split.prompt_seeds [1, 2]"),
    ],
)
def test_what_there_is_not_cannot_be_swept(config, tmp_path, settings, message):
    with pytest.raises(ConfigError) as caught:
        sweep_stage(changed(config, **settings), tmp_path, None)
    assert str(caught.value) == message


def test_sweeps_come_after_the_evaluation(config, tmp_path):
    with pytest.raises(DataError, match=r"evaluation\.json"):
        sweep_stage(config, tmp_path, None)


def test_without_sets_nothing_is_swept_and_the_report_does_without(project, config):
    root, _ = project
    assert sweep_stage(changed(config, sets=()), root, None).rows == ()
    files = report(root / "reports", TrackingStore(root / "artifacts/mlflow"))
    assert "Robustness" not in files.page.read_text()


def test_files_of_ones_own_are_swept_without_a_split(task, sharp_model, tmp_path):
    levels = SweepConfig(blur=(1.0,), box_iou=(), counts=(1,), count_trials=1, severities=(SEVERITY,))
    task.prompts.write(tmp_path / "prompts.json")
    task.targets.write(tmp_path / "my targets.json")
    files = (sharp_model, tmp_path / "prompts.json", tmp_path / "my targets.json", task.images)
    found = sweep_files(*files, tmp_path / "out", levels)
    assert SweepReport.read(tmp_path / "out/sweep.json").data_sets == ("my targets",)
    assert "Robustness on my targets" in (tmp_path / "out/index.html").read_text()
    clean = figures(evaluate_files(*files))
    assert [list(row.figures.values()) for row in found.rows if row.level == KINDS[row.sweep].reference] == [
        clean
    ] * 10  # of every kind but the number of prompts, whose reference of 5 was not asked for


def test_curves_go_to_the_runs_of_the_evaluation(project, config):
    root, _ = project
    store = TrackingStore(root / "artifacts/mlflow")
    found = sweep_stage(changed(config, severities=(1,)), root, store)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store.uri)
    runs = client.search_runs([client.get_experiment_by_name("evaluation").experiment_id])
    (model,) = (run for run in runs if "mlflow.parentRunId" in run.data.tags)
    points = client.get_metric_history(model.info.run_id, "sweep/tile/target_jpeg/bbox_AP50")
    curve = found.curve("target_jpeg", "tile", "bbox.AP50")
    assert [point.step for point in points] == [0, 1]
    assert [point.value for point in points] == pytest.approx([point.mean for point in curve], abs=1e-4)
