"""GroundingDINO: classes by their names, boxes in the image's pixels, filled boxes as masks."""

import numpy as np
import pytest
import torch
from PIL import Image

from tiny_systems import save_grounding_dino
from unispector.benchmark.other_detectors import make_detector
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord
from unispector.errors import CheckpointError, ConfigError, DataError
from unispector.ops.files import read_image
from unispector.ops.rle import decode_rle
from unispector.systems.text_prompts import MOST, GroundingDino, _best

NAMES = ("Black_Hole", "scratch?", "crack on edge")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_grounding_dino(tmp_path_factory.mktemp("grounding"))


@pytest.fixture(scope="module")
def detector(checkpoint):
    return GroundingDino(str(checkpoint), shorter=64, longer=100)


def named(*names):
    categories = tuple(CategoryRecord(i, name, "") for i, name in enumerate(names, start=1))
    return Annotations((ImageRecord(1, "a.png", 8, 8),), (), categories)


def picture(path, height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_all_names_are_one_text_in_which_each_knows_its_tokens(detector, checkpoint, tmp_path):
    wanted = detector.encode_prompts(named(*NAMES), tmp_path)
    (text,) = wanted.texts
    tokenizer = detector._tokenizer
    assert text.tokens[0].tolist() == tokenizer("black hole. scratch. crack on edge.").input_ids
    words = {label: tokenizer.decode(text.tokens[0, a:b]) for label, (a, b) in text.spans.items()}
    assert words == {0: "black hole", 1: "scratch", 2: "crack on edge"}
    assert wanted.names == NAMES


def test_many_names_fill_several_texts(detector, tmp_path):
    names = [f"{word} {letter}" for letter in "abcdefg" for word in ("hole", "crack")]
    wanted = detector.encode_prompts(named(*names), tmp_path)
    assert [len(text.spans) for text in wanted.texts] == [10, 4]
    assert sorted(label for text in wanted.texts for label in text.spans) == list(range(14))
    assert all(text.tokens.shape[1] <= 32 for text in wanted.texts)


def test_scores_are_means_over_a_names_tokens(detector, tmp_path):
    path = picture(tmp_path / "a.png", 80, 100)
    wanted = detector.encode_prompts(named(*NAMES), tmp_path)
    (found,) = detector.detect([path], wanted)
    tokens = wanted.texts[0].tokens
    with torch.no_grad():
        answer = detector._model(detector._frame(read_image(path)), tokens, torch.zeros_like(tokens))
    likely, expected = answer.logits[0].sigmoid(), []
    for query, (x, y, width, height) in enumerate(answer.pred_boxes[0].tolist()):
        corners = ((x - width / 2) * 100, (y - height / 2) * 80, (x + width / 2) * 100, (y + height / 2) * 80)
        box = [min(max(value, 0), limit) for value, limit in zip(corners, (100, 80, 100, 80), strict=True)]
        for label, (first, last) in wanted.texts[0].spans.items():
            score = sum(float(likely[query, token]) for token in range(first, last)) / (last - first)
            expected.append((score, label, box))
    expected.sort(key=lambda row: -row[0])
    assert found.scores.tolist() == pytest.approx([score for score, *_ in expected], abs=1e-5)
    for label in range(3):
        own = found.boxes_xyxy[found.labels == label].sort(0).values
        true = torch.tensor([box for _, other, box in expected if other == label]).sort(0).values
        torch.testing.assert_close(own, true, rtol=0, atol=1e-3)


def test_results_keep_the_protocol_and_do_not_depend_on_other_images(detector, tmp_path):
    wanted = detector.encode_prompts(named(*NAMES), tmp_path)
    sizes = {"a.png": (50, 120), "b.png": (200, 90)}
    paths = [picture(tmp_path / name, *size, seed=2) for name, size in sizes.items()]
    together = list(detector.detect(paths, wanted))
    again = [next(iter(detector.detect([path], wanted))) for path in paths]
    for found, other, (height, width) in zip(together, again, sizes.values(), strict=True):
        assert torch.equal(found.scores, other.scores)
        assert found.masks_rle == other.masks_rle
        assert (found.class_names, found.image_hw) == (NAMES, (height, width))
        assert 0 < len(found) <= MOST
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert (found.scores.diff() <= 0).all()
        assert (found.boxes_xyxy >= 0).all()
        assert (found.boxes_xyxy <= torch.tensor([width, height, width, height])).all()
        for (left, top, right, bottom), code in zip(found.boxes_xyxy.tolist(), found.masks_rle, strict=True):
            filled = np.zeros((height, width), dtype=bool)
            filled[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
            assert (decode_rle(code) == filled).all()


def test_boxes_beyond_the_image_and_the_weakest_are_left_out():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [1.5, 0.5, 0.2, 0.2], [0.0, 0.0, 1.0, 1.0]])
    found = _best(boxes, torch.tensor([0.1, 0.9, 0.3]), torch.tensor([0, 1, 2]), NAMES, (100, 200))
    assert found.labels.tolist() == [2, 0]
    torch.testing.assert_close(found.boxes_xyxy, torch.tensor([[0.0, 0, 100, 50], [80, 30, 120, 70]]))
    many = _best(
        torch.rand(1000, 4), torch.rand(1000), torch.zeros(1000, dtype=torch.int64), NAMES, (100, 200)
    )
    assert len(many) == MOST


def test_an_image_keeps_its_aspect_and_its_longer_side_has_a_limit(detector):
    shapes = [detector._frame(np.zeros((h, w, 3), dtype=np.uint8)).shape[2:] for h, w in ((32, 40), (20, 60))]
    assert shapes == [(64, 80), (33, 100)]


def test_mistakes_are_told_in_a_line(detector, checkpoint, tmp_path):
    with pytest.raises(DataError, match=r"'\.': 0 tokens"):
        detector.encode_prompts(named("."), tmp_path)
    with pytest.raises(DataError, match="40 tokens"):
        detector.encode_prompts(named("hole " * 40), tmp_path)
    with pytest.raises(CheckpointError, match="the local cache"):
        GroundingDino("nobody/nothing")
    with pytest.raises(ConfigError, match="not prompted by an example"):
        make_detector("grounding-dino", str(checkpoint), "box")
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).symlink_to(checkpoint / name)
    with pytest.raises(CheckpointError, match="no tokenizer"):
        GroundingDino(str(bare))
