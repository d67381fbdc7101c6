"""PatchCore and EfficientAD: what is unlike good images is found, cut into instances, and given no name."""

import os
import resource
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tiny_systems import save_teacher
from unispector.benchmark.other_detectors import Entry, make_detector, run_benchmark
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord
from unispector.errors import CheckpointError, ConfigError, DataError
from unispector.ops.rle import decode_rle
from unispector.systems import anomaly, efficient_ad
from unispector.systems.anomaly import PatchCore, core_set, cut, in_every_class
from unispector.systems.efficient_ad import EfficientAd
from unispector.systems.findings import Finding
from unispector.systems.parts import MOST

needs_anomalib = pytest.mark.skipif(not find_spec("anomalib"), reason="the extra anomaly is not installed")

PACKAGED = "tf_efficientnet_lite0=packaged"
GOOD = 6


def texture(seed, patches=()):
    """[120, 160, 3] smooth grey noise with chequered patches (x, y, w, h)."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(120, 20, (120, 160, 1)).repeat(3, 2)
    rows, columns = np.mgrid[:120, :160]
    for x, y, w, h in patches:
        area = np.s_[y : y + h, x : x + w]
        pixels[area] = ((rows // 5 + columns // 5) % 2)[area][..., None] * 220 + 10
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Good images, and the folder they lie in."""
    root = tmp_path_factory.mktemp("good")
    for number in range(GOOD):
        Image.fromarray(texture(number)).save(root / f"{number}.png")
    records = (ImageRecord(number + 1, f"{number}.png", 160, 120) for number in range(GOOD))
    return Annotations(tuple(records), (), ()), root


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(PatchCore, "side", 256)


def named(*names):
    return Annotations((), (), tuple(CategoryRecord(i, name, "") for i, name in enumerate(names, start=1)))


def test_each_finding_is_given_to_every_class_best_first():
    found = [
        Finding(0.6, 0, (1, 2, 3, 4), {"size": [9, 9], "counts": "a"}),
        Finding(0.8, 0, (5, 6, 7, 8), {"size": [9, 9], "counts": "b"}),
    ]
    given = in_every_class(found, ("x", "y"), (9, 9))
    assert given.scores.tolist() == pytest.approx([0.8, 0.8, 0.6, 0.6])
    assert given.labels.tolist() == [0, 1, 0, 1]
    assert [code["counts"] for code in given.masks_rle] == ["b", "b", "a", "a"]
    assert given.boxes_xyxy[::2].tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    assert len(in_every_class(found, ("x",), (9, 9))) == 2  # one class costs nothing
    nothing = in_every_class([], ("x", "y"), (9, 9))
    assert nothing.boxes_xyxy.shape == (0, 4)


def test_a_map_is_cut_into_parts_of_the_images_own_pixels():
    strange = torch.zeros(40, 40)
    strange[4:10, 4:10] = 3.0
    strange[20:36, 24:30] = 2.0
    strange[25, 25] = 6.0
    found = cut(strange, 1.0, (80, 120))
    full = functional.interpolate(strange[None, None], (80, 120), mode="bilinear", align_corners=False)[0, 0]
    assert len(found) == 2
    for one, low in zip(found, (20, 0), strict=True):
        (x0, y0, x1, y1), mask = one.box, decode_rle(one.code)
        assert mask.shape == (80, 120)
        assert (mask[y0:y1, x0:x1].any(), mask.sum()) == (True, mask[y0:y1, x0:x1].sum())
        peak = float(full[torch.from_numpy(mask)].max())
        assert one.score == pytest.approx(peak / (peak + 1))
        assert y0 >= low
    assert sum(decode_rle(one.code) for one in found).astype(bool).sum() == (full > 1).sum()
    assert cut(strange, 7.0, (80, 120)) == []
    many = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    assert len(cut(many, 0.7, (512, 512))) == MOST


@needs_anomalib
@pytest.mark.usefixtures("small")
def test_patchcore_is_struck_by_every_patch_that_good_images_lack(good, tmp_path):
    annotations, root = good
    detector = PatchCore(PACKAGED)
    detector.fit(annotations, root, tmp_path / "kept")
    patches = [(10, 15, 40, 40), (100, 60, 45, 45)]
    Image.fromarray(texture(99, patches)).save(tmp_path / "bad.png")
    prompts = detector.encode_prompts(named("checks"), tmp_path)
    bad, fine = detector.detect([tmp_path / "bad.png", root / "4.png"], prompts)
    assert bad.class_names == ("checks",)
    assert bad.image_hw == (120, 160)
    assert ((bad.scores > 0.5) & (bad.scores < 1)).all()
    assert bad.scores[0] > 0.7 > 0.6 > fine.scores.max()
    strange = detector._strange(tmp_path / "bad.png")
    full = functional.interpolate(strange[None, None], (120, 160), mode="bilinear", align_corners=False)[0, 0]
    elsewhere = torch.ones(120, 160, dtype=torch.bool)
    for x, y, w, h in patches:
        elsewhere[max(0, y - 12) : y + h + 12, max(0, x - 12) : x + w + 12] = False
    for x, y, w, h in patches:
        assert full[y : y + h, x : x + w].max() > 1.3 * full[elsewhere].max()
    assert (tmp_path / "kept/weights.safetensors").is_file()


@needs_anomalib
@pytest.mark.usefixtures("small")
def test_patchcores_map_is_the_distance_to_the_nearest_cell_of_good_images(good, tmp_path, monkeypatch):
    monkeypatch.setattr(anomaly, "LEAST_CORE", 10**6)  # keep all
    annotations, root = good
    detector = PatchCore("resnet18=none")
    detector.fit(annotations, root, tmp_path)
    network = detector._network

    def cells(path):
        levels = network.feature_extractor(detector._input(anomaly.read_image(path)))
        fine, coarse = (functional.avg_pool2d(levels[name], 3, 1, 1) for name in ("layer2", "layer3"))
        coarse = functional.interpolate(coarse, fine.shape[-2:], mode="bilinear")
        return torch.cat((fine, coarse), 1)[0].flatten(1).T

    with torch.no_grad():
        known = torch.cat([cells(root / f"{number}.png") for number in range(GOOD) if number != 4])
        nearest = torch.cdist(cells(root / "4.png"), known).amin(1).view(1, 1, 32, 32)
        wanted = network.anomaly_map_generator(nearest, (256, 256))[0, 0]
    assert len(network.memory_bank) == len(known)  # the fifth image is held out
    assert torch.allclose(detector._strange(root / "4.png"), wanted, atol=1e-3, rtol=1e-3)
    share = float(np.quantile(wanted.numpy(), anomaly.THRESHOLD_SHARE))
    assert detector._threshold == pytest.approx(share, rel=1e-3)


def test_a_core_set_takes_the_farthest_in_turn():
    cells = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    chosen = core_set(cells, 12)
    torch.manual_seed(3)
    wanted = [int(torch.randint(60, ()))]
    while len(wanted) < 12:
        nearest = [min(float((cell - cells[own]).norm()) for own in wanted) for cell in cells]
        wanted.append(int(np.argmax(nearest)))
    assert torch.equal(chosen, cells[wanted])
    assert len({tuple(row) for row in core_set(cells, 60).tolist()}) == 60
    assert len(core_set(torch.zeros(4, 3), 4)) == 4


def test_a_core_set_is_chosen_in_little_memory():
    cells = torch.randn(5000, 300, generator=torch.Generator().manual_seed(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    core_set(cells, 400)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@needs_anomalib
@pytest.mark.usefixtures("small")
def test_two_fits_are_equal_and_what_is_kept_is_bounded(good, tmp_path, monkeypatch):
    monkeypatch.setattr(anomaly, "MOST_CELLS", 2000)
    monkeypatch.setattr(anomaly, "LEAST_CORE", 300)
    annotations, root = good
    banks = []
    for number in range(2):
        np.random.default_rng(number)  # noise from elsewhere must not reach it
        torch.manual_seed(number)
        detector = PatchCore(PACKAGED)
        detector.fit(annotations, root, tmp_path / str(number))
        banks.append(detector._network.memory_bank)
        assert not detector._network.embedding_store
    assert torch.equal(*banks)
    assert len(banks[0]) == 300
    kept = [(tmp_path / f"{number}/weights.safetensors").read_bytes() for number in range(2)]
    assert kept[0] == kept[1]


@needs_anomalib
@pytest.mark.usefixtures("small")
def test_one_good_image_is_enough_and_none_is_not(good, tmp_path):
    annotations, root = good
    detector = PatchCore(PACKAGED)
    with pytest.raises(DataError, match="learns from good images first"):
        next(detector.detect([root / "0.png"], ("a",)))
    with pytest.raises(DataError, match="no good image to learn from"):
        detector.fit(annotations.keep_images([]), root, tmp_path)
    detector.fit(annotations.keep_images([1]), root, tmp_path)
    assert len(list(detector.detect([root / "0.png"], ("a",)))) == 1


@pytest.fixture
def teacher(tmp_path):
    """A teacher's file with random weights, and pictures for the penalty."""
    return save_teacher(tmp_path)


@needs_anomalib
@pytest.mark.slow
def test_efficientad_trains_its_student_alone_and_finds_the_same_twice(good, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(efficient_ad, "STEPS", 3)
    annotations, root = good
    Image.fromarray(texture(99, [(100, 60, 45, 45)])).save(tmp_path / "bad.png")
    runs = []
    for number in range(2):
        detector = EfficientAd(str(teacher))
        before = {name: value.clone() for name, value in detector._network.named_parameters()}
        detector.fit(annotations, root, tmp_path / str(number))
        runs.append(next(detector.detect([tmp_path / "bad.png"], ("a", "b"))))
    after = dict(detector._network.named_parameters())
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"student", "ae", "mean_std", "quantiles"}
    assert torch.equal(runs[0].scores, runs[1].scores)
    assert runs[0].masks_rle == runs[1].masks_rle
    assert runs[0].image_hw == (120, 160)
    assert ((runs[0].scores >= 0) & (runs[0].scores <= 1)).all()


@needs_anomalib
def test_the_teachers_moments_are_those_of_all_good_pixels(good, teacher):
    _, root = good
    detector = EfficientAd(str(teacher))
    paths = [root / f"{number}.png" for number in range(3)]
    with torch.no_grad():
        inputs = torch.cat([detector._input(anomaly.read_image(path)) for path in paths])
        outputs = detector._network.teacher(inputs)
    moments = detector._teacher_moments(paths)
    assert torch.allclose(moments["mean"], outputs.mean((0, 2, 3), keepdim=True), atol=1e-4)
    deviation = outputs.transpose(0, 1).flatten(1).std(1, correction=0).view(1, -1, 1, 1)
    assert torch.allclose(moments["std"], deviation, atol=1e-4)


@needs_anomalib
def test_weights_that_do_not_suit_are_one_line(teacher, tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: not a teacher"):
        EfficientAd(str(tmp_path / "other.pth"))
    with pytest.raises(CheckpointError, match="no such file"):
        EfficientAd(str(tmp_path / "none.pth"))
    for file in (tmp_path / "penalty").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="penalty: no image"):
        EfficientAd(str(teacher))
    with pytest.raises(ConfigError, match="give NAME=FILE"):
        PatchCore("wide_resnet50_2")
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        PatchCore(f"resnet18={tmp_path / 'none.safetensors'}")


@needs_anomalib
@pytest.mark.usefixtures("small")
def test_the_benchmark_runs_it_on_a_set_with_good_images(new_project, short, tmp_path):
    entry = Entry("patchcore", lambda _: PatchCore(PACKAGED), "patchcore", weights=PACKAGED)
    report = run_benchmark(entry, short, new_project(variants=()), tmp_path / "out", ("tile",))
    assert [row.subset for row in report.rows] == ["unseen", "seen"]
    assert all(row.alarms for row in report.rows)
    assert len(list((tmp_path / "out/trained").rglob("weights.safetensors"))) == 1


LOOK = """
import socket, sys
def refuse(*_): raise AssertionError("network")
socket.socket.connect = refuse
from unispector.systems import anomaly, efficient_ad
assert "anomalib" not in sys.modules
anomaly.PatchCore("resnet18=none")
assert "anomalib" in sys.modules
"""


@needs_anomalib
@pytest.mark.slow
def test_the_package_comes_only_when_asked_for_and_leaves_no_trace(tmp_path, tmp_path_factory, project_root):
    fonts = str(tmp_path_factory.mktemp("fonts"))  # which matplotlib lists, wherever it is used
    own = {
        "MPLCONFIGDIR": fonts,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(project_root),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


@needs_anomalib
def test_the_command_makes_it():
    assert type(make_detector("patchcore", PACKAGED)) is PatchCore
    with pytest.raises(ConfigError, match="not prompted by an example"):
        make_detector("patchcore", PACKAGED, "box")
