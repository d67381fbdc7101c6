"""The evaluate and report stages on real files, with a tiny real model and with one that knows the truth."""

import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from unispector.config import Config, DataConfig, EvaluateConfig, SetConfig, SplitConfig, TrainConfig
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.protocol.split_tree import BenchmarkSet, SplitTree, write_splits
from unispector.data.protocol.splits import SplitRules
from unispector.errors import CheckpointError, DataError
from unispector.evaluation.coco_metrics import evaluate_detections
from unispector.evaluation.results import FIGURES, EvaluationReport, figure_of
from unispector.inference.detector import UniSpector
from unispector.ops.rle import encode_rle
from unispector.stages import evaluate as stage
from unispector.stages.evaluate import evaluate_all, evaluate_files
from unispector.stages.report import report, show
from unispector.structures import Detections
from unispector.tracking.run import TrackingStore

NAMES = ("bright", "dark", "half", "black")


def make_set(folder, seed, per_class=6):
    """Noise of many sizes with a square of the class's brightness; the last image shows two classes."""
    rng = np.random.default_rng(seed)
    images, instances = [], []
    for number in range(1, len(NAMES) * per_class + 1):
        labels = [number % len(NAMES)] if number > 1 else [1, 2]
        height, width = (int(side) for side in rng.integers(60, 100, 2))
        pixels = rng.integers(96, 160, (height, width, 3), dtype=np.uint8)
        for place, label in enumerate(labels):
            x, y, side = (
                4 + 28 * place + int(rng.integers(0, 4)),
                int(rng.integers(2, 30)),
                int(rng.integers(10, 24)),
            )
            pixels[y : y + side, x : x + side] = (255, 60, 128, 0)[label]
            box = (float(x), float(y), float(side), float(side))
            instances.append(InstanceRecord(len(instances) + 1, number, label + 1, box, float(side**2), None))
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
        images.append(ImageRecord(number, f"{number}.png", width, height))
    classes = tuple(CategoryRecord(number, name, "part") for number, name in enumerate(NAMES, start=1))
    return Annotations(tuple(images), tuple(instances), classes)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Raw images, splits and the configuration of one in-domain and one cross-domain set."""
    root = tmp_path_factory.mktemp("benchmark")
    sets = [
        BenchmarkSet(name, f"raw-{name}", domain, make_set(root / "raw" / f"raw-{name}", seed))
        for seed, (name, domain) in enumerate((("tile", "in"), ("steel", "cross")))
    ]
    rules = SplitRules(unseen_fraction=0.25, prompts_per_class=2, tail_images=3, seen_test_fraction=0.5)
    write_splits(sets, rules, [42], [1, 2], root / "splits")
    config = Config(
        data=DataConfig(
            root=root / "raw",
            sets={s.name: SetConfig(source="magnetic_tile", path=s.folder, domain=s.domain) for s in sets},
        ),
        split=SplitConfig(seeds=(42,), prompt_seeds=(1, 2)),
        train=TrainConfig(ablation_seeds=(42,)),
        evaluate=EvaluateConfig(pictures=3, batch_size=4, picture_score=0.0, detections=20),
    )
    return root, config


@pytest.fixture
def models(tmp_path, tiny_model, other_tiny_model):
    for variant, model in (("unispector", tiny_model), ("base", other_tiny_model), ("untrained", tiny_model)):
        shutil.copytree(model, tmp_path / "models" / variant / "seed42")
    return tmp_path / "models"


class Oracle:
    """Finds exactly what an annotation file says, under the class names it was prompted with."""

    def __init__(self, truth):
        self.provenance = {}
        self.truth = {
            root / image.file_name: (annotations, image)
            for root, annotations in truth
            for image in annotations.images
        }

    def encode_annotations(self, annotations, root, roi, batch_size):
        return tuple(reversed(annotations.class_names))

    def stream(self, images, bank, batch_size, limit):
        for path in images:
            annotations, image = self.truth[path]
            found = [
                (bank.index(annotations.class_names[annotations.class_index[i.category_id]]), i.bbox)
                for i in annotations.instances_of(image.id)
                if annotations.class_names[annotations.class_index[i.category_id]] in bank
            ]
            masks = np.zeros((len(found), image.height, image.width), dtype=bool)
            for mask, (_, (x, y, w, h)) in zip(masks, found, strict=True):
                mask[int(y) : int(y + h), int(x) : int(x + w)] = True
            boxes = torch.tensor([[x, y, x + w, y + h] for _, (x, y, w, h) in found]).reshape(-1, 4)
            yield Detections(
                boxes,
                torch.full((len(found),), 0.9),
                torch.tensor([label for label, _ in found], dtype=torch.int64),
                tuple(encode_rle(masks)),
                bank,
                (image.height, image.width),
            )


def test_a_model_that_knows_the_truth_gets_100_percent_everywhere(benchmark, models, tmp_path, monkeypatch):
    root, config = benchmark
    truth = [
        (root / "raw" / f"raw-{name}", make_set(tmp_path / name, seed))
        for seed, name in enumerate(("tile", "steel"))
    ]
    monkeypatch.setattr(stage, "_load", lambda directory: Oracle(truth))
    result = evaluate_all(config, models, root / "splits", tmp_path / "reports", None)
    for row in result.rows:
        assert [figure_of(row.metrics, figure) for figure in FIGURES] == pytest.approx([100] * 6)
    assert {(row.data_set, row.subset) for row in result.rows} == {
        ("tile", "unseen"),
        ("tile", "seen"),
        ("steel", "unseen"),
    }


def test_all_models_sets_and_prompts_are_evaluated_as_the_detector_sees_them(benchmark, models, tmp_path):
    root, config = benchmark
    out = tmp_path / "reports"
    result = evaluate_all(config, models, root / "splits", out, None)
    assert len(result.rows) == 3 * (2 + 1) * 2
    assert result.variants == ("unispector", "base", "untrained")
    row = next(
        row for row in result.rows if (row.variant, row.data_set, row.prompt_seed) == ("base", "steel", 2)
    )
    pair = SplitTree(root / "splits").cross_domain("steel", 2)
    prompts, targets = Annotations.read(pair.prompt), Annotations.read(pair.target)
    detector = UniSpector.load(models / "base" / "seed42")
    images = root / "raw" / "raw-steel"
    found = detector.detect(
        [images / image.file_name for image in targets.images],
        detector.encode_annotations(prompts, images),
        limit=20,
    )
    expected = evaluate_detections(targets, {i.id: d for i, d in zip(targets.images, found, strict=True)})
    assert row.metrics.as_dict()["bbox"]["AP50"] == pytest.approx(expected.bbox.AP50, abs=1e-6)
    assert (row.metrics.images, row.metrics.instances) == (len(targets.images), len(targets.instances))
    by_variant = {v: [r.metrics for r in result.rows if r.variant == v] for v in result.variants}
    assert by_variant["untrained"] == by_variant["unispector"]  # the same weights here

    assert EvaluationReport.read(out / "evaluation.json") == result
    assert set(json.loads((out / "metrics.json").read_text())) == {"bbox", "segm", *result.variants}
    counts = {
        name: sum(picture.data_set == name for picture in result.pictures) for name in ("tile", "steel")
    }
    assert counts == {"tile": 3, "steel": 3}
    assert {picture.subset for picture in result.pictures if picture.data_set == "tile"} == {"unseen", "seen"}
    assert sorted(path.name for path in (out / "pictures").iterdir()) == sorted(
        Path(picture.file).name for picture in result.pictures
    )
    assert all(min(cv2.imread(str(out / picture.file)).shape[:2]) > 256 for picture in result.pictures)


def only_unispector(config, models):
    """The shortest evaluation: one model, one draw of prompts."""
    shutil.rmtree(models / "untrained")
    split = config.split.model_copy(update={"prompt_seeds": (1,)})
    train = config.train.model_copy(update={"ablation_seeds": ()})
    return config.model_copy(update={"split": split, "train": train})


def test_the_same_evaluation_twice_gives_the_same_files(benchmark, models, tmp_path):
    root, config = benchmark[0], only_unispector(benchmark[1], models)
    for name in ("a", "b"):
        (tmp_path / name / "pictures").mkdir(parents=True)
        (tmp_path / name / "pictures" / "stale.jpg").write_text("old")
        evaluate_all(config, models, root / "splits", tmp_path / name, None)
    first = {p.relative_to(tmp_path / "a"): p.read_bytes() for p in (tmp_path / "a").rglob("*.*")}
    second = {p.relative_to(tmp_path / "b"): p.read_bytes() for p in (tmp_path / "b").rglob("*.*")}
    assert first == second
    assert Path("pictures/stale.jpg") not in first


def test_figures_and_pictures_go_to_the_run_that_trained_the_model(benchmark, models, tmp_path):
    root, config = benchmark[0], only_unispector(benchmark[1], models)
    store = TrackingStore(tmp_path / "mlflow")
    with store.run("train", "seed 42", {}) as run:
        pass
    name_run(models / "unispector" / "seed42", run.run_id)
    result = evaluate_all(config, models, root / "splits", tmp_path / "reports", store)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store.uri)
    metrics = client.get_run(run.run_id).data.metrics
    expected = {
        f"{summary.subset}/{summary.data_set}/{figure}": spread.mean
        for summary in result.summaries("unispector")
        for figure, spread in summary.figures.items()
    }
    assert metrics == pytest.approx(expected)
    assert len(metrics) == 3 * len(FIGURES)
    assert len(client.list_artifacts(run.run_id, "pictures")) == len(result.pictures)
    assert [file.path for file in client.list_artifacts(run.run_id, "evaluation")] == ["evaluation/rows.json"]


def name_run(model, run_id):
    content = json.loads((model / "config.json").read_text())
    content["provenance"] = {"mlflow_run_id": run_id}
    (model / "config.json").write_text(json.dumps(content))


def test_a_run_that_is_not_in_the_store_is_warned_of(benchmark, models, tmp_path, caplog):
    root, config = benchmark[0], only_unispector(benchmark[1], models)
    name_run(models / "unispector" / "seed42", "f" * 32)
    evaluate_all(config, models, root / "splits", tmp_path / "reports", TrackingStore(tmp_path / "mlflow"))
    assert "f" * 32 in caplog.text
    assert (tmp_path / "reports" / "metrics.json").exists()


def test_report_shows_the_evaluation_and_where_things_are(benchmark, models, tmp_path):
    root, config = benchmark[0], only_unispector(benchmark[1], models)
    result = evaluate_all(config, models, root / "splits", tmp_path / "reports", None)
    store = TrackingStore(tmp_path / "mlflow")
    files = report(tmp_path / "reports", store)
    assert len(result.pictures) == 6
    for picture in result.pictures:
        assert picture.file in files.page.read_text()
        assert picture.file in files.markdown.read_text()
    console = Console(width=100, record=True, file=io.StringIO())
    show(tmp_path / "reports", store, console)
    text = console.export_text()
    for expected in (str(files.page), store.ui_command(), "UniSpector", "steel"):
        assert expected in text


def test_missing_models_and_splits_are_named_before_any_work(benchmark, models, tmp_path):
    root, config = benchmark
    with pytest.raises(DataError, match="run the split stage"):
        evaluate_all(config, models, tmp_path / "nothing", tmp_path / "reports", None)
    shutil.rmtree(models / "untrained")
    shutil.rmtree(models / "base" / "seed42")
    with pytest.raises(CheckpointError, match=r"base/seed42.*train"):
        evaluate_all(config, models, root / "splits", tmp_path / "reports", None)
    assert not (tmp_path / "reports").exists()


def test_files_of_ones_own_are_judged_without_a_split(benchmark, tiny_model, tmp_path):
    annotations = make_set(tmp_path / "images", seed=5, per_class=2)
    prompts, targets = annotations.keep_images([2, 3, 4, 5]), annotations.keep_images([1, 6, 7, 8])
    prompts.write(tmp_path / "p.json")
    targets.write(tmp_path / "t.json")
    arguments = (tiny_model, tmp_path / "p.json", tmp_path / "t.json", tmp_path / "images")
    metrics = evaluate_files(*arguments)
    assert (metrics.images, metrics.instances) == (4, len(targets.instances))
    assert metrics == evaluate_files(*arguments, config=EvaluateConfig(batch_size=8))
    prompts.keep_categories([1, 2, 3]).write(tmp_path / "p.json")
    with pytest.raises(DataError, match=r"p\.json.*'black'"):
        evaluate_files(*arguments)
