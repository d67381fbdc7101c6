"""Post-processing: geometry from the padded frame back to original pixels, scores, order."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torch import Tensor

from unispector.modeling.postprocess import QUERY_TRUST, Rules, postprocess
from unispector.structures import Detections, LayerPrediction, ModelOutput, PriorMaps, QuerySelection


def output(logits: Tensor, boxes: Tensor, masks: Tensor) -> ModelOutput:
    nothing = QuerySelection(torch.zeros(1, 1, 1), torch.zeros(1, 1, 4), None, None)
    kernels = torch.eye(masks.shape[1]).repeat(len(masks), 1, 1)  # each query's mask is a feature of its own
    decoy = LayerPrediction(-logits, 1 - boxes, kernels, -masks)
    return ModelOutput((decoy, LayerPrediction(logits, boxes, kernels, masks)), (), nothing)


def masks_of(detections: Detections) -> np.ndarray:
    return np.stack([coco_mask.decode(rle) for rle in detections.masks_rle]).astype(bool)


def ramp(box: Tensor, padded: int) -> Tensor:
    """Mask logits [P/4, P/4] of a perfect box: distance in network pixels to its nearest edge, + inside.

    It is linear across every edge, so bilinear resizing moves no edge.
    """
    centre = torch.arange(padded // 4) * 4.0 + 2
    x = torch.minimum(centre - box[0], box[2] - centre)
    y = torch.minimum(centre - box[1], box[3] - centre)
    return torch.minimum(y[:, None], x[None])


@settings(max_examples=30)
@given(
    image_size=st.sampled_from([64, 72, 96, 100, 128]),
    # At most two of the network's pixels a picture's: the last resize takes neighbours, not averages.
    hw=st.tuples(st.integers(64, 400), st.integers(64, 400)),
    seed=st.integers(0, 10_000),
)
def test_a_perfect_prediction_returns_the_original_box(image_size: int, hw: tuple[int, int], seed: int):
    padded = -(-image_size // 32) * 32
    height, width = hw
    generator = torch.Generator().manual_seed(seed)
    # At least 20 of the network's pixels wide, so that its quarter-size mask has a flank on each side.
    # And a cell off the border, where there is nothing to interpolate with.
    low = torch.rand(2, generator=generator) * (image_size - 28) + 4
    high = low + 20 + torch.rand(2, generator=generator) * (image_size - 24 - low)
    network = torch.cat((low, high))
    original = network * torch.tensor([width, height] * 2) / image_size
    boxes = torch.cat(((low + high) / 2, high - low))[None, None] / padded
    for confined in (False, True):
        (result,) = postprocess(
            output(torch.full((1, 1, 1), 9.0), boxes, ramp(network, padded)[None, None]),
            [hw],
            class_names=("a",),
            image_size=image_size,
            padded_size=padded,
            rules=Rules(tight_boxes=False, confine_masks=confined, nms_iou=1.0),
        )
        assert result.image_hw == hw
        assert (result.boxes_xyxy[0] - original).abs().max() < 0.01
        # A mask's edge lies between two pixel centres, half a pixel from the true one at most.
        rows, columns = masks_of(result)[0].nonzero()
        edges = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (edges - original).abs().max() < 0.51


def test_boxes_are_clipped_to_the_image():
    boxes = torch.tensor([[[0.5, 0.5, 1.2, 1.2]]])
    (result,) = postprocess(
        output(torch.ones(1, 1, 1), boxes, torch.ones(1, 1, 24, 24)),
        [(50, 30)],
        class_names=("a",),
        image_size=72,
        padded_size=96,
        rules=Rules(tight_boxes=False, confine_masks=False, nms_iou=1.0),
    )
    assert result.boxes_xyxy.tolist() == [[0, 0, 30, 50]]
    assert masks_of(result).all()


def test_a_confined_mask_has_no_parts_far_from_its_box():
    boxes = torch.tensor([[[0.25, 0.5, 0.25, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    prediction = output(torch.ones(1, 2, 1), boxes, torch.full((1, 2, 16, 16), 3.0))
    results = {}
    for confined in (False, True):
        (results[confined],) = postprocess(
            prediction,
            [(64, 64)],
            class_names=("a",),
            image_size=64,
            padded_size=64,
            rules=Rules(tight_boxes=False, confine_masks=confined, nms_iou=1.0),
        )
    assert masks_of(results[False]).all()
    assert torch.equal(results[True].boxes_xyxy.sort(0).values, results[False].boxes_xyxy.sort(0).values)
    small, whole = sorted(masks_of(results[True]), key=np.sum)
    assert whole.all()
    # The box covers x 8..24, y 16..48; grown by a fifth and a cell it covers 2.4..29.6 and 8.8..55.2.
    assert small[16:48, 8:24].all()
    rows, columns = small.nonzero()
    assert columns.min() >= 2
    assert columns.max() + 1 <= 30
    assert rows.min() >= 8
    assert rows.max() + 1 <= 56


def random_output(images: int = 2, queries: int = 6, classes: int = 3) -> ModelOutput:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(images, queries, *shape, generator=generator)

    return output(normal(classes), normal(4).sigmoid(), normal(16, 16) * 3)


PAPER = Rules(tight_boxes=False, confine_masks=False, nms_iou=1.0)


def run(prediction: ModelOutput, limit: int = 300, rules: Rules = PAPER) -> list[Detections]:
    sizes = [(40, 50), (64, 64)][: len(prediction.layers[-1].logits)]
    return postprocess(
        prediction,
        sizes,
        class_names=("a", "b", "c"),
        image_size=64,
        padded_size=64,
        rules=rules,
        limit=limit,
    )


def test_score_is_probability_times_mean_probability_of_the_masks_cells():
    prediction = random_output()
    last = prediction.layers[-1]
    for image, result in enumerate(run(prediction)):
        expected = []
        for query, label in itertools.product(range(6), range(3)):
            cells = last.masks[image, query]
            quality = cells[cells > 0].sigmoid().mean().item()
            expected.append((last.logits[image, query, label].sigmoid().item() * quality, label, query))
        expected.sort(reverse=True)
        assert result.scores.tolist() == pytest.approx([score for score, _, _ in expected], abs=1e-5)
        assert result.labels.tolist() == [label for _, label, _ in expected]
        for mask, (_, _, query) in zip(masks_of(result), expected, strict=True):
            full = torch.nn.functional.interpolate(
                last.masks[image, query][None, None], result.image_hw, mode="bilinear", align_corners=False
            )
            assert np.array_equal(mask, (full[0, 0] > 0).numpy())


def full_size(logits: Tensor, hw: tuple[int, int]) -> np.ndarray:
    """Where a mask's logits [h, w] are above 0 at an image's pixels."""
    full = torch.nn.functional.interpolate(logits[None, None], hw, mode="bilinear", align_corners=False)
    return (full[0, 0] > 0).numpy()


def test_a_confined_mask_and_its_score_are_those_of_the_cells_around_its_box():
    """A cell counts if its centre lies in the box, grown by a fifth and by a cell on each side."""
    prediction = random_output()
    last = prediction.layers[-1]
    centres = (torch.arange(16) + 0.5) / 16
    for image, result in enumerate(run(prediction, rules=replace(PAPER, confine_masks=True))):
        expected = []
        for query in range(6):
            cx, cy, w, h = last.boxes[image, query].tolist()
            rows = (centres - cy).abs() < h * 0.6 + 1 / 16
            columns = (centres - cx).abs() < w * 0.6 + 1 / 16
            cells = last.masks[image, query].masked_fill(~(rows[:, None] & columns), -10)
            quality = cells[cells > 0].sigmoid().mean().item()
            mask = full_size(cells, result.image_hw)
            probabilities = last.logits[image, query].sigmoid().tolist()
            expected += [(probability * quality, mask) for probability in probabilities]
        expected.sort(key=lambda pair: -pair[0])
        assert result.scores.tolist() == pytest.approx([score for score, _ in expected], abs=1e-5)
        for found, (_, mask) in zip(masks_of(result), expected, strict=True):
            assert np.array_equal(found, mask)


def test_the_padded_band_counts_for_nothing():
    """The image covers 18 of 24 cells a side; what the masks say beyond is cut off."""
    prediction = random_output(images=1)
    last = prediction.layers[-1]
    cells = torch.nn.functional.pad(last.masks[:, :, :, :], (0, 8, 0, 8), value=-3.0)
    beyond = cells.clone()
    beyond[..., 20:, :] = beyond[..., :, 20:] = 9.0
    found = [
        postprocess(
            output(last.logits, last.boxes, masks),
            [(36, 54)],
            class_names=("a", "b", "c"),
            image_size=72,
            padded_size=96,
            rules=PAPER,
        )[0]
        for masks in (cells, beyond)
    ]
    assert torch.equal(found[0].scores, found[1].scores)
    assert found[0].masks_rle == found[1].masks_rle


def test_the_limit_keeps_the_most_probable_pairs():
    prediction = random_output(images=1)
    (result,) = run(prediction, limit=4)
    probability = prediction.layers[-1].logits[0].sigmoid().flatten()
    kept = probability.argsort(descending=True)[:4]
    assert sorted(result.labels.tolist()) == sorted((kept % 3).tolist())
    assert (result.scores.diff() <= 0).all()


def test_an_empty_mask_is_no_detection():
    prediction = random_output(images=1)
    prediction.layers[-1].mask_features[0, 2] = -5
    (result,) = run(prediction)
    assert len(result) == 15
    assert masks_of(result).any((1, 2)).all()
    prediction.layers[-1].mask_features[:] = -5
    (nothing,) = run(prediction)
    assert len(nothing) == 0
    assert nothing.boxes_xyxy.shape == (0, 4)


def test_a_mask_that_falls_between_the_pixels_is_no_detection():
    prediction = random_output(images=1)
    prediction.layers[-1].mask_features[:] = -5
    prediction.layers[-1].mask_features[0, 2, 4, 4] = (
        1.0  # a pixel of 8 x 8 sees it and three cells around alike
    )
    (nothing,) = postprocess(
        prediction,
        [(8, 8)],
        class_names=("a", "b", "c"),
        image_size=64,
        padded_size=64,
        rules=PAPER,
    )
    assert len(nothing) == 0


def test_without_confinement_a_mask_does_not_depend_on_its_box():
    prediction = random_output(images=1)
    last = prediction.layers[-1]
    boxes = last.boxes.clone()
    boxes[:, :, 2:] = torch.tensor([0.0, 0.3])  # as narrow as a sigmoid gets
    (expected,), (found,) = run(prediction), run(output(last.logits, boxes, last.masks))
    assert found.masks_rle == expected.masks_rle
    assert torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize("image_size", [66, 70, 94])
def test_a_cell_the_image_covers_in_part_counts(image_size: int):
    """66 pixels are 16.5 cells: a mask in the last one alone is at the image's edge."""
    masks = torch.full((1, 1, 24, 24), -1.0)
    masks[0, 0, 3:6, image_size // 4] = 8.0
    (found,) = postprocess(
        output(torch.ones(1, 1, 1), torch.full((1, 1, 4), 0.5), masks),
        [(4 * image_size, 4 * image_size)],
        class_names=("a",),
        image_size=image_size,
        padded_size=96,
        rules=PAPER,
    )
    assert len(found) == 1
    assert masks_of(found)[0, 16 * 4, -1]


def test_of_two_overlapping_detections_of_a_class_the_better_stays():
    # Queries 0 and 1 overlap by IoU 0.6, query 2 is far from both.
    boxes = torch.tensor([[[0.25, 0.25, 0.25, 0.25], [0.3125, 0.25, 0.25, 0.25], [0.75, 0.75, 0.25, 0.25]]])
    logits = torch.tensor([[[2.0, -4.0], [1.0, 3.0], [0.0, -5.0]]])
    prediction = output(logits, boxes, torch.full((1, 3, 16, 16), 5.0))

    def kept(nms_iou):
        (found,) = postprocess(
            prediction,
            [(64, 64)],
            class_names=("a", "b"),
            image_size=64,
            padded_size=64,
            rules=replace(PAPER, nms_iou=nms_iou),
        )
        return [
            (label, round(box[0]))
            for label, box in zip(found.labels.tolist(), found.boxes_xyxy.tolist(), strict=True)
        ]

    everything = [(1, 12), (0, 8), (0, 12), (0, 40), (1, 8), (1, 40)]
    assert kept(1.0) == kept(0.7) == everything
    assert kept(0.5) == [(1, 12), (0, 8), (0, 40), (1, 40)]


def test_tight_boxes_are_those_of_the_masks():
    for found in run(random_output(), rules=replace(PAPER, tight_boxes=True)):
        expected = coco_mask.toBbox(list(found.masks_rle))
        expected[:, 2:] += expected[:, :2]
        np.testing.assert_array_equal(found.boxes_xyxy.numpy(), expected)


def with_prior(queries: ModelOutput) -> ModelOutput:
    """Two parts of class 1 and one of class 2 in image 0; nothing in image 1."""
    logits = torch.full((2, 3, 32, 32), -2.0)
    logits[0, 1, 4:12, 4:12] = 3.0
    logits[0, 1, 20:24, 16:28] = 1.0
    logits[0, 2, 4:12, 20:28] = 2.0
    return replace(queries, prior=PriorMaps(logits, torch.tensor([[3.0, 1.0, -1.0], [0.0, 0.0, 0.0]])))


def sigmoid(value: float) -> float:
    return 1 / (1 + np.exp(-value))


def test_parts_of_the_prior_are_detections_beside_the_queries():
    prediction = random_output()
    plain, found = run(prediction), run(with_prior(prediction))
    torch.testing.assert_close(found[1].scores, QUERY_TRUST * plain[1].scores)
    assert found[1].masks_rle == plain[1].masks_rle
    # Presence times the mask's mean probability; the image is 40 x 50, a cell 1.25 x 1.5625 pixels.
    expected = {
        (1, (6, 5, 19, 15)): sigmoid(1) * sigmoid(3),
        (1, (25, 25, 44, 30)): sigmoid(1) * sigmoid(1),
        (2, (31, 5, 44, 15)): sigmoid(-1) * sigmoid(2),
    }
    rows = list(
        zip(
            found[0].scores.tolist(),
            found[0].labels.tolist(),
            found[0].boxes_xyxy.round().tolist(),
            strict=True,
        )
    )
    assert rows == sorted(rows, key=lambda row: -row[0])
    assert len(rows) == len(plain[0]) + 3
    for (label, box), score in expected.items():
        (match,) = (row for row in rows if row[0] == pytest.approx(score, abs=1e-5))
        assert match[1] == label
        assert np.abs(np.subtract(match[2], box)).max() <= 1
        mask = masks_of(found[0])[rows.index(match)]
        tight = [mask.any(0).nonzero()[0][[0, -1]], mask.any(1).nonzero()[0][[0, -1]]]
        left, right, top, bottom = np.concatenate(tight).tolist()
        assert match[2] == [left, top, right + 1, bottom + 1]
        assert mask[top : bottom + 1, left : right + 1].mean() > 0.9
    # Without those three, the queries' detections are as they were, but for the trust in their scores.
    ours = [row for row in rows if not any(row[0] == pytest.approx(s, abs=1e-5) for s in expected.values())]
    assert [score for score, *_ in ours] == pytest.approx((QUERY_TRUST * plain[0].scores).tolist())


def test_the_limit_and_the_suppression_hold_for_queries_and_prior_together():
    masks = torch.full((2, 1, 16, 16), -5.0)
    masks[0, 0, 2:6, 2:6] = 9.0  # where class 1 has its first part
    prediction = with_prior(
        output(torch.tensor([[-9.0, 4.0, -9.0]]).repeat(2, 1)[:, None], torch.full((2, 1, 4), 0.5), masks)
    )
    rules = Rules(tight_boxes=True, confine_masks=False, nms_iou=0.7)
    assert len(run(prediction, rules=replace(rules, nms_iou=1.0))[0]) == 6
    kept = run(prediction, rules=rules)[0]
    # The better one of the two on the same place stays, the prior's; a class less sure of it does, too.
    assert sorted(kept.labels.tolist()) == [0, 1, 1, 2, 2]
    assert kept.scores[0].item() == pytest.approx(sigmoid(1) * sigmoid(3), abs=1e-3)
    assert len(run(prediction, limit=2, rules=rules)[0]) == 2
    assert run(prediction, limit=2, rules=rules)[0].labels.tolist() == [1, 1]


def test_parts_beyond_the_image_are_no_detections():
    logits = torch.full((1, 1, 48, 48), -2.0)
    logits[0, 0, 40:46, 4:20] = 5.0
    nothing = output(torch.ones(1, 1, 1), torch.full((1, 1, 4), 0.5), torch.full((1, 1, 24, 24), -5.0))
    (found,) = postprocess(
        replace(nothing, prior=PriorMaps(logits, torch.zeros(1, 1))),
        [(50, 50)],
        class_names=("a",),
        image_size=72,
        padded_size=96,
        rules=PAPER,
    )
    assert len(found) == 0
