"""A foreign detector runs the protocol that UniSpector runs, and its mistakes are told in one line."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmark_project import found_exactly
from unispector.benchmark.other_detectors import Entry, make_detector, run_benchmark
from unispector.benchmark.other_detectors import benchmark as benchmark_stage
from unispector.benchmark.plan import evaluations_of
from unispector.cli.benchmark import benchmark as command
from unispector.data.coco import Annotations
from unispector.data.defect_free import defect_free_for_tests
from unispector.detections import Detections
from unispector.errors import ConfigError, DataError
from unispector.evaluation.results import FIGURES, EvaluationReport, figure_of
from unispector.evaluation.system_record import SystemRecord
from unispector.inference.detector import UniSpector
from unispector.ops.rle import encode_rle
from unispector.pipeline.evaluate import evaluate
from unispector.project.paths import dropped_file
from unispector.systems.catalogue import BY_NAME, System

ORACLE = """
from benchmark_project import found_exactly
from unispector.data.coco import Annotations

class Oracle:
    def encode_prompts(self, prompts, images):
        name = images.name.removeprefix("raw-")
        return prompts.class_names[::-1], Annotations.read(f"{name}-truth.json")

    def detect(self, images, prompts):
        names, truth = prompts
        return (found_exactly(truth, path, names) for path in images)

class Weighted(Oracle):
    def __init__(self, weights="own"):
        self.weights = weights

a_number = 3
def make_number():
    return 3
"""


def entered(name, detector):
    return Entry(name, lambda _: detector)


@pytest.fixture
def project(benchmark, new_project):
    return new_project(variants=())


@pytest.fixture
def oracle_module(benchmark, tmp_path, monkeypatch):
    """A module in the current folder."""
    (tmp_path / "my_oracle.py").write_text(ORACLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, annotations in benchmark.annotations.items():
        annotations.write(tmp_path / f"{name}-truth.json")
    yield
    sys.modules.pop("my_oracle", None)


def test_a_foreign_oracle_gets_100_percent_everywhere(benchmark, project, oracle_module, tmp_path):
    out = tmp_path / "out"
    report = benchmark_stage("my_oracle:Oracle", "mine", benchmark.config, project, out)
    assert [figure_of(row.metrics, figure) for row in report.rows for figure in FIGURES] == pytest.approx(
        [100.0] * len(report.rows) * len(FIGURES)
    )
    assert all(row.alarms.false_alarms == 0 for row in report.rows if row.data_set == "tile")
    assert EvaluationReport.read(out / "evaluation.json") == report
    assert report.models[0].provenance == {"detector": "my_oracle:Oracle"}
    samples = SystemRecord.read(out / "system.json").samples
    assert len(samples) == 2 * benchmark.config.evaluate.pictures  # of both sets
    assert all(set(sample.found) == set(sample.truth) for sample in samples)
    means = json.loads((out / "metrics.json").read_text())["mine"]["mean"]
    assert means["unseen"]["bbox"]["AP50"] == pytest.approx(100)


class Adapter:
    """UniSpector itself through the interface."""

    def __init__(self, detector, settings):
        self.detector, self.settings = detector, settings

    def encode_prompts(self, prompts, images):
        return self.detector.encode_annotations(prompts, images, "box", self.settings.batch_size)

    def detect(self, images, prompts):
        size, limit = self.settings.batch_size, self.settings.detections
        return (found for (found,) in self.detector.stream_banks(images, [prompts], size, limit))


@pytest.fixture(scope="module")
def both(benchmark, new_project, sharp_model, tmp_path_factory):
    """The rows of `evaluate`, and of the same model through the interface."""
    train = benchmark.config.train.model_copy(update={"ablation_seeds": ()})
    config = benchmark.config.model_copy(update={"train": train})
    root = new_project(variants=("unispector",))
    own = evaluate(config, root, None)
    detector = Adapter(UniSpector.load(sharp_model), config.evaluate)
    out = tmp_path_factory.mktemp("benchmark_out")
    return own, run_benchmark(entered("unispector", detector), config, root, out)


def test_unispector_through_the_interface_has_the_rows_it_always_has(both):
    own, entered = both
    assert len(own.rows) == 6  # seen, unseen and cross-domain, two draws of prompts each
    assert [rounded(asdict(row)) for row in entered.rows] == [rounded(asdict(row)) for row in own.rows]
    assert rounded(json.loads(entered.metrics_json())) == rounded(json.loads(own.metrics_json()))


def rounded(figures):
    """To four digits: images pass in other batches, so that on some CPUs the last digits of scores differ."""
    return json.loads(json.dumps(figures), parse_float=lambda number: round(float(number), 4))


def test_split_seeds_and_prompt_images_as_the_parameters_say(benchmark, project, short, tmp_path):
    evaluate = short.evaluate.model_copy(update={"include_prompts": True, "resamples": 0})
    config = short.model_copy(update={"evaluate": evaluate})
    report = run_benchmark(entered("blank", Blank(benchmark, project)), config, project, tmp_path)
    assert report.prompts_judged
    assert [(row.data_set, row.subset) for row in report.rows] == [
        ("tile", "unseen"),
        ("tile", "seen"),
        ("steel", "unseen"),
    ]
    assert report.rows[2].metrics.images == len(benchmark.annotations["steel"].images)
    assert {figure_of(row.metrics, figure) for row in report.rows for figure in FIGURES} == {0.0}


class Blank:
    """Finds one box on every image, of the wrong place; `change` breaks its results."""

    def __init__(self, benchmark, root, change=None):
        self.sizes = {
            root / f"data/raw/raw-{name}" / image.file_name: (image.height, image.width)
            for name, annotations in benchmark.annotations.items()
            for image in annotations.images
        }
        self.change = change or (lambda results: results)

    def encode_prompts(self, prompts, images):
        return prompts.class_names

    def detect(self, images, prompts):
        return iter(self.change([self.found(path, prompts) for path in images]))

    def found(self, path, names):
        height, width = self.sizes.get(path, (40, 40))
        mask = torch.zeros(1, height, width, dtype=torch.bool)
        mask[0, -1, -1] = True
        box = torch.tensor([[width - 1.0, height - 1.0, width, height]])
        code = tuple(encode_rle(mask.numpy()))
        return Detections(box, torch.tensor([0.5]), torch.tensor([0]), code, names, (height, width))


def on_first(**changes):
    return lambda results: [replace(results[0], **changes), *results[1:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: results[:-1], r"good/\d\.png: the detector returned nothing"),
        (lambda results: [*results, results[0]], r"good/\d\.png: the detector returned more"),
        (lambda results: [[], *results[1:]], r"\d\.png: the detector returned a list"),
        (on_first(image_hw=(7, 9)), r"\d\.png: the detector's image_hw is \(7, 9\)"),
        (on_first(class_names=("mole",)), r"\d\.png: the detector found class 'mole'"),
        (on_first(labels=torch.tensor([9])), r"\d\.png: a label is no position"),
        (on_first(labels=torch.tensor([0.0])), r"\d\.png: a label is no position"),
        (on_first(scores=torch.tensor([1.5])), r"\d\.png: a score is not in"),
        (on_first(scores=torch.tensor([float("nan")])), r"\d\.png: a score is not in"),
        (on_first(scores=torch.tensor([0.5, 0.4])), r"\d\.png: .* differ in number"),
        (on_first(masks_rle=({"size": [2, 2], "counts": [4]},)), r"\d\.png: a detection's mask: mask is 2x2"),
    ],
)
def test_what_cannot_be_judged_names_the_picture(benchmark, project, short, tmp_path, change, message):
    with pytest.raises(DataError, match=message) as caught:
        run_benchmark(entered("blank", Blank(benchmark, project, change)), short, project, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_run_lengths_may_be_plain_numbers(benchmark, project, short, tmp_path):
    def plain(results):
        # All but the last pixel is background.
        return [
            replace(found, masks_rle=({"size": list(found.image_hw), "counts": [height * width - 1, 1]},))
            for found in results
            for height, width in [found.image_hw]
        ]

    compressed = run_benchmark(entered("blank", Blank(benchmark, project)), short, project, tmp_path)
    assert (
        run_benchmark(entered("blank", Blank(benchmark, project, plain)), short, project, tmp_path)
        == compressed
    )


def test_broken_code_of_the_right_size_is_refused(benchmark, project, short, tmp_path):
    def shorten(results):
        height, width = results[0].image_hw
        return on_first(masks_rle=({"size": [height, width], "counts": [5]},))(results)

    with pytest.raises(DataError, match="does not fill its size"):
        run_benchmark(entered("blank", Blank(benchmark, project, shorten)), short, project, tmp_path)


class Learner(Blank):
    """Notes what it learns from, and what it is judged on after that."""

    def __init__(self, benchmark, root, lessons):
        super().__init__(benchmark, root)
        self.lessons = lessons

    def fit(self, annotations, images, out):
        self.lessons.append((images.name, len(annotations.instances), out.name, set()))
        self.learnt = {images / image.file_name for image in annotations.images}

    def detect(self, images, prompts):
        self.lessons[-1][3].update(self.learnt & set(images))
        return super().detect(images, prompts)


def test_what_good_images_teach_is_learnt_once_and_of_seen_classes_once_a_split(
    benchmark, project, short, tmp_path
):
    config = short.model_copy(update={"train": short.train.model_copy(update={"seeds": (42, 82)})})
    for system, expected in (
        ("patchcore", [("raw-tile", False, "tile")]),
        ("yolo11-seg", [("raw", True, "42"), ("raw", True, "82")]),
    ):
        lessons = []

        def make(_, lessons=lessons):
            return Learner(benchmark, project, lessons)

        report = run_benchmark(Entry("own", make, system), config, project, tmp_path / system, ("tile",))
        assert {row.split_seed for row in report.rows} == {42, 82}
        assert [(where, instances > 0, kept) for where, instances, kept, _ in lessons] == expected
        assert not any(judged for *_, judged in lessons)  # what was learnt is never judged


def test_defect_free_images_are_looked_at_after_the_targets(benchmark, project, short, tmp_path):
    seen = []
    detector = Blank(benchmark, project)
    real = detector.detect
    detector.detect = lambda images, prompts: seen.append(images) or real(images, prompts)
    report = run_benchmark(entered("blank", detector), short, project, tmp_path)
    good = defect_free_for_tests(project / dropped_file("tile"), short.evaluate.good_images)
    assert [path.relative_to(project / "data/raw/raw-tile").as_posix() for path in seen[0][-2:]] == list(good)
    assert report.rows[0].alarms.good_images == len(good)
    assert report.rows[0].alarms.false_alarms == 1.0
    assert report.rows[2].alarms is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "give package.module:callable"),
        ("os.path:", "give package.module:callable"),
        ("my oracle:x", "give package.module:callable"),
        ("no_such_module_here:x", "no_such_module_here cannot be imported"),
        ("my_oracle:Nobody", "no callable 'Nobody'"),
        ("my_oracle:a_number", "no callable 'a_number'"),
        ("my_oracle:make_number", "returned int, which lacks"),
    ],
)
def test_a_path_that_leads_nowhere_says_how_to_mend_it(oracle_module, path, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_detector(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda boxes: boxes[:, [2, 3, 0, 1]],
        lambda boxes: boxes + 500,
        lambda boxes: boxes - 500,
        lambda boxes: boxes * float("nan"),
    ],
    ids=["reversed", "beyond", "before", "nan"],
)
def test_boxes_that_are_none_in_the_image_are_refused(benchmark, project, short, tmp_path, wrong):
    class Wrong(Blank):
        def detect(self, images, prompts):
            for path in images:
                found = found_exactly(benchmark.annotations["tile"], path, prompts)
                yield replace(found, boxes_xyxy=wrong(found.boxes_xyxy))

    with pytest.raises(DataError, match=r"\.png: a (box|score or a box) is no"):
        run_benchmark(entered("wrong", Wrong(benchmark, project)), short, project, tmp_path, ("tile",))


def test_a_prompt_of_another_size_than_its_record_says_is_refused(project, short, tmp_path):
    class Turned(Blank):
        def __init__(self):
            pass

    plan = evaluations_of(short, project, [("x", 42, Path("x"))])
    prompt = plan[0].tests[0].prompt
    one = Annotations.read(prompt).images[0]
    root = tmp_path / "copy"
    shutil.copytree(project, root)
    other = np.zeros((one.height, one.width + 1, 3), dtype=np.uint8)
    Image.fromarray(other).save(root / "data/raw/raw-tile" / one.file_name)
    with pytest.raises(DataError, match=f"{one.file_name}: the image has .* its record says"):
        run_benchmark(entered("blank", Turned()), short, root, tmp_path / "out", ("tile",))


def test_where_nothing_can_be_written_or_judged_is_told_before(project, short, tmp_path):
    (tmp_path / "out/system.json").mkdir(parents=True)
    with pytest.raises(DataError, match=r"system\.json: a folder lies where a file"):
        run_benchmark(entered("blank", None), short, project, tmp_path / "out")
    nothing = short.model_copy(update={"data": short.data.model_copy(update={"sets": {}})})
    with pytest.raises(DataError, match="nothing to judge"):
        run_benchmark(entered("blank", None), nothing, project, tmp_path / "other")


def test_the_example_of_the_documentation_runs(project, short, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/benchmark.md").read_text()
    (tmp_path / "my_detector.py").write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    report = benchmark_stage("my_detector:DarkSpots", "DarkSpots", short, project, tmp_path / "out")
    sys.modules.pop("my_detector")
    assert [row.variant for row in report.rows] == ["DarkSpots"] * 3


def test_the_built_in_detector_has_an_import_path_that_works():
    assert type(make_detector("prototypes")).__name__ == "PrototypeDetector"


def test_a_system_may_need_weights_take_some_or_take_none(oracle_module, monkeypatch):
    def system(weights, needed):
        made = System(
            name="weighted",
            title="",
            make="my_oracle:Weighted",
            rois=(),
            learns="nothing",
            weights=weights,
            code="",
            weights_licence="",
            weights_needed=needed,
        )
        monkeypatch.setitem(BY_NAME, "weighted", made)

    system("a FILE", True)
    assert make_detector("weighted", "mine.pth").weights == "mine.pth"
    with pytest.raises(ConfigError, match="weighted needs --weights: a FILE"):
        make_detector("weighted")
    system("a FILE", False)
    assert make_detector("weighted", "mine.pth").weights == "mine.pth"
    assert make_detector("weighted").weights == "own"
    system("", True)
    assert make_detector("weighted").weights == "own"
    with pytest.raises(ConfigError, match="weighted takes no --weights"):
        make_detector("weighted", "mine.pth")


@pytest.mark.parametrize("roi", ["box", "mask"])
def test_insid3_runs_the_protocol(project, short, tmp_path, roi):
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "vit.safetensors")
    weights = f"test_vit={tmp_path / 'vit.safetensors'}"
    report = benchmark_stage("insid3", "mine", short, project, tmp_path / "out", weights=weights, roi=roi)
    assert [(row.data_set, row.subset) for row in report.rows] == [
        ("tile", "unseen"),
        ("tile", "seen"),
        ("steel", "unseen"),
    ]
    assert report.models[0].provenance == {"detector": "insid3", "weights": weights}


def test_the_command_names_the_detector_by_its_last_part(
    benchmark, short, oracle_module, monkeypatch, capsys, tmp_path
):
    (tmp_path / "data").symlink_to(benchmark.root / "data")
    monkeypatch.setattr("unispector.cli.benchmark.params", lambda: short)
    command("my_oracle:Oracle", tmp_path / "out")
    shown = capsys.readouterr().out
    assert "Oracle" in shown
    assert "100.0" in shown
    assert "3 evaluations" in shown
    report = EvaluationReport.read(tmp_path / "out/evaluation.json")
    assert report.variants == ("Oracle",)
