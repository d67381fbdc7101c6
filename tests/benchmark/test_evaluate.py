"""The stage `evaluate` on real files, with tiny real models and with one that knows the truth."""

import dataclasses
import io
import json

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from benchmark_project import found_exactly
from unispector.benchmark.evaluate import evaluate_files
from unispector.config import EvaluateConfig
from unispector.data.coco import Annotations
from unispector.data.combine import joined
from unispector.data.defect_free import defect_free_for_tests
from unispector.data.protocol.split_tree import SplitTree
from unispector.errors import CheckpointError, DataError
from unispector.evaluation.failures import worst_false_alarms, worst_misses
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.intervals import bootstrap_interval
from unispector.evaluation.matching import match
from unispector.evaluation.results import FIGURES, EvaluationReport, figure_of
from unispector.inference.detector import UniSpector
from unispector.inference.instance_embeddings import InstanceEmbeddings
from unispector.inference.prompt_bank import PromptBank
from unispector.pipeline.evaluate import evaluate
from unispector.pipeline.report import report, show
from unispector.project.paths import EVALUATION, METRICS, MODELS, PICTURES, PROMPT_SPACE, SPLITS
from unispector.reporting.evaluation_images import choose_samples
from unispector.reporting.prompt_space import read_records
from unispector.structures import EncodedPrompts
from unispector.tracking.run import TrackingStore


@pytest.fixture(scope="module")
def evaluated(benchmark, new_project):
    """A project after an evaluation of all its models, and what that found."""
    root = new_project()
    return root, evaluate(benchmark.config, root, None)


def changed(config, **settings):
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=settings)})


def pair_of(root, row):
    """The split's files that a row is about, and the folder of their images."""
    tree, seeds = SplitTree(root / SPLITS), (row.split_seed, row.prompt_seed)
    test = (
        tree.cross_domain("steel", row.prompt_seed)
        if row.data_set == "steel"
        else tree.in_domain(row.data_set, row.subset, *seeds)
    )
    return test, root / "data/raw" / f"raw-{row.data_set}"


class Oracle:
    """Finds exactly what the sets' whole annotation files say, under the classes it was prompted with.

    Its banks number the classes backwards.
    """

    fingerprint, provenance = "oracle", {}

    def __init__(self, benchmark):
        self.truth = benchmark.annotations

    def encode_instances(self, annotations, root, roi, batch_size):
        labels = torch.tensor([annotations.class_index[i.category_id] for i in annotations.instances])
        ids = tuple(instance.id for instance in annotations.instances)
        encoded = EncodedPrompts(torch.eye(8)[labels + 4 * (root.name == "raw-steel")], None)
        return InstanceEmbeddings(encoded, labels, ids, annotations.class_names, self.fingerprint, (64,) * 4)

    def encode_annotations(self, annotations, root, roi, batch_size):
        names = tuple(reversed(annotations.class_names))
        return PromptBank(
            torch.eye(len(names)), names, (1,) * len(names), self.fingerprint, (64,) * len(names)
        )

    def detect(self, images, bank, batch_size, limit):
        return [self.found(path, bank.class_names) for path in images]

    def stream_banks(self, images, banks, batch_size, limit):
        for path in images:
            yield tuple(self.found(path, bank.class_names) for bank in banks)

    def found(self, path, names):
        (folder,) = (part for part in path.parts if part.startswith("raw-"))
        return found_exactly(self.truth[folder.removeprefix("raw-")], path, names)


def test_a_model_that_knows_the_truth_gets_100_percent_everywhere(benchmark, new_project, monkeypatch):
    monkeypatch.setattr(UniSpector, "load", lambda directory: Oracle(benchmark))
    root = new_project(["unispector", "base"])
    result = evaluate(benchmark.config, root, None)
    for row in result.rows:
        assert [figure_of(row.metrics, figure) for figure in FIGURES] == pytest.approx([100] * 6)
        for interval in row.intervals.values():
            assert (interval.low, interval.high) == pytest.approx((100, 100))
        if row.data_set == "tile":
            assert (row.alarms.false_alarms, row.alarms.threshold) == (0, 0)
            assert (row.alarms.recall_boxes, row.alarms.recall_masks) == (100, 100)
    assert {picture.kind for picture in result.pictures} == {"sample"}
    space = read_records(root / PROMPT_SPACE)[0].space
    assert (space.within_degrees, space.between_degrees) == pytest.approx((0, 90), abs=1e-3)


def test_every_model_is_judged_on_every_set_with_every_draw_of_prompts(evaluated, benchmark):
    root, result = evaluated
    # The in-domain set's unseen classes, its seen ones, and the cross-domain set, twice each.
    assert len(result.rows) == 3 * (2 + 2 + 2)
    assert len({dataclasses.astuple(row)[:5] for row in result.rows}) == len(result.rows)
    assert {(row.data_set, row.subset) for row in result.rows} == {
        ("tile", "unseen"),
        ("tile", "seen"),
        ("steel", "unseen"),
    }
    assert result.variants == ("unispector", "base", "untrained")
    for model in result.models:
        detector = UniSpector.load(root / MODELS / model.variant / "seed42")
        assert (model.fingerprint, model.provenance) == (detector.fingerprint, {"made by": "a test"})
    figures = {v: [row.metrics for row in result.rows if row.variant == v] for v in result.variants}
    assert figures["untrained"] == figures["unispector"]  # the same weights here
    assert figures["base"] != figures["unispector"]
    assert EvaluationReport.read(root / EVALUATION) == result
    assert not result.prompts_judged
    assert set(json.loads((root / METRICS).read_text())) == {"bbox", "segm", *result.variants}


@pytest.mark.parametrize("number", [0, 3, 4])
def test_a_row_is_what_files_of_ones_own_give(evaluated, benchmark, number):
    root, result = evaluated
    row = result.rows[number]
    pair, images = pair_of(root, row)
    alone = evaluate_files(
        root / MODELS / "unispector/seed42",
        pair.prompt,
        pair.target,
        images,
        config=benchmark.config.evaluate,
    )
    assert row.metrics == alone
    assert figure_of(row.metrics, "bbox.AP50") > 1
    assert row.metrics.images == len(Annotations.read(pair.target).images)


def matches_of(root, row, settings):
    """Box and mask matches of the main model, detected anew, and the targets."""
    detector = UniSpector.load(root / MODELS / "unispector/seed42")
    pair, images = pair_of(root, row)
    bank = detector.encode_annotations(Annotations.read(pair.prompt), images)
    truth = GroundTruth(Annotations.read(pair.target))
    files = [images / image.file_name for image in truth.annotations.images]
    found = detector.detect(files, bank, limit=settings.detections)
    overlaps = {
        image: truth.overlaps(image, detections)
        for image, detections in zip(truth.image_ids, found, strict=True)
    }
    return match(truth, overlaps, "bbox"), match(truth, overlaps, "segm"), truth.annotations


def test_intervals_are_those_of_the_rows_own_boxes_and_masks(evaluated, benchmark):
    root, result = evaluated
    for row in result.rows[:6]:
        boxes, masks, _ = matches_of(root, row, benchmark.config.evaluate)
        for figure, matches in (("bbox.AP50", boxes), ("segm.AP50", masks)):
            expected = bootstrap_interval(matches, benchmark.config.evaluate.resamples, seed=0)
            found = row.intervals[figure]
            assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
            assert 0 <= found.low < found.high <= 100
        assert set(row.intervals) == {"bbox.AP50", "segm.AP50"}
    assert any(row.intervals["bbox.AP50"] != row.intervals["segm.AP50"] for row in result.rows[:6])


def test_alarms_are_counted_on_defect_free_images(evaluated, benchmark):
    root, result = evaluated
    settings = benchmark.config.evaluate
    good = defect_free_for_tests(root / "data/insa/tile.dropped.csv", settings.good_images)
    assert len(good) == 2  # of those that never train
    detector = UniSpector.load(root / MODELS / "unispector/seed42")
    alarms: list[float] = []
    recalls = []
    for row in result.rows:
        if row.data_set == "steel":
            assert row.alarms is None
        elif row.variant == "unispector":
            pair, images = pair_of(root, row)
            bank = detector.encode_annotations(Annotations.read(pair.prompt), images)
            found = detector.detect([images / name for name in good], bank, 4, settings.detections)
            scores = np.concatenate([of_image.scores.numpy() for of_image in found])
            assert row.alarms.good_images == 2
            if row.prompt_seed == 1:
                worst = good[int(np.argmax([of_image.scores.max() for of_image in found]))]
                where = f"pictures/tile-{row.subset}-defect-free-01.jpg"
                drawn = [worst] if row.subset == "unseen" else []
                assert [p.image for p in result.pictures if p.file == where] == drawn
            alarms.append(row.alarms.false_alarms)
            assert alarms[-1] == np.count_nonzero(scores >= settings.alarm_score) / len(good)
            # No more alarms than allowed, and no stricter than needed.
            assert np.count_nonzero(scores > row.alarms.threshold + 1e-6) <= len(good) * settings.alarm_rate
            assert np.count_nonzero(scores > row.alarms.threshold - 1e-6) > len(good) * settings.alarm_rate
            recalls.append(recall(detector, bank, pair, images, row.alarms.threshold))
            assert row.alarms.recall_boxes == pytest.approx(recalls[-1])
    assert 0 < max(recalls) < 100
    assert max(alarms) > 0


def recall(detector, bank, pair, images, threshold):
    """Percent of instances that greedy matching by hand finds with detections above the threshold."""
    targets = Annotations.read(pair.target)
    hits = 0
    for image in targets.images:
        (found,) = detector.detect([images / image.file_name], bank, limit=20)
        free = {i.id: i for i in targets.instances_of(image.id)}
        for box, label, score in zip(found.boxes_xyxy, found.labels, found.scores, strict=True):
            names = {i: targets.class_names[targets.class_index[t.category_id]] for i, t in free.items()}
            own = [i for i, name in names.items() if name == found.class_names[label]]
            overlaps = {i: iou(box.tolist(), free[i].bbox) for i in own}
            best = max(overlaps, key=overlaps.get, default=None)
            if score >= threshold and best is not None and overlaps[best] >= 0.5:
                hits += 1
                del free[best]
    return 100 * hits / len(targets.instances)


def iou(corners, xywh):
    x, y, w, h = xywh
    left, top, right, bottom = corners
    inner = max(min(right, x + w) - max(left, x), 0) * max(min(bottom, y + h) - max(top, y), 0)
    return inner / ((right - left) * (bottom - top) + w * h - inner)


def test_pictures_are_drawn_of_the_main_model_and_lie_where_the_report_looks(evaluated):
    root, result = evaluated
    kinds = [(p.data_set, p.subset, p.kind) for p in result.pictures if p.file.count("defect-free") == 0]
    assert kinds.count(("tile", "unseen", "sample")) == 2
    assert kinds.count(("tile", "seen", "sample")) == 1
    assert kinds.count(("steel", "unseen", "sample")) == 3
    for where, count in ((("tile", "unseen"), 1), (("tile", "seen"), 0), (("steel", "unseen"), 1)):
        assert kinds.count((*where, "false alarm")) == kinds.count((*where, "miss")) == count
    good = [p for p in result.pictures if p.file.count("defect-free")]
    assert [(p.subset, p.image.partition("/")[0]) for p in good] == [("unseen", "good")]
    files = sorted(str(path.relative_to(root / "reports")) for path in (root / PICTURES).iterdir())
    assert files == sorted(picture.file for picture in result.pictures)
    assert all(cv2.imread(str(root / "reports" / file)) is not None for file in files)


def test_pictures_are_of_the_first_draw_of_prompts(evaluated, benchmark):
    root, result = evaluated
    settings = benchmark.config.evaluate
    of = {row.prompt_seed: row for row in result.rows[:6] if row.data_set == "steel"}
    images = {
        kind: [p.image for p in result.pictures if (p.data_set, p.kind) == ("steel", kind)]
        for kind in ("sample", "miss", "false alarm")
    }
    boxes, _, targets = matches_of(root, of[1], settings)
    name_of = {image.id: image.file_name for image in targets.images}
    samples = choose_samples(targets, 1, settings.pictures)
    assert images["sample"] == [image.file_name for image, _ in samples]
    (miss,) = worst_misses(boxes, 1, settings.picture_score)
    (alarm,) = worst_false_alarms(boxes, 1, settings.picture_score)
    assert (images["miss"], images["false alarm"]) == ([name_of[miss.image_id]], [name_of[alarm.image_id]])


def test_the_same_evaluation_twice_gives_the_same_files(short, new_project):
    reports = []
    for _ in range(2):
        root = new_project(["unispector"])
        (root / PICTURES).mkdir(parents=True)
        (root / PICTURES / "stale.jpg").write_text("old")
        evaluate(short, root, None)
        files = [path for path in (root / "reports").rglob("*") if path.is_file()]
        reports.append({path.relative_to(root): path.read_bytes() for path in files})
    assert reports[0] == reports[1]
    assert {EVALUATION, METRICS, PROMPT_SPACE} < reports[0].keys()
    assert PICTURES / "stale.jpg" not in reports[0]


def test_prompt_images_are_targets_too_when_asked_for(short, new_project, tmp_path):
    root = new_project(["unispector"])
    config = changed(short, include_prompts=True, resamples=0, good_images=0, pictures=0, failures=0)
    result = evaluate(config, root, None)
    assert (root / PICTURES).is_dir()
    assert result.pictures == ()
    assert EvaluationReport.read(root / EVALUATION).prompts_judged
    for row in result.rows:
        pair, images = pair_of(root, row)
        prompts, targets = Annotations.read(pair.prompt), Annotations.read(pair.target)
        assert row.metrics.images == len(prompts.images) + len(targets.images)
        assert row.metrics.instances == len(prompts.instances) + len(targets.instances)
        joined(targets, prompts).write(tmp_path / "all.json")
        alone = evaluate_files(
            root / MODELS / "unispector/seed42",
            pair.prompt,
            tmp_path / "all.json",
            images,
            config=config.evaluate,
        )
        assert row.metrics == alone
        assert (row.intervals, row.alarms) == ({}, None)


def test_prompts_are_boxes_or_masks_as_configured(short, new_project):
    root = new_project(["unispector"])
    prompt = short.prompt.model_copy(update={"test_roi": "mask"})
    config = changed(short, resamples=0, good_images=0, pictures=0, failures=0)
    result = evaluate(config.model_copy(update={"prompt": prompt}), root, None)
    row = next(row for row in result.rows if row.data_set == "steel")
    pair, images = pair_of(root, row)
    files = (root / MODELS / "unispector/seed42", pair.prompt, pair.target, images)
    by_mask, by_box = (evaluate_files(*files, config=config.evaluate, roi=roi) for roi in ("mask", "box"))
    assert row.metrics == by_mask != by_box


def test_figures_go_to_runs_of_the_experiment_evaluation(short, new_project):
    root = new_project(["unispector"])
    store = TrackingStore(root / "artifacts/mlflow")
    result = evaluate(changed(short, resamples=0), root, store)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store.uri)
    experiments = {experiment.name: experiment.experiment_id for experiment in client.search_experiments()}
    runs = client.search_runs([experiments["evaluation"]])
    assert len(runs) == 2
    (model,) = (run for run in runs if "mlflow.parentRunId" in run.data.tags)
    (all_models,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    for row in result.rows:
        figure = f"{row.subset}/{row.data_set}/bbox_AP50"
        expected = pytest.approx(row.metrics.bbox.AP50, abs=1e-4)
        assert model.data.metrics[figure] == expected
        assert all_models.data.metrics[f"unispector/{figure}"] == expected
    assert {file.path for file in client.list_artifacts(all_models.info.run_id)} >= {
        "evaluation.json",
        "pictures",
    }


def test_report_shows_the_evaluation_and_where_things_are(evaluated):
    root, result = evaluated
    store = TrackingStore(root / "artifacts/mlflow")
    files = report(root / "reports", store)
    assert all(picture.file in files.markdown.read_text() for picture in result.pictures)
    assert files.page.read_text().count("data:image/webp;base64,") == len(result.pictures)
    console = Console(width=100, record=True, file=io.StringIO())
    show(root / "reports", store, console)
    text = console.export_text()
    for expected in (store.ui_command(), "UniSpector", "steel"):
        assert expected in text


def test_missing_models_and_splits_are_named_before_any_work(benchmark, new_project):
    root = new_project(["unispector"])
    with pytest.raises(CheckpointError, match=r"base/seed42.*train"):
        evaluate(benchmark.config, root, None)
    root = new_project()
    (root / "data").unlink()
    with pytest.raises(DataError, match="run `dvc repro split`"):
        evaluate(benchmark.config, root, None)
    assert not (root / "reports").exists()


def test_files_of_ones_own_are_judged_without_a_split(benchmark, sharp_model, tmp_path):
    annotations, images = benchmark.annotations["steel"], benchmark.root / "data/raw/raw-steel"
    prompts, targets = annotations.keep_images(range(2, 10)), annotations.keep_images([1, *range(10, 17)])
    prompts.write(tmp_path / "p.json")
    targets.write(tmp_path / "t.json")
    arguments = (sharp_model, tmp_path / "p.json", tmp_path / "t.json", images)
    metrics = evaluate_files(*arguments)
    assert (metrics.images, metrics.instances) == (8, len(targets.instances))
    assert metrics == evaluate_files(*arguments, config=EvaluateConfig(batch_size=3))
    prompts.keep_categories([1, 2, 3]).write(tmp_path / "p.json")
    with pytest.raises(DataError, match=r"p\.json.*'black'"):
        evaluate_files(*arguments)
