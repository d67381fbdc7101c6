"""In-batch prompting: which instances may speak for a class, and how labels become columns."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.structures import Batch, Targets, VisualPrompts
from unispector.training.prompts import commonest_classes, draw_prompts, to_columns


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Columns (each at least once), images, B and C of a batch."""
    classes, images = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    columns = list(range(classes)) + draw(st.lists(st.integers(0, classes - 1), max_size=8))
    places = draw(st.lists(st.integers(0, images - 1), min_size=len(columns), max_size=len(columns)))
    return torch.tensor(columns), torch.tensor(places), images, classes


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 10_000))
def test_draws(batch: tuple, max_images: int, cross_image: float, seed: int):
    columns, image_index, images, classes = batch
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mixing = draw_prompts(
            columns, image_index, images=images, classes=classes,
            max_images=max_images, cross_image=cross_image,
        )  # fmt: skip
    assert mixing.shape == (images, classes, len(columns))
    torch.testing.assert_close(mixing.sum(-1), torch.ones(images, classes))
    for image in range(images):
        for column in range(classes):
            weights = mixing[image, column]
            drawn = weights.nonzero().flatten().tolist()
            assert weights[drawn].tolist() == pytest.approx([1 / len(drawn)] * len(drawn))
            places = {int(image_index[i]) for i in drawn}
            assert 1 <= len(places) <= max_images
            # All of the class on each of these images, and nothing else.
            whole = [
                i for i, c in enumerate(columns.tolist()) if c == column and int(image_index[i]) in places
            ]
            assert drawn == whole
            others = {int(image_index[i]) for i, c in enumerate(columns.tolist()) if c == column} - {image}
            if cross_image == 1 and others:
                assert places <= others


def draw_many(columns: list[int], places: list[int], *, cross_image: float, max_images: int) -> torch.Tensor:
    """[2000, N] weights of the first class, for image 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = [
            draw_prompts(
                torch.tensor(columns), torch.tensor(places), images=max(places) + 1, classes=1,
                max_images=max_images, cross_image=cross_image,
            )[0, 0]
            for _ in range(2000)
        ]  # fmt: skip
    return torch.stack(draws)


def test_number_and_choice_of_images():
    # Images 0 to 4 with 1, 1, 1, 2 and 3 instances.
    weights = draw_many([0] * 8, [0, 1, 2, 3, 3, 4, 4, 4], cross_image=0.0, max_images=3)
    shown = (weights[:, [0, 1, 2, 3, 5]] > 0).float()
    shares = torch.bincount(shown.sum(1).long(), minlength=4)[1:] / len(weights)
    # All three with chance 0.4, else 1 to 3 alike.
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.2, 0.6]), atol=0.05, rtol=0)
    torch.testing.assert_close(shown.mean(0), torch.full((5,), 2.4 / 5), atol=0.05, rtol=0)


def test_as_many_as_there_are_where_they_are_few():
    weights = draw_many([0] * 4, [0, 1, 1, 2], cross_image=1.0, max_images=5)
    assert not weights[:, 0].any()
    both = (weights > 0).sum(1) == 3
    torch.testing.assert_close(both.float().mean(), torch.tensor(0.4 + 0.6 / 2), atol=0.04, rtol=0)
    assert weights[both][:, 1:].unique().tolist() == pytest.approx([1 / 3])


def test_cross_image_is_a_probability():
    weights = draw_many([0, 0, 0], [0, 1, 1], cross_image=0.6, max_images=1)
    # Own image: only in the 40 % of draws from anywhere, and there one time in two.
    torch.testing.assert_close((weights[:, 0] > 0).float().mean(), torch.tensor(0.2), atol=0.03, rtol=0)


def test_an_image_without_instances_is_prompted_like_any_other():
    mixing = draw_prompts(
        torch.tensor([0, 1]), torch.tensor([0, 2]), images=3, classes=2, max_images=5, cross_image=1.0
    )
    assert mixing[1].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_columns_follow_the_labels():
    targets = [
        Targets(torch.tensor(labels), torch.zeros(len(labels), 4), torch.zeros(len(labels), 2, 2).bool())
        for labels in ([7, 3], [9], [3])
    ]
    targets.append(Targets(torch.zeros(0).long(), torch.zeros(0, 4), torch.zeros(0, 2, 2).bool()))
    columns = to_columns(targets, torch.tensor([7, 3, 9, 3]))
    assert columns.count == 3
    assert columns.prompt_labels.tolist() == [1, 0, 2, 0]
    assert [t.labels.tolist() for t in columns.targets] == [[1, 0], [2], [0], []]
    assert columns.targets[0].boxes is targets[0].boxes
    assert targets[0].labels.tolist() == [7, 3]


def of_classes(labels: list[list[int]]) -> Batch:
    """A batch of one image a list, an instance a label; what marks them bears the instance's number."""
    flat = torch.tensor([label for own in labels for label in own], dtype=torch.int64)
    numbers = torch.arange(len(flat)).float()
    counts = [len(own) for own in labels]
    marks = numbers[:, None, None].expand(-1, 2, 2)
    targets = tuple(
        Targets(own, boxes, masks)
        for own, boxes, masks in zip(
            flat.split(counts), numbers[:, None].expand(-1, 4).split(counts), marks.split(counts), strict=True
        )
    )
    image = torch.arange(len(labels)).repeat_interleave(torch.tensor(counts))
    prompts = VisualPrompts(marks, image, flat, numbers[:, None])
    size = ((2, 2),) * len(labels)
    images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    return Batch(images, targets, prompts, tuple(range(len(labels))), size)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=1, max_size=6), st.integers(1, 4))
def test_the_commonest_classes_are_kept_and_no_others(labels: list[list[int]], most: int):
    batch = of_classes(labels)
    kept = commonest_classes(batch, most)
    shown = Counter(label for own in labels for label in set(own))
    wanted = {label for label, _ in sorted(shown.items(), key=lambda item: (-item[1], item[0]))[:most]}
    flat = [label for own in labels for label in own]
    numbers = [i for i, label in enumerate(flat) if label in wanted]
    assert kept.prompts.spectra.flatten().tolist() == numbers
    assert kept.prompts.roi_masks[:, 0, 0].tolist() == numbers
    assert kept.prompts.labels.tolist() == [flat[i] for i in numbers]
    assert [t.labels.tolist() for t in kept.targets] == [[x for x in own if x in wanted] for own in labels]
    assert torch.cat([t.boxes[:, 0] for t in kept.targets]).tolist() == numbers
    assert torch.cat([t.masks[:, 0, 0] for t in kept.targets]).tolist() == numbers
    assert kept.images is batch.images
