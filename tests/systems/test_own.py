"""The systems on this project's detector: each takes the weights that it says, and knows what it knows."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from published import official_state
from tiny import save_tiny, tiny_config, tiny_network
from tiny_systems import save_closed
from unispector.benchmark.other_detectors import Entry, make_detector, run_benchmark
from unispector.cli import main
from unispector.config import SetConfig
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.protocol.split_tree import SplitTree
from unispector.errors import CheckpointError, ConfigError
from unispector.evaluation.system_record import RECORD, SystemRecord
from unispector.modeling.unispector import PROMPT_REFERENCES
from unispector.project.paths import SPLITS
from unispector.systems.own import ClosedSetDetector, dinov, published_dinov

CLASSES = ("steel/scratch", "tile/bright", "tile/dark", "tile/scratch")
SETS = {
    name: SetConfig(source="magnetic_tile", path=f"raw-{name}", domain="in") for name in ("tile", "steel")
}


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maskdino")
    save_closed(folder, CLASSES, SETS)
    return folder


@pytest.fixture(scope="module")
def by_boxes(tmp_path_factory):
    config = tiny_config().as_rival("trex2")
    return save_tiny(tmp_path_factory.mktemp("trex2"), tiny_network(config, 3), config)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    file = tmp_path_factory.mktemp("dinov") / "model_swinT.pth"
    state = {
        name: value * 0.02 if value.is_floating_point() else value for name, value in official_state().items()
    }
    torch.save({"model": state}, file)
    return file


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    file = tmp_path_factory.mktemp("photos") / "data/raw/raw-tile/a.png"
    file.parent.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(file)
    return file


def marks(*names):
    return Annotations(
        (ImageRecord(1, "a.png", 90, 60),),
        tuple(
            InstanceRecord(i, 1, i, (5.0 * i, 8.0, 20.0, 15.0), 300.0, None) for i in range(1, len(names) + 1)
        ),
        tuple(CategoryRecord(i, name, "") for i, name in enumerate(names, start=1)),
    )


def test_a_closed_set_has_its_learned_embeddings_whatever_is_marked(closed, photo, tmp_path):
    detector = ClosedSetDetector(str(closed))
    bank = detector.encode_prompts(marks("hole", "scratch", "bright"), photo.parent)
    assert bank.class_names == ("scratch", "bright")
    rows = save_closed(tmp_path, CLASSES, SETS)[[3, 1]]
    torch.testing.assert_close(bank.embeddings, rows)
    (found,) = detector.detect([photo], bank)
    assert found.class_names == ("scratch", "bright")
    assert (found.image_hw, len(found) > 0) == ((60, 90), True)


def test_of_classes_that_it_does_not_know_a_closed_set_finds_nothing(closed, photo):
    detector = ClosedSetDetector(str(closed))
    prompts = detector.encode_prompts(marks("hole"), photo.parent)
    (found,) = detector.detect([photo], prompts)
    assert (len(found), found.image_hw, found.boxes_xyxy.shape) == (0, (60, 90), (0, 4))


def test_a_closed_set_knows_all_seen_classes_of_the_protocol_and_no_other(benchmark, tmp_path):
    splits, images = SplitTree(benchmark.root / SPLITS), benchmark.root / "data/raw/raw-tile"
    save_closed(tmp_path, Annotations.read(splits.training(42)).class_names, benchmark.config.data.sets)
    detector = ClosedSetDetector(str(tmp_path))
    seen, unseen = (
        Annotations.read(splits.in_domain("tile", part, 42, 1).prompt) for part in ("seen", "unseen")
    )
    assert detector.encode_prompts(seen, images).class_names == seen.class_names
    assert detector.encode_prompts(unseen, images) is None
    assert detector.encode_prompts(seen, benchmark.root / "data/raw/raw-steel") is None


def test_a_model_with_prompts_is_no_closed_set(by_boxes):
    with pytest.raises(CheckpointError, match="a model with prompts; give one that"):
        ClosedSetDetector(str(by_boxes))


def test_published_dinov_starts_its_prompts_at_the_corner_and_has_nothing_of_ours(published, photo):
    saved = published_dinov(published, side=96)
    assert saved.model.prompt_reference == PROMPT_REFERENCES["corner"] == (0.0, 0.0, 1.0, 1.0)
    assert saved.model.similarity is None
    assert (saved.config.model.boxes, saved.config.model.queries) == ("head", 300)
    assert sum(value.numel() for value in saved.model.parameters()) == 53_982_703 - 264_449 - 2 * 256
    taken = saved.model.decoder.norm.weight
    torch.testing.assert_close(
        taken.cpu().detach(), 0.02 * official_state()["model.sem_seg_head.predictor.decoder_norm.weight"]
    )


def test_dinov_takes_the_file_or_what_convert_made_of_it(published, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("unispector.systems.own.DINOV_SIDE", 96)
    monkeypatch.setattr(published_dinov, "__defaults__", (96,))
    converted = tmp_path / "dinov.safetensors"
    assert main(["weights", "convert", str(published), "--out", str(converted)]) == 0
    results = []
    for file in (published, converted):
        detector = dinov(str(file), "box")
        prompts = detector.encode_prompts(marks("hole", "scratch"), photo.parent)
        results.append(next(detector.detect([photo], prompts)))
    first, second = results
    assert torch.equal(first.scores, second.scores)
    assert torch.equal(first.boxes_xyxy, second.boxes_xyxy)


def test_a_file_that_lacks_a_part_of_dinov_is_refused(published, tmp_path):
    state = torch.load(published, weights_only=True)["model"]
    part = {name: value for name, value in state.items() if "pos_embed.weight" not in name}
    torch.save({"model": part}, tmp_path / "part.pth")
    with pytest.raises(
        CheckpointError, match=r"part\.pth: lacks prompt_encoder\.position \(1 tensors of DINOv\)"
    ):
        published_dinov(tmp_path / "part.pth", side=96)


@pytest.mark.parametrize(
    ("name", "fixture"), [("trex2", "by_boxes"), ("maskdino", "closed"), ("unispector", "sharp_model")]
)
def test_each_runs_the_protocol_and_says_what_it_took(
    name, fixture, benchmark, new_project, short, tmp_path, request
):
    weights = str(request.getfixturevalue(fixture))
    root = new_project(variants=())
    made = []

    def make(seed):
        made.append(seed)
        return make_detector(name, weights)

    entry = Entry("mine", make, name, None, weights)
    report = run_benchmark(entry, short, root, tmp_path, ["tile"])
    assert {row.data_set for row in report.rows} == {"tile"}
    assert {row.subset for row in report.rows} == {"seen", "unseen"}
    assert made == [42]
    record = SystemRecord.read(tmp_path / RECORD)
    assert (record.system, record.name, record.weights) == (name, "mine", weights)
    assert record.roi == ("" if name == "maskdino" else "box")
    assert record.parameters > 10_000
    looked = sum(row.metrics.images + row.alarms.good_images for row in report.rows)
    assert record.images == looked
    low, high = record.seconds_spread
    assert 0 < low <= record.seconds <= high
    assert record.peak_mib > 100
    again = run_benchmark(entry, short, root, tmp_path / "again", ["tile"])
    assert json.loads(again.metrics_json()) == json.loads(report.metrics_json())


def test_options_that_do_not_suit_a_system_are_refused(by_boxes):
    for options, told in (
        (("trex2", ""), "trex2 needs --weights: a folder"),
        (("prototypes", "x"), "prototypes takes no --weights"),
        (("trex2", str(by_boxes), "mask"), "trex2 is prompted by boxes alone; leave out --roi mask"),
        (("maskdino", str(by_boxes), "box"), "maskdino is not prompted by an example; leave out --roi box"),
        (("os.path:join", "x"), "--weights and --roi are for the systems"),
    ):
        with pytest.raises(ConfigError, match=told):
            make_detector(*options)


@pytest.mark.parametrize("system", ["unispector", "trex2", "dinov"])
def test_a_model_of_another_system_is_refused(system, by_boxes, closed, sharp_model, tmp_path):
    config = tiny_config().as_rival("dinov")
    folders = {
        "unispector": sharp_model,
        "trex2": by_boxes,
        "maskdino": closed,
        "dinov": save_tiny(tmp_path / "dinov", tiny_network(config, 3), config),
    }
    assert make_detector(system, str(folders.pop(system))).parameters
    for other, folder in folders.items():
        with pytest.raises(CheckpointError, match=f"a model of {other}"):
            make_detector(system, str(folder))
