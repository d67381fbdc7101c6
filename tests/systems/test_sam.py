"""SAM through its interface: transformers' own answers, PerSAM's changes of them, the frame's geometry."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny_sam import save_sam
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import CheckpointError, DataError
from unispector.ops.rle import encode_rle
from unispector.systems.findings import Finding, as_detections
from unispector.systems.hub import read_trained
from unispector.systems.sam import (
    FrozenSam,
    Guidance,
    class_mask,
    covered,
    marked_cells,
    prompt_mask,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="module")
def sam(checkpoint):
    return FrozenSam(str(checkpoint))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_sizes_follow_the_checkpoint(sam):
    assert (sam.side, sam.grid, sam.width) == (128, 16, 32)
    assert sam.parameters == sum(weight.numel() for weight in sam._model.parameters())
    assert not any(weight.requires_grad for weight in sam._model.parameters())


def test_a_prompt_gets_the_answer_that_transformers_gives(sam, checkpoint):
    from transformers import SamModel

    theirs = SamModel.from_pretrained(checkpoint).eval()
    scene = sam.see(noise(128, 128))
    points, box, mask = (
        torch.tensor([[20.0, 30], [90, 5]]),
        torch.tensor([10.0, 8, 70, 60]),
        torch.randn(64, 64),
    )
    for given, several in ((None, True), (box, False)):
        with torch.no_grad():
            expected = theirs(
                image_embeddings=scene.features,
                input_points=points[None, None],
                input_labels=torch.tensor([[[1, 0]]]),
                input_boxes=None if given is None else given[None, None],
                input_masks=mask[None, None],
                multimask_output=several,
            )
        guess = sam.decode(scene.features, sam.point_tokens(points, (1, 0), given), mask[None], several)
        torch.testing.assert_close(guess.logits, expected.pred_masks[:, 0])
        torch.testing.assert_close(guess.quality, expected.iou_scores[:, 0])


def test_an_image_lies_in_the_upper_left_with_its_aspect_or_fills_the_frame(sam):
    wide, tall = noise(50, 100), noise(90, 30)
    assert sam.see(wide).shown_hw == (64, 128)
    assert sam.see(tall).shown_hw == (128, 43)
    assert sam.see(noise(1, 400)).shown_hw == (1, 128)
    assert sam.see(wide, stretched=True).shown_hw == (128, 128)
    assert sam.see(wide).image_hw == (50, 100)
    # What is padded is 0 after normalising, as SAM pads.
    frame = torch.zeros(1, 3, 128, 128)
    frame[:, :, :64] = sam_pixels(noise(64, 128, 3))
    expected = sam._model.get_image_embeddings(frame)
    torch.testing.assert_close(sam.see(noise(64, 128, 3)).features, expected)


def sam_pixels(pixels):
    mean, deviation = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    return torch.tensor(((pixels - mean) / deviation).transpose(2, 0, 1)[None], dtype=torch.float32)


@pytest.mark.parametrize("size", [(128, 128), (100, 220), (310, 90)])
def test_a_map_of_the_frame_lies_where_it_should_on_the_image(sam, size):
    scene = sam.see(noise(*size))
    cells = [round(side * 64 / max(size)) for side in size]  # of the frame's 64, that the image fills
    top, left, bottom, right = cells[0] // 4, cells[1] // 4, cells[0] // 2, cells[1] // 2
    logits = torch.full((64, 64), -10.0)
    logits[top:bottom, left:right] = 10
    inside = (sam.on_image(scene, logits) > 0).numpy()
    pixels = max(size) / 64
    expected = np.zeros(size, dtype=bool)
    rows, columns = (slice(round(a * pixels), round(b * pixels)) for a, b in ((top, bottom), (left, right)))
    expected[rows, columns] = True
    assert inside.shape == size
    assert (inside & expected).sum() / (inside | expected).sum() > 0.8


def attention(layer, query, key, value, bias=None):
    """One attention by loops over heads, as PerSAM's repository has it."""
    heads, outputs = layer.num_attention_heads, []
    q, k, v = layer.q_proj(query), layer.k_proj(key), layer.v_proj(value)
    size = q.shape[-1] // heads
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        weights = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), dim=-1)
        if bias is not None:
            weights = torch.softmax(weights + bias, dim=-1)
        outputs.append(weights @ v[:, part])
    return layer.out_proj(torch.cat(outputs, dim=1))


def guided(decoder, tokens, image, places, bias, target):
    """Tokens and image after the decoder's transformer, for one prompt: what the repository computes."""
    transformer = decoder.transformer
    first = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, tokens]) + target
    queries, keys = first, image
    for number, layer in enumerate(transformer.layers):
        if number:
            queries = queries + target
            own = queries + first
            queries = queries + attention(layer.self_attn, own, own, queries)
        else:
            queries = attention(layer.self_attn, queries, queries, queries)
        queries = layer.layer_norm1(queries)
        told = attention(layer.cross_attn_token_to_image, queries + first, keys + places, keys, bias)
        queries = layer.layer_norm2(queries + told)
        queries = layer.layer_norm3(queries + layer.mlp(queries))
        told = attention(layer.cross_attn_image_to_token, keys + places, queries + first, queries)
        keys = layer.layer_norm4(keys + told)
    told = attention(transformer.final_attn_token_to_image, queries + first + target, keys + places, keys)
    return transformer.layer_norm_final_attn(queries + told), keys


def test_guidance_is_that_of_persams_repository(sam):
    scene = sam.see(noise(128, 128, 1))
    tokens = sam.point_tokens(torch.tensor([[30.0, 60]]), (1,))
    bias, target = torch.rand(256), torch.randn(32)
    plain = sam.decode(scene.features, tokens)
    guess = sam.decode(scene.features, tokens, guidance=Guidance(bias, target))
    decoder = sam._model.mask_decoder
    image = (
        (scene.features + sam._model.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1))[0].flatten(1).T
    )
    queries, _ = guided(decoder, tokens[0], image, sam._places[0].flatten(1).T, bias, target)
    torch.testing.assert_close(
        guess.quality[0], decoder.iou_prediction_head(queries[0])[1:], rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(guess.quality, plain.quality, atol=1e-3)
    assert torch.equal(
        sam.decode(scene.features, tokens).logits, plain.logits
    )  # guidance leaves nothing behind


def test_gradients_reach_the_tokens_of_several_images(sam):
    features = torch.cat([sam.see(noise(128, 128, seed)).features for seed in (1, 2)])
    tokens = torch.randn(2, 5, 32, requires_grad=True)
    guess = sam.decode(features, tokens, several=False)
    assert guess.logits.shape == (2, 1, 64, 64)
    alone = [sam.decode(features[i : i + 1], tokens[i : i + 1], several=False).logits for i in range(2)]
    torch.testing.assert_close(guess.logits, torch.cat(alone), rtol=1e-4, atol=1e-5)
    guess.logits[0].sum().backward()
    assert tokens.grad[0].abs().sum() > 0
    assert tokens.grad[1].abs().sum() == 0


def test_cells_are_covered_as_a_loop_over_pixels_says():
    mask = np.zeros((40, 80), dtype=bool)
    mask[3:22, 7:55] = True
    share = covered(mask, (32, 64), 64, 8)
    scaled = np.zeros((64, 64))
    for row in range(32):
        for column in range(64):
            scaled[row, column] = area(mask, row * 1.25, column * 1.25, 1.25)
    expected = scaled.reshape(8, 8, 8, 8).mean(axis=(1, 3))
    torch.testing.assert_close(share, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=0.02)
    assert torch.equal(marked_cells(share), share >= 0.5)


def area(mask, top, left, side):
    """Share of a square of pixels that a mask covers."""
    total = 0.0
    for row in range(int(top), min(math.ceil(top + side), mask.shape[0])):
        for column in range(int(left), min(math.ceil(left + side), mask.shape[1])):
            height = min(row + 1, top + side) - max(row, top)
            width = min(column + 1, left + side) - max(column, left)
            total += mask[row, column] * height * width
    return total / side**2


def test_a_thin_mask_marks_the_cells_it_covers_most_and_none_marks_nothing():
    share = torch.zeros(4, 4)
    assert not marked_cells(share).any()
    share[1] = torch.tensor([0.1, 0.2, 0.2, 0.05])
    assert marked_cells(share).nonzero().tolist() == [[1, 1], [1, 2]]
    assert marked_cells(torch.tensor([[0.49, 0.5], [0.9, 0.1]])).tolist() == [[False, True], [True, False]]


def test_a_class_marks_all_its_boxes_or_masks():
    code = np.zeros((30, 40), dtype=bool)
    code[10:14, 20:26] = np.tri(4, 6, 2, dtype=bool)
    rows = [((20.0, 10.0, 6.0, 4.0), encode_rle(code[None])[0], 1), ((1.5, 2.0, 3.0, 2.0), None, 1)]
    rows.append(((30.0, 20.0, 5.0, 5.0), None, 2))
    instances = tuple(
        InstanceRecord(i, 1, category, box, 1.0, mask)
        for i, (box, mask, category) in enumerate(rows, start=1)
    )
    image = ImageRecord(1, "a.png", 40, 30)
    own = Annotations((image,), instances, (CategoryRecord(1, "a", ""), CategoryRecord(2, "b", "")))
    boxes = np.zeros((30, 40), dtype=bool)
    boxes[10:14, 20:26] = boxes[2:4, 1:5] = True
    assert (class_mask(own, image, 1, "box") == boxes).all()
    boxes[10:14, 20:26] = code[10:14, 20:26]
    assert (class_mask(own, image, 1, "mask") == boxes).all()
    assert not class_mask(own, image, 3, "mask").any()
    empty = replace(instances[0], segmentation=encode_rle(np.zeros((1, 30, 40), dtype=bool))[0])
    with pytest.raises(DataError, match=r"a\.png: the mask of annotation 1 is empty"):
        prompt_mask(empty, image, "mask")
    assert prompt_mask(empty, image, "box").sum() == 24


def test_detections_are_best_first_with_tight_boxes():
    masks = np.zeros((2, 20, 30), dtype=bool)
    masks[0, 3:5, 4:9] = masks[1, 10, 12] = True
    found = [Finding.of_mask(score, i, masks[i]) for i, score in enumerate((0.25, 0.75))]
    both = as_detections(found, ("a", "b"), (20, 30))
    assert both.scores.tolist() == [0.75, 0.25]
    assert both.boxes_xyxy.tolist() == [[12, 10, 13, 11], [4, 3, 9, 5]]
    assert both.labels.tolist() == [1, 0]
    assert len(as_detections([], ("a",), (20, 30)).boxes_xyxy) == 0


def test_what_is_no_checkpoint_of_sam_is_told_in_a_line(checkpoint, tmp_path):
    for name in ("nobody/nothing", str(tmp_path / "nowhere")):
        with pytest.raises(CheckpointError, match="no such folder, and the local cache"):
            FrozenSam(name)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((checkpoint / "config.json").read_text())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights are not read"):
        FrozenSam(str(pickled))
    tensors = load_file(checkpoint / "model.safetensors")
    tensors.pop("mask_decoder.iou_token.weight")
    save_file(tensors, pickled / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors of SamModel, first mask_decoder\.iou_token"):
        FrozenSam(str(pickled))
    (pickled / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="no SamModel"):
        FrozenSam(str(pickled))
    (pickled / "config.json").write_text(json.dumps({"model_type": "sam"})[:-1])
    with pytest.raises(CheckpointError, match="no SamModel"):
        FrozenSam(str(pickled))


def test_a_trained_file_of_other_shapes_is_refused(tmp_path):
    save_file({"mix": torch.zeros(3)}, tmp_path / "a.safetensors")
    assert read_trained(str(tmp_path / "a.safetensors"), {"mix": (3,)})["mix"].shape == (3,)
    with pytest.raises(CheckpointError, match="not what this system learnt"):
        read_trained(str(tmp_path / "a.safetensors"), {"mix": (2,)})
    with pytest.raises(CheckpointError, match="no readable safetensors file"):
        read_trained(str(tmp_path / "b.safetensors"), {"mix": (3,)})
