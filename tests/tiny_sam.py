"""A SAM of transformers at its smallest, with random weights, and images it can tell classes apart on."""

import numpy as np
import pytest
import torch
from PIL import Image

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.ops.rle import decode_rle

NAMES = ("red", "blue")
COLOURS = {"red": (220, 40, 40), "blue": (30, 60, 220)}


def save_sam(folder, seed=0, side=128):
    """A checkpoint whose features show the colour of each patch of 8 pixels."""
    transformers = pytest.importorskip("transformers", reason="pip install 'unispector[systems]'")
    torch.manual_seed(seed)
    vision = transformers.SamVisionConfig(
        hidden_size=32,
        output_channels=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=side,
        patch_size=8,
        window_size=4,
        global_attn_indexes=[0],
        num_pos_feats=16,
        mlp_dim=32,
    )
    prompts = transformers.SamPromptEncoderConfig(hidden_size=32, image_size=side, patch_size=8)
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32
    )
    prompts.image_embedding_size = side // 8
    model = transformers.SamModel(
        transformers.SamConfig(
            vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
        )
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and ("embed" not in name or "projection" in name):
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    model.save_pretrained(folder)
    return folder


def paint(path, boxes, height=200, width=260, seed=0):
    """Grey noise with rectangles (class name, (x, y, w, h))."""
    pixels = np.random.default_rng(seed).normal(120, 4, (height, width, 1)).repeat(3, 2)
    for name, (x, y, w, h) in boxes:
        pixels[y : y + h, x : x + w] = COLOURS[name]
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def annotate(folder, scenes, height=200, width=260, names=NAMES):
    """Images 0.png, 1.png, ... with these rectangles, and their annotations, boxes alone."""
    images, instances = [], []
    for number, boxes in enumerate(scenes):
        paint(folder / f"{number}.png", boxes, height, width, number)
        images.append(ImageRecord(number, f"{number}.png", width, height))
        for name, box in boxes:
            row = (len(instances) + 1, number, names.index(name) + 1, tuple(map(float, box)))
            instances.append(InstanceRecord(*row, float(box[2] * box[3]), None))
    categories = tuple(CategoryRecord(i, name, "") for i, name in enumerate(names, start=1))
    return Annotations(tuple(images), tuple(instances), categories)


def assert_protocol(system, prompts, scene, folder, most):
    """Results are ranked, in range and in the image's pixels, and do not depend on other images."""
    sizes = {"a.png": (90, 240), "b.png": (310, 200)}
    paths = [paint(folder / name, scene, *size, seed=4) for name, size in sizes.items()]
    together = list(system.detect(paths, prompts))
    again = [next(iter(system.detect([path], prompts))) for path in paths]
    for found, other, size in zip(together, again, sizes.values(), strict=True):
        assert torch.equal(found.scores, other.scores)
        assert found.masks_rle == other.masks_rle
        assert (found.image_hw, found.class_names) == (size, NAMES)
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert (found.scores.diff() <= 0).all()
        assert (found.labels.bincount(minlength=2) <= most).all()
        for box, code in zip(found.boxes_xyxy.tolist(), found.masks_rle, strict=True):
            mask = decode_rle(code)
            rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            assert mask.shape == size
            assert box == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert sum(map(len, together)) > 0
