"""One class at a time: draws, figures against detections made apart, and both verbs on the command line."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmark_project import found_exactly
from made_up_evaluation import evaluate_detections
from unispector.benchmark.diagnose import EVERY_CANDIDATE, diagnose
from unispector.benchmark.measure import measure, measure_detectors
from unispector.benchmark.one_class import (
    MarkedSet,
    OneClassSettings,
    draw_classes,
    draw_good,
    read_coco_set,
    read_raw_set,
)
from unispector.benchmark.real_sets import measure_real_sets, shipped_models
from unispector.cli import main
from unispector.data.coco import Annotations
from unispector.errors import DataError
from unispector.inference.detector import Prompt
from unispector.ops.files import list_images
from unispector.systems.prototypes import PrototypeDetector


@pytest.fixture(scope="module", autouse=True)
def small_floor():
    """The floor looks at 128 pixels: what it finds is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrototypeDetector.__init__, "__defaults__", ("box", 128))
        yield


@pytest.fixture(scope="module")
def marked(benchmark):
    """Two classes of twelve images each; image 1 shows both."""
    images = benchmark.root / "data/raw/raw-tile"
    whole = benchmark.annotations["tile"]
    instances = tuple(
        replace(instance, category_id=(instance.category_id + 1) % 2 + 1) for instance in whole.instances
    )
    annotations = Annotations(whole.images, instances, whole.categories[:2])
    return MarkedSet("tile", annotations, images, tuple(list_images([images / "good"])))


def showing(annotations, class_name):
    """Ids of the images that show a class, from the records alone."""
    (category,) = (category.id for category in annotations.categories if category.name == class_name)
    return {instance.image_id for instance in annotations.instances if instance.category_id == category}


def test_prompts_and_targets_show_the_class_and_no_image_is_both(marked):
    draws, skipped = draw_classes(marked, OneClassSettings((1, 2), targets=100))
    assert skipped == ()
    names = sorted(marked.annotations.class_names)
    assert [(draw.class_name, draw.prompt_seed) for draw in draws] == [(n, s) for n in names for s in (1, 2)]
    for draw in draws:
        everywhere = showing(marked.annotations, draw.class_name)
        prompts = {image.id for image in draw.prompts.images}
        targets = {image.id for image in draw.targets.images}
        assert len(prompts) == 5
        assert prompts | targets == everywhere
        assert not prompts & targets
        assert draw.possible_targets == len(targets)
        of_class = [
            instance.id
            for instance in marked.annotations.instances
            if marked.annotations.class_names[marked.annotations.class_index[instance.category_id]]
            == draw.class_name
        ]
        drawn = [instance.id for instance in (*draw.prompts.instances, *draw.targets.instances)]
        assert sorted(drawn) == sorted(of_class)
    assert draws[0].prompts != draws[1].prompts  # another seed


def test_fewer_targets_are_some_of_more_and_the_prompts_stay(marked):
    many, few = (draw_classes(marked, OneClassSettings((1,), targets))[0] for targets in (100, 2))
    for whole, part in zip(many, few, strict=True):
        assert (len(part.targets.images), len(whole.targets.images)) in ((2, 7), (2, 8))
        assert set(part.targets.images) <= set(whole.targets.images)
        assert part.prompts == whole.prompts
        assert part.possible_targets == len(whole.targets.images)
    assert draw_classes(marked, OneClassSettings((1,), 2))[0] == few


def test_a_class_on_one_image_is_left_out_and_named(marked):
    first = min(showing(marked.annotations, "dark"))
    instances = tuple(
        instance
        for instance in marked.annotations.instances
        if instance.category_id != 2 or instance.image_id == first
    )
    poor = replace(marked, annotations=replace(marked.annotations, instances=instances))
    draws, skipped = draw_classes(poor, OneClassSettings((1,), 2))
    assert [(one.class_name, one.reason) for one in skipped] == [
        ("dark", "1 image(s), but a prompt and a target are two")
    ]
    assert {draw.class_name for draw in draws} == {"bright"}
    none = replace(poor, annotations=poor.annotations.keep_images({first}))
    with pytest.raises(DataError, match="no class has two images"):
        draw_classes(none, OneClassSettings())


def test_a_set_of_boxes_cannot_be_prompted_with_masks(marked):
    def outlined(segmentation):
        instances = tuple(
            replace(instance, segmentation=segmentation(instance.bbox))
            for instance in marked.annotations.instances
        )
        return replace(marked, annotations=replace(marked.annotations, instances=instances))

    def rectangle(box):
        x, y, w, h = box
        return [[x, y + h, x, y, x + w, y, x + w, y + h]]

    def triangle(box):
        x, y, w, h = box
        return [[x, y, x + w, y, x, y + h]]

    assert marked.has_masks
    assert outlined(triangle).has_masks
    for boxes in (outlined(lambda _: None), outlined(rectangle)):
        assert not boxes.has_masks
        with pytest.raises(DataError, match="its instances are boxes; prompt with boxes"):
            draw_classes(boxes, OneClassSettings(roi="mask"))


@pytest.fixture(scope="module")
def report(marked, detector, tmp_path_factory):
    """Four of seven or eight possible targets are judged."""
    out = tmp_path_factory.mktemp("measured")
    return measure(detector, marked, OneClassSettings((1, 2), targets=4), out=out), out


def test_figures_are_those_of_detections_made_apart(marked, detector, report):
    draws, _ = draw_classes(marked, OneClassSettings((1, 2), targets=4))
    good = draw_good(marked, 4)
    assert len(good) == 4
    for draw, row in zip(draws, report[0].detectors[0].rows, strict=True):

        def detect(files, draw=draw):
            prompts = [
                Prompt(
                    marked.images / image.file_name,
                    [instance.bbox for instance in draw.prompts.instances_of(image.id)],
                    label=draw.class_name,
                )
                for image in draw.prompts.images
            ]
            return detector.detect(files, detector.encode(prompts))

        def files(annotations):
            return [marked.images / image.file_name for image in annotations.images]

        found = dict(
            zip((image.id for image in draw.targets.images), detect(files(draw.targets)), strict=True)
        )
        metrics = evaluate_detections(draw.targets, found)
        assert row.box_ap50 == pytest.approx(metrics.bbox.AP50)
        assert row.mask_ap50 == pytest.approx(metrics.segm.AP50)
        assert (row.targets, row.instances) == (metrics.images, metrics.instances)
        assert (row.prompt_images, row.prompts) == (len(draw.prompts.images), len(draw.prompts.instances))
        assert len(row.seconds) == row.targets
        assert all(0 < second < 60 for second in row.seconds)
        assert sum(bin_.findings for bin_ in row.bins) == sum(min(len(one), 100) for one in found.values())
        best = []
        for image, detections in zip(draw.prompts.images, detect(files(draw.prompts)), strict=True):
            best += [
                max(map(iou_with(instance.bbox), detections.boxes_xyxy.tolist()), default=0)
                for instance in draw.prompts.instances_of(image.id)
            ]
        assert row.box_fit_50 == pytest.approx(100 * np.mean(np.array(best) >= 0.5))
        assert row.box_fit_80 == pytest.approx(100 * np.mean(np.array(best) >= 0.8))
        if row.half_score is not None:
            alarms = sum(int((one.scores >= row.half_score - 1e-6).sum()) for one in detect(list(good)))
            assert row.false_alarms == alarms / 4
    figures = report[0].detectors[0]
    assert 0 < figures.mean("box_ap50").mean < 100
    assert figures.having("half_score") > 0


def iou_with(bbox):
    left, top, width, height = bbox

    def iou(corners):
        x = min(left + width, corners[2]) - max(left, corners[0])
        y = min(top + height, corners[3]) - max(top, corners[1])
        both = max(x, 0) * max(y, 0)
        return both / (width * height + (corners[2] - corners[0]) * (corners[3] - corners[1]) - both)

    return iou


def test_the_floor_has_the_same_targets_and_pictures_show_failures(report):
    measured, out = report
    model, floor = measured.detectors
    assert (model.name, floor.name) == ("model", "floor")
    assert len(model.fingerprint) == 64
    assert [(r.class_name, r.prompt_seed, r.targets, r.instances) for r in model.rows] == [
        (r.class_name, r.prompt_seed, r.targets, r.instances) for r in floor.rows
    ]
    assert measured.good_images == 4
    assert measured.pictures
    for picture in measured.pictures:
        pixels = np.asarray(Image.open(out / picture.file))
        assert pixels.shape[2] == 3
        assert pixels.std() > 10


class Oracle:
    """Finds every instance of the prompted class where the image is one of the set's, with score 1."""

    def __init__(self, annotations):
        self.annotations = annotations

    def encode_prompts(self, prompts, images):
        return prompts.class_names[0]

    def detect(self, images, prompts):
        return (found_exactly(self.annotations, path, (prompts,)) for path in images)


def test_an_oracle_reaches_everything(marked):
    settings = OneClassSettings((1,), targets=3)
    (figures,) = measure_detectors({"oracle": Oracle(marked.annotations)}, marked, settings).detectors
    for figure in ("box_ap50", "mask_ap50", "box_fit_50", "box_fit_80"):
        assert figures.mean(figure).mean == pytest.approx(100), figure
    assert figures.mean("false_alarms").mean == 0
    assert figures.mean("half_score").mean == 1
    assert figures.bins[9].findings == figures.bins[9].true == sum(row.instances for row in figures.rows)
    assert figures.fingerprint == ""


def test_a_diagnosis_begins_at_the_measured_figures(marked, detector, report):
    diagnosis = diagnose(detector, marked, OneClassSettings((1, 2), targets=4))
    for row, measured in zip(diagnosis.rows, report[0].detectors[0].rows, strict=True):
        assert (row.class_name, row.prompt_seed) == (measured.class_name, measured.prompt_seed)
        assert (row.targets, row.instances) == (measured.targets, measured.instances)
        assert row.boxes.as_is == pytest.approx(measured.box_ap50)
        assert row.masks.as_is == pytest.approx(measured.mask_ap50)
        assert row.boxes.ordered >= row.boxes.as_is
        assert row.masks.ordered >= row.masks.as_is
    assert diagnosis.fingerprint == detector.fingerprint


def test_a_higher_limit_only_adds_candidates(marked, detector):
    draw = draw_classes(marked, OneClassSettings((1,), 2))[0][0]
    bank = detector.encode_annotations(draw.prompts, marked.images)
    files = [marked.images / image.file_name for image in draw.targets.images]
    for few, all_ in zip(
        detector.detect(files, bank, limit=5),
        detector.detect(files, bank, limit=EVERY_CANDIDATE),
        strict=True,
    ):
        assert len(few) <= 5
        assert len(all_) >= len(few)
        assert all_.scores[: len(few)].tolist() == few.scores.tolist()


def native_tiles(folder, defects=("Break", "Fray"), count=7, good=3):
    """Magnetic Tile's layout: dark squares on grey noise, a black mask beside each defect-free tile."""
    rng = np.random.default_rng(0)
    for defect, images in [*((defect, count) for defect in defects), ("Free", good)]:
        inside = folder / f"MT_{defect}" / "Imgs"
        inside.mkdir(parents=True)
        for number in range(images):
            pixels = rng.integers(120, 140, (90, 80), dtype=np.uint8)
            mask = np.zeros((90, 80), dtype=np.uint8)
            if defect != "Free":
                cv2.circle(mask, (20 + 5 * number, 40), 12, 255, -1)
                pixels[mask > 0] //= 4
            Image.fromarray(pixels).save(inside / f"{number}.jpg")
            Image.fromarray(mask).save(inside / f"{number}.png")
    return folder


def test_a_raw_release_is_read_with_its_defect_free_images(tmp_path):
    raw = native_tiles(tmp_path / "magnetic_tile")
    marked = read_raw_set(raw, "magnetic_tile")
    assert marked.annotations.class_names == ("magnetic_tile_break", "magnetic_tile_fray")
    assert len(marked.annotations.images) == 14
    assert marked.has_masks
    assert [path.relative_to(raw).as_posix() for path in marked.good] == [
        f"MT_Free/Imgs/{number}.jpg" for number in range(3)
    ]
    (tmp_path / "other").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "other" / "a.png")  # no photograph of that name: an image
    other = read_raw_set(raw, "magnetic_tile", good=tmp_path / "other")
    assert other.good == (tmp_path / "other" / "a.png",)
    with pytest.raises(DataError, match="nothing: no such source; known are gc10"):
        read_raw_set(raw, "nothing")


def test_masks_beside_defect_free_photographs_are_no_pictures(tmp_path, marked):
    marked.annotations.write(tmp_path / "set.json")
    free = native_tiles(tmp_path / "tiles") / "MT_Free" / "Imgs"
    read = read_coco_set(tmp_path / "set.json", marked.images, free)
    assert [path.name for path in read.good] == ["0.jpg", "1.jpg", "2.jpg"]
    assert read.annotations == marked.annotations
    assert read.name == "set"
    with pytest.raises(DataError, match="no such folder; give the one"):
        read_coco_set(tmp_path / "set.json", tmp_path / "nowhere")


@pytest.fixture
def tiles(tmp_path, sharp_model):
    return native_tiles(tmp_path / "magnetic_tile"), str(sharp_model)


def test_measure_on_the_command_line(tiles, tmp_path, capsys):
    raw, model = tiles
    out = tmp_path / "out"
    options = ["--model", model, "--prompt-seeds", "3", "--targets", "1", "--out", str(out)]
    assert (
        main(["measure", str(raw), "--source", "magnetic_tile", "--roi", "mask", "--no-floor", *options]) == 0
    )
    assert capsys.readouterr().out.startswith("model: AP50 boxes ")
    page = (out / "measure.md").read_text()
    assert "marked by masks; prompt seeds 3." in page
    assert "capped at 1 a class, at random: 2 of 2 classes have more" in page
    assert "floor" not in page
    content = json.loads((out / "measure.json").read_text())
    assert (content["roi"], content["good_images"]) == ("mask", 1)
    assert [row["targets"] for row in content["detectors"][0]["rows"]] == [1, 1]


def test_diagnose_on_the_command_line(marked, tmp_path, sharp_model, capsys):
    marked.annotations.write(tmp_path / "set.json")
    out = tmp_path / "out"
    options = ["--model", str(sharp_model), "--prompt-seeds", "3", "--targets", "1", "--out", str(out)]
    arguments = [str(tmp_path / "set.json"), "--images", str(marked.images), *options]
    assert main(["diagnose", *arguments, "--good", str(marked.images / "good")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("Largest loss: ")
    content = json.loads((out / "diagnose.json").read_text())
    assert told.startswith(content["largest_loss"])
    assert content["good_images"] == 1
    assert content["largest_loss"].rstrip(".") in (out / "diagnose.md").read_text()


@pytest.mark.parametrize("verb", ["measure", "diagnose"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --images with a COCO file, or --source with the folder of a raw release"),
        (["--images", ".", "--source", "voc"], "give --images with a COCO file, or --source"),
        (["--images", ".", "--prompt-seeds", "1,two"], "--prompt-seeds 1,two: give whole numbers"),
        (["--images", ".", "--prompt-seeds", "-1"], "--prompt-seeds -1: a seed is 0 or more"),
        (["--images", "nowhere"], "nowhere: no such folder"),
        (["--images", "."], "set.json: "),
    ],
)
def test_mistakes_are_one_line(verb, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([verb, "set.json", "--out", "out", *options]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_real_sets_with_boxes_and_masks_as_prompts(tiles, tmp_path, sharp_model, other_model):
    page = tmp_path / "reports" / "real.md"
    models = {"fast": sharp_model, "accurate": other_model}
    measured = measure_real_sets(tmp_path, page, models, OneClassSettings((3,), 1))
    assert [(report.data_set, report.roi) for report in measured] == [
        ("magnetic_tile", "box"),
        ("magnetic_tile", "mask"),
    ]
    for report in measured:
        assert [figures.name for figures in report.detectors] == ["fast", "accurate", "floor"]
    heads = [
        f"{name}, {roi} as prompts" for roi in ("boxes", "masks") for name in ("fast", "accurate", "floor")
    ]
    assert " | ".join(heads) in page.read_text()
    assert len(json.loads(page.with_suffix(".json").read_text())) == 2
    with pytest.raises(DataError, match="none of the real sets"):
        measure_real_sets(tmp_path / "reports", page, models)


def test_the_models_of_the_package_are_found_by_their_folders(tmp_path):
    for name in ("fast", "accurate"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    (tmp_path / "empty").mkdir()
    assert shipped_models(tmp_path) == {name: tmp_path / name for name in ("fast", "accurate")}
    assert all((folder / "config.json").is_file() for folder in shipped_models().values())
    assert "fast" in shipped_models()


@pytest.mark.slow
def test_the_real_neu_det_is_read_as_boxes(shared_data):
    marked = read_raw_set(shared_data / "neu_det", "voc")
    assert len(marked.annotations.class_names) == 6
    assert not marked.has_masks
    assert isinstance(marked.annotations, Annotations)
