"""Post-processing: geometry from the padded frame back to original pixels, scores, order."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torch import Tensor

from unispector.detections import Detections
from unispector.modeling.postprocess import Rules, judged_masks, postprocess
from unispector.modeling.prior.candidate_head import DOUBT, INSIDE, LARGEST, CandidateHead, relative_logits
from unispector.modeling.prior.candidates import part_candidates
from unispector.modeling.prior.similarity_prior import SHARED
from unispector.ops.mask_runs import OUTSIDE
from unispector.ops.windows import GRID, windows
from unispector.prior_structures import Candidates, JudgedCandidates, PriorMaps
from unispector.structures import LayerPrediction, ModelOutput, QuerySelection


def output(logits: Tensor, boxes: Tensor, masks: Tensor) -> ModelOutput:
    nothing = QuerySelection(torch.zeros(1, 1, 1), torch.zeros(1, 1, 4), None, None)
    kernels = torch.eye(masks.shape[1]).repeat(len(masks), 1, 1)  # each query's mask is a feature of its own
    decoy = LayerPrediction(-logits, 1 - boxes, kernels, -masks)
    return ModelOutput((decoy, LayerPrediction(logits, boxes, kernels, masks)), (), nothing)


PAPER = Rules(tight_boxes=False, confine_masks=False, nms_iou=1.0)


def run(
    prediction: ModelOutput,
    sizes: Sequence[tuple[int, int]] = ((40, 50), (64, 64)),
    *,
    image_size: int = 64,
    rules: Rules = PAPER,
    limit: int = 300,
) -> list[Detections]:
    """Detections on images of these sizes (h, w), one each for the rows of the prediction."""
    rows, _, classes = prediction.layers[-1].logits.shape
    return postprocess(
        prediction,
        list(sizes[:rows]),
        class_names=("a", "b", "c")[:classes],
        image_size=image_size,
        rules=rules,
        limit=limit,
    )


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
    # At most two of the network's pixels an image's: the last resize takes neighbours, not averages.
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
        (result,) = run(
            output(torch.full((1, 1, 1), 9.0), boxes, ramp(network, padded)[None, None]),
            [hw],
            image_size=image_size,
            rules=replace(PAPER, confine_masks=confined),
        )
        assert result.image_hw == hw
        assert (result.boxes_xyxy[0] - original).abs().max() < 0.01
        # A mask's edge lies between two pixel centres, half a pixel from the true one at most.
        rows, columns = masks_of(result)[0].nonzero()
        edges = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (edges - original).abs().max() < 0.51


def test_boxes_are_clipped_to_the_image():
    boxes = torch.tensor([[[0.5, 0.5, 1.2, 1.2]]])
    (result,) = run(output(torch.ones(1, 1, 1), boxes, torch.ones(1, 1, 24, 24)), [(50, 30)], image_size=72)
    assert result.boxes_xyxy.tolist() == [[0, 0, 30, 50]]
    assert masks_of(result).all()


def test_a_confined_mask_has_no_parts_far_from_its_box():
    boxes = torch.tensor([[[0.25, 0.5, 0.25, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    prediction = output(torch.ones(1, 2, 1), boxes, torch.full((1, 2, 16, 16), 3.0))
    results = {}
    for confined in (False, True):
        (results[confined],) = run(prediction, [(64, 64)], rules=replace(PAPER, confine_masks=confined))
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
        run(output(last.logits, last.boxes, masks), [(36, 54)], image_size=72)[0] for masks in (cells, beyond)
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
    (nothing,) = run(prediction, [(8, 8)])
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
    (found,) = run(
        output(torch.ones(1, 1, 1), torch.full((1, 1, 4), 0.5), masks),
        [(4 * image_size, 4 * image_size)],
        image_size=image_size,
    )
    assert len(found) == 1
    assert masks_of(found)[0, 16 * 4, -1]


def test_of_two_overlapping_detections_of_a_class_the_better_stays():
    # Queries 0 and 1 overlap by IoU 0.6, query 2 is far from both.
    boxes = torch.tensor([[[0.25, 0.25, 0.25, 0.25], [0.3125, 0.25, 0.25, 0.25], [0.75, 0.75, 0.25, 0.25]]])
    logits = torch.tensor([[[2.0, -4.0], [1.0, 3.0], [0.0, -5.0]]])
    prediction = output(logits, boxes, torch.full((1, 3, 16, 16), 5.0))

    def kept(nms_iou):
        (found,) = run(prediction, [(64, 64)], rules=replace(PAPER, nms_iou=nms_iou))
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


# With candidates


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def judged_of(
    places: list[tuple[int, tuple[int, int, int, int]]],
    scores: list[float],
    side: int = 32,
    images: int = 2,
    classes: int = 3,
) -> JudgedCandidates:
    """Squares (map, (x0, y0, x1, y1) in cells) of sure canvases, cut at one half, with these scores."""
    canvases = torch.full((images * classes, side, side), -3.0)
    for number, (x0, y0, x1, y1) in places:
        canvases[number, y0:y1, x0:x1] = 3.0
    corners = torch.tensor([box for _, box in places]).float().view(-1, 4) / side
    boxes = torch.cat(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), dim=1)
    window = windows(boxes, side) * side
    steps = (torch.arange(GRID) + 0.5) / GRID
    own = torch.zeros(len(places), GRID, GRID)
    for number, (_, (x0, y0, x1, y1)) in enumerate(places):
        x, y = (window[number, k] + steps * (window[number, k + 2] - window[number, k]) for k in (0, 1))
        own[number] = ((y > y0) & (y < y1))[:, None] & ((x > x0) & (x < x1))
    numbers = torch.tensor([number for number, _ in places], dtype=torch.int64)
    candidates = Candidates(
        numbers, numbers, boxes, torch.zeros(len(places)), own, torch.zeros(len(places), 24)
    )
    return JudgedCandidates(
        candidates,
        canvases,
        torch.tensor([[logit(score)] * 2 for score in scores]).view(-1, 2),
        boxes.clone(),
        torch.zeros_like(own),
        torch.zeros_like(own),
    )


def with_candidates(judged: JudgedCandidates, images: int = 2) -> ModelOutput:
    """The same queries as ever: they must not count."""
    return replace(random_output(images), candidates=judged)


def rows_of(found: Detections) -> list[tuple[int, float, list[int]]]:
    boxes = found.boxes_xyxy.round().int().tolist()
    scores = [round(score, 4) for score in found.scores.tolist()]
    return list(zip(found.labels.tolist(), scores, boxes, strict=True))


TIGHT = Rules(tight_boxes=True, confine_masks=False, nms_iou=0.7)


def test_candidates_alone_are_detections_of_their_image_and_class():
    places = [(1, (4, 4, 12, 12)), (5, (16, 20, 28, 24)), (2, (20, 4, 28, 12)), (3, (2, 2, 10, 30))]
    prediction = with_candidates(judged_of(places, [0.3, 0.9, 0.6, 0.2]))
    found = run(prediction, rules=TIGHT)
    # The images are 40 x 50 and 64 x 64 pixels, a cell 1.5625 x 1.25 and 2 x 2.
    wanted = [
        [(2, 0.6, (31, 5, 44, 15)), (1, 0.3, (6, 5, 19, 15))],
        [(2, 0.9, (32, 40, 56, 48)), (0, 0.2, (4, 4, 20, 60))],
    ]
    for each, expected in zip(found, wanted, strict=True):
        rows = rows_of(each)
        assert [row[:2] for row in rows] == [row[:2] for row in expected]
        for (_, _, box), (_, _, near) in zip(rows, expected, strict=True):
            assert np.abs(np.subtract(box, near)).max() <= 1
        for (x0, y0, x1, y1), mask in zip(each.boxes_xyxy.int().tolist(), masks_of(each), strict=True):
            assert mask[y0:y1, x0:x1].mean() > 0.9
            assert not mask[:, :x0].any()
            assert not mask[:, x1:].any()
            assert not mask[:y0].any()
            assert not mask[y1:].any()


def test_a_score_is_the_mean_of_both_probabilities():
    judged = judged_of([(0, (4, 4, 12, 12)), (1, (4, 4, 12, 12))], [0.5, 0.5])
    judged.scores[0] = torch.tensor([logit(0.9), logit(0.1)])
    judged.scores[1] = torch.tensor([logit(0.7), logit(0.6)])
    (found, _) = run(with_candidates(judged), rules=TIGHT)
    assert found.labels.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([0.65, 0.5])


def test_of_candidates_that_overlap_the_better_one_of_a_class_stays_and_the_limit_counts_what_stays():
    places = [
        (1, (4, 4, 12, 12)),
        (1, (4, 4, 12, 13)),  # nearly the same, and better
        (2, (4, 4, 12, 12)),  # the same of another class
        (1, (20, 20, 28, 28)),
        (4, (4, 4, 12, 13)),  # the same in the other image
    ]
    prediction = with_candidates(judged_of(places, [0.5, 0.8, 0.4, 0.3, 0.2]))
    for limit, count in ((300, 3), (2, 2), (1, 1)):
        first, second = run(prediction, limit=limit, rules=TIGHT)
        assert [row[:2] for row in rows_of(first)] == [(1, 0.8), (2, 0.4), (1, 0.3)][:count]
        assert [row[:2] for row in rows_of(second)] == [(1, 0.2)]
    both = run(prediction, rules=replace(TIGHT, nms_iou=1.0))[0]
    assert [row[1] for row in rows_of(both)] == [0.8, 0.5, 0.4, 0.3]


def test_boxes_are_the_heads_or_tight_around_masks():
    judged = judged_of([(1, (4, 4, 12, 12))], [0.9])
    judged.boxes[0] = torch.tensor([0.5, 0.5, 0.25, 2.0])
    tight, _ = run(with_candidates(judged), rules=TIGHT)
    assert np.abs(np.subtract(tight.boxes_xyxy.tolist(), [[6, 5, 19, 15]])).max() <= 1
    loose, _ = run(with_candidates(judged), rules=replace(TIGHT, tight_boxes=False))
    assert loose.boxes_xyxy[0].tolist() == pytest.approx([50 * 0.375, 0, 50 * 0.625, 40])
    assert loose.masks_rle == tight.masks_rle


def test_candidates_without_a_mask_or_beyond_the_image_are_no_detections():
    judged = judged_of([(0, (4, 4, 12, 12)), (1, (4, 4, 12, 12))], [0.9, 0.8])
    judged.change[0] = -20.0
    (found, _) = run(with_candidates(judged), rules=TIGHT)
    assert found.labels.tolist() == [1]
    beyond = judged_of([(0, (8, 40, 20, 46))], [0.9], side=48, images=1, classes=1)
    (found,) = postprocess(
        replace(random_output(1), candidates=beyond),
        [(50, 50)],
        class_names=("a",),
        image_size=72,
        rules=TIGHT,
        limit=300,
    )
    assert len(found) == 0
    nothing = judged_of([], [])
    assert [len(each) for each in run(with_candidates(nothing), rules=TIGHT)] == [0, 0]


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_masks_of_candidates_are_their_canvas_at_the_cut_with_the_heads_change(seed: int):
    """Computed cell by cell of the canvas; what the head knows on its grid is read bilinearly."""
    side, generator = 24, torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(3, *shape, generator=generator)

    boxes = torch.cat((uniform(2), uniform(2) * 0.6 + 0.02), dim=1)
    canvas, cuts = torch.tensor([1, 0, 1]), uniform() * 2 - 1
    # On the grid as coarse as it may be, so that no cell of the canvas falls between its cells.
    smooth = torch.nn.functional.interpolate(uniform(2, 4, 4), (GRID, GRID), mode="bilinear")
    own, change = smooth[:, 0], 4 * smooth[:, 1] - 2
    candidates = Candidates(canvas, canvas, boxes, cuts, own, uniform(24))
    canvases = 4 * torch.randn(2, side, side, generator=generator)
    judged = JudgedCandidates(
        candidates, canvases, uniform(2), boxes, relative_logits(torch.zeros_like(own), own), change
    )
    chosen = torch.tensor([2, 0, 1])
    logits, reach = judged_masks(judged, chosen)
    window = windows(boxes, side) * side
    for found, place, number in zip(logits, reach, chosen.tolist(), strict=True):
        left, top, right, bottom = window[number].tolist()
        assert place[0] == min(max(math.floor(top), 0), side - 1)
        assert place[1] == min(max(math.floor(left), 0), side - 1)
        assert place[2] == max(min(math.ceil(bottom), side), place[0] + 1)
        assert place[3] == max(min(math.ceil(right), side), place[1] + 1)
        y, x = torch.arange(side) + 0.5, torch.arange(side) + 0.5
        ys, xs = 2 * (y - top) / (bottom - top) - 1, 2 * (x - left) / (right - left) - 1
        grid = torch.stack((xs.expand(side, -1), ys[:, None].expand(-1, side)), dim=-1)[None]
        known = torch.stack((own[number], change[number]))[None]
        drawn = torch.nn.functional.grid_sample(known, grid, padding_mode="border", align_corners=False)[0]
        base = canvases[canvas[number]] - cuts[number]
        flipped = (drawn[0] <= INSIDE) & (base > 0)
        expected = torch.where(flipped, -DOUBT * base, base).clamp(-LARGEST, LARGEST) + drawn[1]
        within = np.zeros((side, side), dtype=bool)
        within[place[0] : place[2], place[1] : place[3]] = True
        assert (found[~within] == OUTSIDE).all()
        # Not where the share of the part is at the threshold to within rounding.
        sure = within & ((drawn[0] - INSIDE).abs() > 0.02).numpy()
        np.testing.assert_allclose(found[sure], expected.numpy()[sure], atol=0.1)
        assert np.abs(found[sure] - expected.numpy()[sure]).mean() < 0.02


@torch.no_grad()
def test_a_thin_crack_across_the_image_keeps_its_mask():
    """One cell wide, it covers little of the large cells of its window; and it is no other part."""
    logits = torch.full((1, 1, 112, 112), -4.0)
    for place in range(8, 100):
        logits[0, 0, place, place] = 3.0
    maps = PriorMaps(
        logits,
        torch.zeros(1, 1),
        logits,
        torch.zeros(1, 1, 5, 28, 28),
        torch.zeros(1, 1, 4, 56, 56),
        torch.zeros(1, SHARED, 28, 28),
    )
    found = part_candidates(maps)
    judged = CandidateHead(5, 4, width=8, token=12).eval()(found, logits[0], maps, torch.zeros(1, 1, 2))
    masks, _ = judged_masks(judged, torch.arange(len(found)))
    assert len(found) == 1
    assert np.array_equal(masks[0] > 0, (logits[0, 0] > 0).numpy())


def test_a_part_close_to_another_is_not_both():
    """Two squares of one map: each mask is its own, although the other lies within its window."""
    places = [(1, (4, 8, 14, 18)), (1, (17, 8, 27, 18))]
    (found, _) = run(with_candidates(judged_of(places, [0.9, 0.8])), rules=TIGHT)
    first, second = masks_of(found)
    assert not (first & second).any()
    assert first[:, :24].any()
    assert not first[:, 24:].any()
    assert second[:, 26:].any()
    assert not second[:, :25].any()
