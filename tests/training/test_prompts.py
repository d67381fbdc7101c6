"""In-batch prompting: which instances may speak for a class, and how labels become columns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.structures import Targets
from unispector.training.prompts import draw_prompts, to_columns


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Columns (each at least once), images, B and C of a batch."""
    classes, images = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    columns = list(range(classes)) + draw(st.lists(st.integers(0, classes - 1), max_size=8))
    places = draw(st.lists(st.integers(0, images - 1), min_size=len(columns), max_size=len(columns)))
    return torch.tensor(columns), torch.tensor(places), images, classes


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 10_000))
def test_draws(batch: tuple, max_examples: int, cross_image: float, seed: int):
    columns, image_index, images, classes = batch
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mixing = draw_prompts(
            columns, image_index, images=images, classes=classes,
            max_examples=max_examples, cross_image=cross_image,
        )  # fmt: skip
    assert mixing.shape == (images, classes, len(columns))
    torch.testing.assert_close(mixing.sum(-1), torch.ones(images, classes))
    for image in range(images):
        for column in range(classes):
            weights = mixing[image, column]
            drawn = weights.nonzero().flatten().tolist()
            assert 1 <= len(drawn) <= max_examples
            assert weights[drawn].tolist() == pytest.approx([1 / len(drawn)] * len(drawn))
            assert all(columns[i] == column for i in drawn)
            others = [i for i, c in enumerate(columns.tolist()) if c == column and image_index[i] != image]
            if cross_image == 1 and others:
                assert set(drawn) <= set(others)


def draw_many(
    columns: list[int], places: list[int], *, cross_image: float, max_examples: int
) -> torch.Tensor:
    """[4000, N] weights of the first class, for image 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = [
            draw_prompts(
                torch.tensor(columns), torch.tensor(places), images=1, classes=1,
                max_examples=max_examples, cross_image=cross_image,
            )[0, 0]
            for _ in range(2000)
        ]  # fmt: skip
    return torch.stack(draws)


def test_number_and_choice_are_uniform():
    weights = draw_many([0] * 5, [0, 0, 1, 1, 1], cross_image=0.0, max_examples=3)
    counts = (weights > 0).sum(1)
    shares = torch.bincount(counts, minlength=4)[1:] / len(weights)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.05, rtol=0)
    torch.testing.assert_close((weights > 0).float().mean(0), torch.full((5,), 2 / 5), atol=0.05, rtol=0)


def test_cross_image_is_a_probability():
    weights = draw_many([0, 0, 0], [0, 1, 1], cross_image=0.6, max_examples=1)
    # Own instance: only in the 40 % of draws from anywhere, and there one time in three.
    torch.testing.assert_close((weights[:, 0] > 0).float().mean(), torch.tensor(0.4 / 3), atol=0.03, rtol=0)


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
