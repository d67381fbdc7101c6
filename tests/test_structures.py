"""Memories of marks, put together by image and joined, and the small things that batches are made of."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.modeling.unispector import group_members
from unispector.prior_structures import Candidates, PriorPrompts, PromptMemory
from unispector.structures import ClassPrompts, EncodedPrompts, padded_side

INSIDE, OUTSIDE = (4, 3), (5, 2)  # cells of each level


def memory_of(images: list[int], start: float = 0.0) -> PromptMemory:
    """Of every mark each cell is told by the mark's number and the cell's; surroundings by the image's."""
    count = len(images)
    number = start + torch.arange(count).float()
    inside = tuple(
        torch.stack((number[:, None].expand(-1, cells), torch.arange(cells).expand(count, -1)), dim=2)
        for cells in INSIDE
    )
    image = torch.tensor(images, dtype=torch.int64)
    outside = tuple(image[:, None, None].float().expand(-1, cells, 2).clone() for cells in OUTSIDE)
    plainness = tuple(level[..., 0] * 10 + level[..., 1] for level in inside)
    return PromptMemory(inside, outside, plainness, image, torch.stack((number, -number), dim=1))


marks = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12)


@given(marks)
@settings(max_examples=60)
def test_marks_of_one_class_on_one_image_become_one(drawn: list[tuple[int, int]]) -> None:
    images, labels = [image for image, _ in drawn], torch.tensor([label for _, label in drawn]).long()
    memory = memory_of(images)
    together, owner = memory.by_image(labels)
    pairs = sorted(set(drawn))
    assert len(together) == len(pairs)
    assert [pairs[number] for number in owner.tolist()] == drawn
    assert together.image.tolist() == [image for image, _ in pairs]
    for row, pair in enumerate(pairs):
        own = [number for number, other in enumerate(drawn) if other == pair]
        for level, cells in enumerate(INSIDE):
            # All cells of the pair's marks one after the other, and evenly of them as many as one mark has.
            everything = [(float(mark), float(cell)) for mark in own for cell in range(cells)]
            kept = [everything[int((place + 0.5) * len(own))] for place in range(cells)]
            assert [tuple(cell) for cell in together.inside[level][row].tolist()] == kept
            assert together.plainness[level][row].tolist() == [10 * mark + cell for mark, cell in kept]
            assert (together.outside[level][row] == pair[0]).all()
            assert together.outside[level].shape[1] == OUTSIDE[level]
        mean = sum(own) / len(own)
        assert together.sizes[row].tolist() == pytest.approx([mean, -mean], abs=1e-5)


def test_every_mark_leaves_some_cells_of_its_own_where_there_is_room() -> None:
    together, _ = memory_of([7, 7, 7, 7]).by_image(torch.zeros(4).long())
    assert set(together.inside[0][0, :, 0].tolist()) == {0, 1, 2, 3}


def test_a_mark_alone_stays_as_it_is() -> None:
    memory = memory_of([3, 1, 2])
    together, owner = memory.by_image(torch.tensor([0, 0, 1]))
    assert owner.tolist() == [2, 0, 1]
    for left, right in zip(together.tensors, memory.rows(torch.tensor([1, 2, 0])).tensors, strict=True):
        assert torch.equal(left, right)


@given(st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=4))
@settings(max_examples=40)
def test_joined_memories_never_share_an_image(drawn: list[list[int]]) -> None:
    parts = [memory_of(images, start=100.0 * number) for number, images in enumerate(drawn)]
    joined = PromptMemory.joined(parts)
    assert len(joined) == sum(map(len, drawn))
    origin = [(number, image) for number, images in enumerate(drawn) for image in images]
    numbers = joined.image.tolist()
    for first, one in zip(origin, numbers, strict=True):
        for second, other in zip(origin, numbers, strict=True):
            assert (first == second) == (one == other)
    for index in range(2):
        for side in ("inside", "outside", "plainness"):
            expected = torch.cat([getattr(part, side)[index] for part in parts])
            assert torch.equal(getattr(joined, side)[index], expected)
    assert torch.equal(joined.sizes, torch.cat([part.sizes for part in parts]))


def test_rows_take_all_that_is_known_of_a_mark() -> None:
    memory, index = memory_of([5, 6, 7, 8]), torch.tensor([3, 0, 3])
    some = EncodedPrompts(torch.arange(8.0).view(4, 2), memory).rows(index)
    assert some.embeddings[:, 0].tolist() == [6, 0, 6]
    assert some.memory is not None
    assert some.memory.image.tolist() == [8, 5, 8]
    for left, right in zip(some.memory.tensors, memory.tensors, strict=True):
        assert torch.equal(left, right[index])
    assert len(memory.tensors) == 3 * 2 + 2
    assert EncodedPrompts(torch.ones(4, 2), None).rows(index).memory is None


def test_half_precision_is_of_features_only() -> None:
    short = memory_of([1, 2]).half()
    assert {t.dtype for t in (*short.inside, *short.outside, *short.plainness)} == {torch.float16}
    assert (short.image.dtype, short.sizes.dtype) == (torch.int64, torch.float32)
    for left, right in zip(short.float().tensors, memory_of([1, 2]).tensors, strict=True):
        assert torch.equal(left, right)
        assert left.dtype == right.dtype


@given(
    owner=st.lists(st.integers(0, 3), max_size=8),
    seed=st.integers(0, 1000),
    rows=st.integers(1, 2),
    classes=st.integers(1, 3),
)
@settings(max_examples=40)
def test_a_group_is_a_member_if_any_of_it_is(owner: list[int], seed: int, rows: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    members = torch.rand(rows, classes, len(owner), generator=generator) < 0.4
    found = group_members(members, torch.tensor(owner).long(), 4)
    assert found.dtype == torch.bool
    assert found.shape == (rows, classes, 4)
    for row in range(rows):
        for column in range(classes):
            expected = {own for own, is_in in zip(owner, members[row, column].tolist(), strict=True) if is_in}
            assert set(found[row, column].nonzero().flatten().tolist()) == expected


def test_joined_prompts_keep_to_their_own_memory_and_sizes() -> None:
    first = PriorPrompts(
        memory_of([0, 1]),
        torch.tensor([[[True, False], [True, True]]]),
        torch.rand(1, 2, 2, 2),
    )
    second = PriorPrompts(
        memory_of([0, 0, 4], start=50),
        torch.tensor(
            [[[True, True, False], [False, False, True]], [[True, False, True], [True, True, True]]]
        ),
        torch.rand(2, 2, 2, 2),
    )
    joined = PriorPrompts.joined((first, second))
    assert joined.members.shape == (3, 2, 5)
    assert not joined.members[0, :, 2:].any()
    assert not joined.members[1:, :, :2].any()
    assert torch.equal(joined.members[0, :, :2], first.members[0])
    assert torch.equal(joined.members[1:, :, 2:], second.members)
    assert torch.equal(joined.typical, torch.cat((first.typical, second.typical)))
    for row, column in ((r, c) for r in range(3) for c in range(2)):
        chosen = joined.members[row, column].nonzero().flatten()
        expected = joined.memory.sizes[chosen].mean(0)
        torch.testing.assert_close(joined.sizes[row, column], expected)


def test_repeated_prompts_are_all_sets_one_after_the_other() -> None:
    prior = PriorPrompts(memory_of([0, 1, 2]), torch.rand(2, 2, 3) < 0.5, torch.arange(16.0).view(2, 2, 2, 2))
    twice = ClassPrompts(torch.arange(8.0).view(2, 2, 2), prior).repeat(2)
    assert twice.prior is not None
    assert twice.prior.memory is prior.memory
    for row in range(4):
        assert torch.equal(twice.prior.members[row], prior.members[row % 2])
        assert torch.equal(twice.prior.typical[row], prior.typical[row % 2])
        assert torch.equal(twice.embeddings[row], torch.arange(8.0).view(2, 2, 2)[row % 2])


def test_joined_candidates_are_all_in_order() -> None:
    def some(count: int, start: int) -> Candidates:
        numbers = start + torch.arange(count)
        return Candidates(
            numbers,
            numbers + 1,
            numbers[:, None].float().expand(-1, 4),
            numbers.float(),
            numbers[:, None, None].float().expand(-1, 3, 3),
            numbers[:, None].float().expand(-1, 2),
        )

    joined = Candidates.joined((some(2, 0), some(0, 0), some(3, 10)))
    assert len(joined) == 5
    assert joined.map.tolist() == [0, 1, 10, 11, 12]
    assert joined.canvas.tolist() == [1, 2, 11, 12, 13]
    for field in fields(Candidates)[2:]:
        first = getattr(joined, field.name).reshape(5, -1)[:, 0]
        assert first.tolist() == [0, 1, 10, 11, 12]


def test_a_padded_side_is_the_next_multiple_of_32():
    assert [padded_side(side) for side in (64, 65, 72, 96)] == [64, 96, 96, 96]
