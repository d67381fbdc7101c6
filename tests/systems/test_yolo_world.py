"""YOLO-World over ultralytics, its texts read by transformers; random weights."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from tiny_systems import save_yolo_world
from unispector.data.coco import Annotations, CategoryRecord
from unispector.errors import CheckpointError
from unispector.ops.rle import decode_rle
from unispector.systems.yolo.world import YoloWorld

pytestmark = [
    pytest.mark.skipif(not find_spec("ultralytics"), reason="the extra ultralytics is not installed"),
    pytest.mark.skipif(not find_spec("transformers"), reason="the extra ultralytics is not installed"),
]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint, and beside it a text encoder that spells."""
    return save_yolo_world(tmp_path_factory.mktemp("world"))


def named(*names):
    return Annotations((), (), tuple(CategoryRecord(i, name, "") for i, name in enumerate(names, start=1)))


def test_texts_are_the_names_with_spaces_and_each_has_its_own_embedding(weights, tmp_path):
    detector = YoloWorld(str(weights), side=64)
    names, embeddings = detector.encode_prompts(named("deep_hole", "deep hole", "dent"), tmp_path)
    assert names == ("deep_hole", "deep hole", "dent")
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(3))
    assert torch.allclose(embeddings[0], embeddings[1])
    assert embeddings[1] @ embeddings[2] < 0.99
    (_, alone) = detector.encode_prompts(named("dent"), tmp_path)
    assert torch.allclose(alone[0], embeddings[2], atol=1e-5)  # padding changes nothing


def test_what_it_finds_is_boxes_filled_and_the_same_twice(weights, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    runs = []
    for _ in range(2):
        detector = YoloWorld(str(weights), side=64)
        prompts = detector.encode_prompts(named("hole", "dent"), tmp_path)
        runs.append(next(detector.detect([tmp_path / "a.png"], prompts)))
    found, again = runs
    assert torch.equal(found.scores, again.scores)
    assert found.masks_rle == again.masks_rle
    assert set(found.labels.tolist()) == {0, 1}
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    for (x0, y0, x1, y1), code in zip(found.boxes_xyxy.tolist(), found.masks_rle, strict=True):
        mask = decode_rle(code)
        assert mask.shape == (90, 60)
        box = np.s_[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
        assert mask[box].all()
        assert mask.sum() == mask[box].size


def test_without_a_text_encoder_one_line_says_what_to_put_where(weights, tmp_path):
    (tmp_path / "world.pt").write_bytes(weights.read_bytes())
    with pytest.raises(CheckpointError, match=r"clip: no text encoder .* put config.json") as caught:
        YoloWorld(str(tmp_path / "world.pt"))
    assert "\n" not in str(caught.value)
