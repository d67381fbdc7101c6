"""The prompt bank: means, merging, its file, and what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import normalize, one_hot

from unispector.errors import PromptBankError
from unispector.inference.calibration import AlarmBudget, Calibration
from unispector.inference.prompt_bank import OPPOSED, REMEMBERED, PromptBank
from unispector.prior_structures import PromptMemory
from unispector.scores import DEFAULT_SCORE
from unispector.structures import EncodedPrompts

SIZES = (64, 64, 64)
LEVELS = ((3, 256), (1, 258))
"""Cells and channels."""
MODEL = "a" * 64


def bank_of(rows: list[list[float]], names: tuple[str, ...], counts: tuple[int, ...]) -> PromptBank:
    return PromptBank(torch.tensor(rows), names, counts, MODEL, (64,) * len(names))


def remembered(numbers: list[float], images: list[int] | None = None) -> PromptMemory:
    """Of each instance its number, in shapes that tell levels and sides apart.

    Features are unit vectors whose only channel is the number. Each instance lies in an image of its own
    unless `images` says which.
    """
    places = torch.tensor(numbers).long()
    inside = tuple(one_hot(places, width).float()[:, None].expand(-1, cells, -1) for cells, width in LEVELS)
    return PromptMemory(
        inside,
        tuple(-level.repeat(1, 2, 1) for level in inside),
        tuple(places[:, None].expand(-1, cells) / 256 for cells, _ in LEVELS),
        torch.tensor(images if images is not None else range(len(numbers))),
        torch.tensor(numbers)[:, None].repeat(1, 2),
    )


def read_back(level: torch.Tensor) -> torch.Tensor:
    """The numbers [n, m] whose features are the unit vectors [n, m, D] of a level."""
    assert level.abs().sum(-1).eq(1).all()
    return level.abs().argmax(-1)


def with_memory(
    numbers: list[int], labels: list[int], names: tuple[str, ...], images: list[int] | None = None
) -> PromptBank:
    """A bank of instances whose embedding and memory are their number."""
    memory = remembered([float(n) for n in numbers], images)
    encoded = EncodedPrompts(torch.tensor(numbers).float()[:, None], memory)
    return PromptBank.from_instances(encoded, torch.tensor(labels), names, MODEL, (64,) * len(names))


def taken_apart(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """What a bank's file knows and its tensors, as the format without a checksum had them."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | {"format": "unispector prompt bank 5"}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    metadata.pop("checksum", None)
    return metadata, tensors


def numbers_of(bank: PromptBank) -> dict[str, list[int]]:
    """The numbers that a bank remembers of each class; every level and side agrees on them."""
    assert bank.memory is not None
    sides = (*bank.memory.inside, *(-level for level in bank.memory.outside))
    first = read_back(sides[0])[:, 0]
    for level in sides:
        assert level.dtype == torch.float16
        assert (level >= 0).all()
        assert (read_back(level) == first[:, None]).all()
    for plainness, (cells, _) in zip(bank.memory.plainness, LEVELS, strict=True):
        assert plainness.dtype == torch.float16
        assert torch.equal(256 * plainness.float(), first[:, None].float().expand(-1, cells))
    assert torch.equal(bank.memory.sizes, first[:, None].float().expand(-1, 2))
    assert [tuple(level.shape[1:]) for level in sides] == [(3, 256), (1, 258), (6, 256), (2, 258)]
    found: dict[str, list[int]] = {name: [] for name in bank.class_names}
    for number, owner in zip(first.tolist(), bank.owners, strict=True):
        found[bank.class_names[owner]].append(int(number))
    return found


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(-5, 5, width=32)), min_size=3, max_size=30).filter(
        lambda rows: {label for label, _ in rows} == {0, 1, 2}
    )
)
@settings(max_examples=30, deadline=None)
def test_a_class_is_the_mean_of_its_instances(rows: list[tuple[int, float]]) -> None:
    labels = torch.tensor([label for label, _ in rows])
    values = torch.tensor([[value, -value] for _, value in rows])
    bank = PromptBank.from_instances(EncodedPrompts(values, None), labels, ("a", "b", "c"), MODEL, SIZES)
    for index in range(3):
        mine = [value for label, value in rows if label == index]
        assert bank.counts[index] == len(mine)
        mean = sum(mine) / len(mine)
        torch.testing.assert_close(bank.embeddings[index], torch.tensor([mean, -mean]), atol=1e-5, rtol=1e-5)


def test_merging_equals_averaging_all_instances_at_once() -> None:
    instances = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 1, 1, 0, 2, 2, 1])
    first, second = (EncodedPrompts(part, None) for part in (instances[:5], instances[5:]))
    together = PromptBank.from_instances(
        EncodedPrompts(instances, None), labels, ("a", "b", "c"), MODEL, SIZES
    )
    first = PromptBank.from_instances(first, labels[:5], ("a", "b"), MODEL, (64,) * 2)
    second = PromptBank.from_instances(second, torch.tensor([0, 1, 1, 2]), ("a", "c", "b"), MODEL, SIZES)
    merged = first.merge(second).select(("a", "b", "c"))
    assert merged.counts == together.counts
    torch.testing.assert_close(merged.embeddings, together.embeddings)


def test_a_class_keeps_the_size_that_most_of_its_instances_have() -> None:
    first = PromptBank(torch.ones(3, 2), ("a", "b", "c"), (2, 1, 3), MODEL, (96, 64, 64))
    second = PromptBank(torch.ones(3, 2), ("b", "a", "d"), (2, 1, 1), MODEL, (128, 64, 96))
    for merged in (first.merge(second), second.merge(first)):
        assert dict(zip(merged.class_names, merged.image_sizes, strict=True)) == {
            "a": 96,
            "b": 128,
            "c": 64,
            "d": 96,
        }
    assert first.select(["c", "a"]).image_sizes == (64, 96)


def test_banks_of_different_models_do_not_merge() -> None:
    other = PromptBank(torch.ones(1, 2), ("b",), (1,), "b" * 64, (64,))
    with pytest.raises(PromptBankError, match="made by model bbbbbbbbbbbb"):
        bank_of([[1.0, 2.0]], ("a",), (1,)).merge(other)


def test_a_class_without_prompt_is_named() -> None:
    with pytest.raises(PromptBankError, match="class 'hole' has no prompt"):
        PromptBank.from_instances(
            EncodedPrompts(torch.ones(2, 3), None),
            torch.tensor([0, 2]),
            ("crack", "hole", "dent"),
            MODEL,
            (64,) * 3,
        )
    with pytest.raises(PromptBankError, match="class 'dent' has no prompt in the bank; it knows crack, hole"):
        bank_of([[1.0], [2.0]], ("crack", "hole"), (1, 1)).select(["hole", "dent"])


def test_selection_keeps_the_order_asked_for() -> None:
    chosen = bank_of([[1.0], [2.0], [3.0]], ("a", "b", "c"), (4, 5, 6)).select(["c", "a"])
    assert (chosen.class_names, chosen.counts, chosen.embeddings.flatten().tolist()) == (
        ("c", "a"),
        (6, 4),
        [3, 1],
    )


@pytest.mark.parametrize(
    ("rows", "names", "counts", "message"),
    [
        ([[1.0]], ("a", "b"), (1, 1), "one of each per class"),
        ([[float("nan")]], ("a",), (1,), "finite"),
        ([[1.0], [2.0]], ("a", "a"), (1, 1), "class 'a' more than once"),
        ([[1.0]], ("a",), (0,), "class 'a' has no prompt"),
    ],
)
def test_an_impossible_bank_is_refused(rows, names, counts, message):
    with pytest.raises(PromptBankError, match=message):
        bank_of(rows, names, counts)


def test_a_bank_without_classes_is_refused() -> None:
    none = EncodedPrompts(torch.zeros(0, 3), None)
    with pytest.raises(PromptBankError, match="without any class"):
        PromptBank.from_instances(none, torch.zeros(0, dtype=torch.int64), (), MODEL, ())


@given(st.lists(st.integers(0, 2), min_size=3, max_size=120).filter(lambda labels: set(labels) == {0, 1, 2}))
@settings(max_examples=40, deadline=None)
def test_each_class_is_remembered_by_a_few_of_its_images(labels: list[int]) -> None:
    found = numbers_of(with_memory(list(range(len(labels))), labels, ("a", "b", "c")))
    for label, name in enumerate(("a", "b", "c")):
        mine = [number for number, other in enumerate(labels) if other == label]
        kept = found[name]
        assert len(kept) == len(set(kept)) == min(len(mine), REMEMBERED)
        assert set(kept) <= set(mine)
        # Evenly: no longer a stretch without one than there must be.
        places = [mine.index(number) for number in kept] + [len(mine)]
        assert max(b - a for a, b in pairwise(places)) <= -(-len(mine) // len(kept))


def test_a_merged_bank_remembers_both_banks_instances_under_their_class() -> None:
    first = with_memory([1, 2, 3], [0, 1, 0], ("a", "b"))
    second = with_memory([4, 5, 6, 7], [1, 0, 2, 1], ("c", "a", "d"))
    merged = first.merge(second)
    assert numbers_of(merged) == {"a": [1, 3, 4, 7], "b": [2], "c": [5], "d": [6]}
    assert merged.counts == (4, 1, 1, 1)
    many = with_memory(list(range(40)), [0] * 40, ("a",))
    later = with_memory(list(range(100, 140)), [0] * 40, ("a",))
    both = numbers_of(many.merge(later))["a"]
    assert len(both) == REMEMBERED
    assert sum(number < 100 for number in both) == REMEMBERED // 2


def test_marks_on_one_image_are_remembered_as_one() -> None:
    """Ten images of two classes with two marks each, of which the cells are kept half and half."""
    numbers = [float(n) for n in range(40)]
    images = [n // 4 for n in range(40)]
    labels = torch.tensor([n // 2 % 2 for n in range(40)])
    encoded = EncodedPrompts(torch.tensor(numbers)[:, None], remembered(numbers, images))
    bank = PromptBank.from_instances(encoded, labels, ("a", "b"), MODEL, (64, 64))
    assert bank.counts == (20, 20)
    assert bank.owners == (0,) * REMEMBERED + (1,) * REMEMBERED
    memory = bank.memory
    assert memory is not None
    for row, owner in enumerate(bank.owners):
        first = 4 * int(memory.image[row]) + 2 * owner
        assert set(read_back(memory.inside[0])[row].tolist()) == {first, first + 1}
        assert memory.sizes[row].tolist() == [first + 0.5] * 2
    for label in range(2):
        own = memory.image[torch.tensor(bank.owners) == label].tolist()
        assert own == sorted(set(own))


def test_a_bank_is_the_same_whatever_order_its_instances_come_in() -> None:
    numbers, images, labels = [5, 6, 7, 8, 9], [0, 0, 1, 2, 2], [0, 1, 0, 1, 1]
    order = [3, 0, 4, 2, 1]
    first = with_memory(numbers, labels, ("a", "b"), images)
    second = with_memory(
        [numbers[i] for i in order], [labels[i] for i in order], ("a", "b"), [images[i] for i in order]
    )
    assert torch.equal(first.embeddings, second.embeddings)
    assert first.owners == second.owners
    assert first.memory is not None
    assert second.memory is not None
    assert torch.equal(first.memory.sizes, second.memory.sizes)
    assert torch.equal(first.memory.image, second.memory.image)


def test_merged_banks_do_not_take_their_images_for_the_same() -> None:
    bank = with_memory([1, 2], [0, 1], ("a", "b"), [0, 0])
    merged = bank.merge(with_memory([3, 4], [0, 1], ("a", "b"), [0, 1]))
    assert numbers_of(merged) == {"a": [1, 3], "b": [2, 4]}
    assert merged.memory is not None
    places = dict(zip(merged.memory.sizes[:, 0].int().tolist(), merged.memory.image.tolist(), strict=True))
    assert places[1] == places[2]
    assert len({places[1], places[3], places[4]}) == 3


def test_a_selection_remembers_its_own_classes_only() -> None:
    bank = with_memory([1, 2, 3, 4, 5], [0, 1, 2, 1, 0], ("a", "b", "c"))
    assert numbers_of(bank.select(["c", "a"])) == {"c": [3], "a": [1, 5]}
    assert numbers_of(bank.select(["b"])) == {"b": [2, 4]}


def test_a_bank_without_memory_stays_without() -> None:
    plain = bank_of([[1.0], [2.0]], ("a", "b"), (1, 1))
    for each in (plain, plain.select(["b"]), plain.merge(plain)):
        assert (each.memory, each.owners) == (None, ())


@pytest.mark.parametrize(
    ("owners", "message"),
    [
        ((0,), "does not say which"),
        ((0, 1, 1), "does not say"),
        ((0, 0), "not of its classes"),
        ((0, 2), "not of its"),
    ],
)
def test_a_memory_that_does_not_fit_its_classes_is_refused(owners: tuple[int, ...], message: str) -> None:
    with pytest.raises(PromptBankError, match=message):
        PromptBank(
            torch.ones(2, 1), ("a", "b"), (1, 1), MODEL, (64, 64), remembered([1.0, 2.0]).half(), owners
        )


def test_a_file_holds_the_memory_exactly(tmp_path: Path) -> None:
    cells = normalize(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    memory = PromptMemory(
        (cells, cells[:, :1]),
        (-cells, torch.zeros_like(cells[:, 2:])),
        (cells[..., 0], cells[:, :1, 1]),
        torch.tensor([4, 0, 2]),
        cells[:, 0, :2] * 1.001,
    )
    encoded = EncodedPrompts(torch.ones(3, 2), memory)
    bank = PromptBank.from_instances(encoded, torch.tensor([1, 0, 1]), ("a", "b"), MODEL, (64, 64))
    bank.save(tmp_path / "bank.safetensors")
    again = PromptBank.load(tmp_path / "bank.safetensors")
    assert again.owners == bank.owners == (0, 1, 1)
    for left, right in zip(again.memory.tensors, bank.memory.tensors, strict=True):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    # By class, then by image.
    assert again.memory.image.tolist() == [0, 2, 4]
    torch.testing.assert_close(again.memory.inside[0].float(), cells[[1, 2, 0]], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(
        again.memory.plainness[1].float(), cells[[1, 2, 0], :1, 1], atol=2e-3, rtol=1e-3
    )
    assert torch.equal(again.memory.sizes, memory.sizes[[1, 2, 0]])


def test_a_file_holds_all_of_the_bank(tmp_path: Path) -> None:
    bank = bank_of([[0.1, -2.0], [3.5, 1e-8]], ("Kratzer, außen", 'a "quoted" name'), (3, 1))
    bank = replace(bank, image_sizes=(96, 64))
    path = tmp_path / "new" / "bank.safetensors"
    bank.save(path)
    again = PromptBank.load(path)
    assert torch.equal(again.embeddings, bank.embeddings)
    assert (again.class_names, again.counts, again.fingerprint) == (
        bank.class_names,
        bank.counts,
        bank.fingerprint,
    )
    assert again.image_sizes == (96, 64)
    assert [file.name for file in path.parent.iterdir()] == ["bank.safetensors"]


@pytest.mark.parametrize("kept", [0, 1, 7, 20, 100, -1])
def test_a_cut_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "bank.safetensors"
    bank_of([[1.0, 2.0]], ("a",), (1,)).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(PromptBankError, match=r"bank\.safetensors: not a readable prompt bank"):
        PromptBank.load(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptBankError, match="no such prompt bank"):
        PromptBank.load(tmp_path / "absent.safetensors")
    save_file({"embeddings": torch.ones(1, 2)}, tmp_path / "weights.safetensors")
    with pytest.raises(PromptBankError, match="no prompt bank"):
        PromptBank.load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("unispector prompt bank 3", "an older version of UniSpector made; build the bank again"),
        ("unispector prompt bank 99", "a newer version of UniSpector made; update this one"),
        ("unispector model 5", "no prompt bank"),
    ],
)
def test_a_bank_of_another_version_is_refused_in_one_line(tmp_path: Path, version: str, why: str) -> None:
    path = tmp_path / "bank.safetensors"
    metadata = {
        "format": version,
        "class_names": '["a"]',
        "counts": "[1]",
        "fingerprint": MODEL,
        "owners": "[0]",
    }
    old = {"embeddings": torch.ones(1, 2), "inside.0": torch.ones(1, 3, 2), "outside.0": torch.ones(1, 3, 2)}
    save_file(old, path, metadata=metadata)
    with pytest.raises(PromptBankError, match=rf"bank\.safetensors: .*{why}") as caught:
        PromptBank.load(path)
    assert "\n" not in str(caught.value)


def test_a_bank_of_the_format_without_tiles_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    with_memory([1, 2], [0, 1], ("a", "b")).save(path)
    metadata, tensors = taken_apart(path)
    del metadata["tiles"]
    save_file(tensors, path, metadata={**metadata, "format": "unispector prompt bank 4"})
    assert PromptBank.load(path).tiles == (0, 0)
    assert numbers_of(PromptBank.load(path)) == {"a": [1], "b": [2]}


def test_tiles_follow_their_classes(tmp_path: Path) -> None:
    first = replace(bank_of([[1.0], [2.0]], ("a", "b"), (1, 3)), tiles=(448, 0))
    second = replace(bank_of([[1.0], [2.0]], ("b", "c"), (2, 1)), tiles=(640, 896))
    assert first.select(["b", "a"]).tiles == (0, 448)
    for merged in (first.merge(second), second.merge(first)):
        assert dict(zip(merged.class_names, merged.tiles, strict=True)) == {"a": 448, "b": 0, "c": 896}
    second.save(tmp_path / "bank.safetensors")
    assert PromptBank.load(tmp_path / "bank.safetensors").tiles == (640, 896)
    assert (second.tiled(0).tiles, second.tiled(64).tiles) == ((0, 0), (64, 64))


@pytest.mark.parametrize("tiles", [(448,), (448, 0, 0), (448, 63), (448, -1)])
def test_tiles_that_cannot_be_are_refused(tiles: tuple[int, ...]) -> None:
    with pytest.raises(PromptBankError, match="a side per class, 64 or more, or 0 for the whole image"):
        replace(bank_of([[1.0], [2.0]], ("a", "b"), (1, 1)), tiles=tiles)


def test_a_bank_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    with_memory([1, 2], [0, 1], ("a", "b")).save(path)
    metadata, tensors = taken_apart(path)
    for name in ("embeddings", "inside.0", "outside.1", "plainness.0", "image", "sizes"):
        save_file({key: tensor for key, tensor in tensors.items() if key != name}, path, metadata=metadata)
        with pytest.raises(PromptBankError):
            PromptBank.load(path)
    save_file(tensors, path, metadata=metadata)
    assert numbers_of(PromptBank.load(path)) == {"a": [1], "b": [2]}


@pytest.mark.parametrize("name", ["inside.1", "outside.0", "plainness.0", "image", "sizes"])
@pytest.mark.parametrize("side", [0, -1])
def test_a_bank_whose_tensors_are_not_of_one_shape_is_refused(tmp_path: Path, name: str, side: int) -> None:
    path = tmp_path / "bank.safetensors"
    with_memory([1, 2], [0, 1], ("a", "b")).save(path)
    metadata, tensors = taken_apart(path)
    tensors[name] = torch.cat((tensors[name], tensors[name]), dim=side)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(
        PromptBankError, match=r"bank\.safetensors: .*(of one shape|not say|no unit vectors|sides)"
    ) as caught:
        PromptBank.load(path)
    assert "\n" not in str(caught.value)


def test_a_failed_save_leaves_the_old_bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bank.safetensors"
    bank_of([[1.0]], ("old",), (1,)).save(path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        bank_of([[2.0]], ("new",), (1,)).save(path)
    assert PromptBank.load(path).class_names == ("old",)
    assert [file.name for file in tmp_path.iterdir()] == ["bank.safetensors"]


@pytest.mark.parametrize("sizes", ['["x", 96]', "[Infinity, 96]", "[null, 96]", "7"])
def test_sizes_that_are_no_numbers_are_refused(tmp_path: Path, sizes: str) -> None:
    path = tmp_path / "bank.safetensors"
    bank_of([[1.0, 2.0], [0.0, 1.0]], ("a", "b"), (1, 1)).save(path)
    metadata, tensors = taken_apart(path)
    save_file(tensors, path, metadata={**metadata, "image_sizes": sizes})
    with pytest.raises(PromptBankError, match=r"bank\.safetensors: not a readable prompt bank"):
        PromptBank.load(path)


# Negatives


def cells(*numbers: int) -> tuple[torch.Tensor, ...]:
    """A mark's features for each number (exact in float16)."""
    return remembered([float(number) for number in numbers]).inside


def opposed(numbers: list[int], owners: list[int]) -> PromptBank:
    """A bank of classes a and b with negatives whose features are their number."""
    return with_memory([1, 2], [0, 1], ("a", "b")).opposed_by(cells(*numbers), owners)


def negatives_of(bank: PromptBank) -> dict[str, list[int]]:
    """The numbers of a bank's negatives, by the class that they are not."""
    found: dict[str, list[int]] = {name: [] for name in bank.class_names}
    for place, owner in enumerate(bank.negative_owners):
        (number,) = {int(cell) for level in bank.negatives for cell in read_back(level)[place]}
        found[bank.class_names[owner]].append(number)
    assert {level.dtype for level in bank.negatives} == {torch.float16}
    assert {len(level) for level in bank.negatives} == {len(bank.negative_owners)}
    return found


def test_of_a_classs_negatives_the_last_are_kept() -> None:
    assert negatives_of(opposed([5, 6, 7], [1, 0, 1])) == {"a": [6], "b": [5, 7]}
    many = opposed([*range(40)], [0] * 40).opposed_by(cells(50, 51), [0, 1])
    assert OPPOSED == 32
    assert negatives_of(many) == {"a": [*range(9, 40), 50], "b": [51]}


def test_negatives_go_with_their_class_into_a_selection_a_merger_and_a_file(tmp_path: Path) -> None:
    bank = opposed([5, 6, 7], [1, 0, 1])
    assert negatives_of(bank.select(["b"])) == {"b": [5, 7]}
    assert negatives_of(bank.select(["b", "a"])) == {"b": [5, 7], "a": [6]}
    only_a = opposed([6], [0])
    assert only_a.select(["b"]).negatives == ()
    other = with_memory([8], [0], ("b",)).opposed_by(cells(9), [0])
    assert negatives_of(bank.merge(other)) == {"a": [6], "b": [5, 7, 9]}
    assert negatives_of(other.merge(bank)) == {"b": [9, 5, 7], "a": [6]}
    bank.save(tmp_path / "bank.safetensors")
    loaded = PromptBank.load(tmp_path / "bank.safetensors")
    assert loaded.negative_owners == bank.negative_owners
    assert all(map(torch.equal, loaded.negatives, bank.negatives))
    assert numbers_of(loaded) == numbers_of(bank)


def test_a_bank_of_the_format_before_negatives_is_read(tmp_path: Path) -> None:
    bank, path = with_memory([1, 2], [0, 1], ("a", "b")), tmp_path / "bank.safetensors"
    bank.save(path)
    metadata, tensors = taken_apart(path)
    metadata["format"] = "unispector prompt bank 4"
    del metadata["negative_owners"]
    save_file(tensors, path, metadata=metadata)
    loaded = PromptBank.load(path)
    assert loaded.negatives == ()
    assert loaded.negative_owners == ()
    assert numbers_of(loaded) == numbers_of(bank)


@pytest.mark.parametrize(
    "broken",
    [
        lambda bank: replace(bank, negative_owners=(0,)),
        lambda bank: replace(bank, negatives=()),
        lambda bank: replace(bank, negative_owners=(0, 2)),
        lambda bank: replace(bank, negatives=bank.negatives[:1]),
        lambda bank: replace(bank, negatives=tuple(level[[0, 0, 1]] for level in bank.negatives)),
        lambda bank: replace(bank, negatives=tuple(level[:, :1] for level in bank.negatives)),
        lambda bank: replace(bank, negatives=tuple(level[..., 0] for level in bank.negatives)),
        lambda bank: replace(bank, negatives=tuple(level.long() for level in bank.negatives)),
        lambda bank: replace(bank, negatives=tuple(level / 0 for level in bank.negatives)),
        lambda bank: replace(bank, memory=None, owners=()),
    ],
)
def test_negatives_that_do_not_fit_are_refused(broken: Callable[[PromptBank], PromptBank]) -> None:
    with pytest.raises(PromptBankError, match="negatives"):
        broken(opposed([5, 6], [1, 0]))


# Calibrations

MEANT = Calibration(2.0, -0.5, 12, 30, 0.4, AlarmBudget(0.1, 0.95, 40, 0, 0.001, 0.07), 12, 9)


def test_a_calibration_goes_with_its_class_as_long_as_the_class_is_the_same(tmp_path: Path) -> None:
    bank = opposed([5], [1]).calibrated({"a": MEANT})
    assert bank.thresholds == (0.4, DEFAULT_SCORE)
    bank.save(tmp_path / "bank.safetensors")
    assert PromptBank.load(tmp_path / "bank.safetensors").calibrations == (MEANT, Calibration())
    assert bank.select(["b", "a"]).thresholds == (DEFAULT_SCORE, 0.4)
    assert bank.opposed_by(cells(6), [1]).thresholds == (0.4, DEFAULT_SCORE)
    assert bank.opposed_by(cells(6), [0]).thresholds == (DEFAULT_SCORE, DEFAULT_SCORE)
    other = with_memory([8], [0], ("b",)).calibrated({"b": MEANT})
    assert other.merge(bank).thresholds == (DEFAULT_SCORE, 0.4)
    assert bank.merge(bank).thresholds == (DEFAULT_SCORE, DEFAULT_SCORE)


@pytest.mark.parametrize("text", ["[{}]", '["a"]', "nonsense", '[{"slope": NaN}]'])
def test_a_damaged_calibration_is_refused_not_left_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bank.safetensors"
    with_memory([1, 2], [0, 1], ("a", "b")).save(path)
    metadata, tensors = taken_apart(path)
    save_file(tensors, path, metadata={**metadata, "calibrations": text})
    with pytest.raises(PromptBankError, match="not a readable prompt bank"):
        PromptBank.load(path)


# Damage

TENSORS = ("embeddings", "inside.0", "outside.1", "plainness.0", "image", "sizes", "negatives.1")
KINDS = (
    *(torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.complex64),
    *(torch.int8, torch.int32, torch.bool),
)
FEATURES = ("inside.0", "inside.1", "outside.0", "negatives.0")


def broken_file(tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A bank's file in which something is wrong that no checksum tells."""
    path = tmp_path / "bank.safetensors"
    opposed([5], [1]).save(path)
    metadata, tensors = taken_apart(path)
    save_file(tensors, path, metadata=metadata)
    PromptBank.load(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)
    return path


def refused(path: Path) -> str:
    with pytest.raises(PromptBankError) as caught:
        PromptBank.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("build it again")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize(
    "kind",
    [
        torch.float64,
        torch.bfloat16,
        torch.int8,
        torch.int32,
        torch.bool,
        torch.complex64,
        torch.float8_e4m3fn,
    ],
)
def test_a_tensor_of_another_kind_is_refused_by_name(tmp_path: Path, name: str, kind: torch.dtype) -> None:
    path = broken_file(tmp_path, lambda tensors: tensors.update({name: tensors[name].to(kind)}))
    if kind not in (torch.complex64, torch.float8_e4m3fn):  # which some versions of safetensors do not read
        assert f"{name} are {str(kind).removeprefix('torch.')} of" in refused(path)
    else:
        refused(path)


@pytest.mark.parametrize("name", [name for name in TENSORS if name != "image"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_not_finite_is_refused_by_name(tmp_path: Path, name: str, value: float) -> None:
    path = broken_file(tmp_path, lambda tensors: tensors[name].view(-1)[-1:].fill_(value))
    assert f"{name} are no finite numbers" in refused(path)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("change", [lambda tensor: tensor[0], lambda tensor: tensor[None], torch.flatten])
def test_a_tensor_of_another_rank_is_refused(tmp_path: Path, name: str, change: Callable) -> None:
    if change is torch.flatten and name == "image":
        return  # it is flat
    path = broken_file(tmp_path, lambda tensors: tensors.update({name: change(tensors[name]).clone()}))
    refused(path)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("sizes", 1e30, "sizes are no logarithms of shares"),
        ("sizes", -1e30, "sizes are no logarithms of shares"),
        ("embeddings", 0.0, "embeddings are none that a model makes"),
        ("embeddings", 1e30, "embeddings are none that a model makes"),
    ],
)
def test_values_that_no_model_makes_are_refused(tmp_path: Path, name: str, value: float, told: str) -> None:
    path = broken_file(tmp_path, lambda tensors: tensors[name][0].fill_(value))
    assert told in refused(path).replace("build it again", "")


@pytest.mark.parametrize("name", FEATURES)
def test_features_that_are_no_unit_vectors_are_refused(tmp_path: Path, name: str) -> None:
    path = broken_file(tmp_path, lambda tensors: tensors[name][0, 0].mul_(1.5))
    assert f"{name} are no unit vectors" in refused(path)


def test_a_mark_without_features_is_refused_and_one_without_surroundings_is_not(tmp_path: Path) -> None:
    assert "inside.0" in refused(broken_file(tmp_path, lambda tensors: tensors["inside.0"][1].zero_()))
    path = broken_file(tmp_path, lambda tensors: tensors["outside.0"][1].zero_())
    assert len(PromptBank.load(path)) == 2
    assert "plainness.1" in refused(broken_file(tmp_path, lambda t: t["plainness.1"][0].fill_(1.5)))


@pytest.mark.parametrize("name", ["inside.0", "outside.1", "plainness.0", "inside.2", "other"])
def test_a_level_too_many_or_too_few_is_refused(tmp_path: Path, name: str) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        if tensors.pop(name, None) is None:
            tensors[name] = tensors["inside.1"].clone()

    refused_or_named = broken_file(tmp_path, change)
    with pytest.raises(PromptBankError, match=r"bank\.safetensors: ") as caught:
        PromptBank.load(refused_or_named)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("class_names", '"ab"'),
        ("class_names", '["a", 7]'),
        ("class_names", '["a", "b\\n"]'),
        ("class_names", '["a", "\\ud800"]'),
        ("class_names", "[" * 100_000),
        ("counts", "[1.5, 1]"),
        ("counts", '["1", 1]'),
        ("counts", "[true, 1]"),
        ("counts", "[1, -3]"),
        ("owners", "[0, 7]"),
        ("bit_depth", "64"),
        ("bit_depth", "x"),
    ],
)
def test_what_a_bank_knows_is_checked(tmp_path: Path, key: str, text: str) -> None:
    path = tmp_path / "bank.safetensors"
    opposed([5], [1]).save(path)
    metadata, tensors = taken_apart(path)
    save_file(tensors, path, metadata={**metadata, key: text})
    with pytest.raises(PromptBankError, match=r"bank\.safetensors: ") as caught:
        PromptBank.load(path)
    assert str(caught.value).isprintable()


def same(first: PromptBank, second: PromptBank) -> bool:
    assert first.memory is not None
    assert second.memory is not None
    tensors = ((bank.embeddings, *bank.memory.tensors, *bank.negatives) for bank in (first, second))
    known = [
        {
            name: value
            for name, value in vars(bank).items()
            if name not in ("embeddings", "memory", "negatives")
        }
        for bank in (first, second)
    ]
    return known[0] == known[1] and all(map(torch.equal, *tensors))


def test_no_flipped_byte_of_a_bank_is_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    bank = opposed([5], [1]).calibrated({"a": MEANT})
    bank.save(path)
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    # Every byte of the header, which says what all others are, and some of the rest.
    for place in [*range(header), *draw.integers(header, len(whole), 300).tolist()]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            found = PromptBank.load(path)
        except PromptBankError:
            continue
        assert same(found, bank), f"byte {place}"
        assert place < header


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_changed_bytes_of_a_bank_are_taken_for_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("bank") / "bank.safetensors"
    bank = opposed([5], [1])
    bank.save(path)
    changed = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(changed)
    try:
        found = PromptBank.load(path)
    except PromptBankError:
        return
    assert same(found, bank)


def test_banks_of_other_widths_do_not_merge() -> None:
    wide = bank_of([[1.0, 2.0]], ("b",), (1,))
    with pytest.raises(PromptBankError, match="other shapes"):
        bank_of([[1.0]], ("a",), (1,)).merge(wide)
    with pytest.raises(PromptBankError, match="other shapes"):
        with_memory([1], [0], ("a",)).merge(bank_of([[1.0]], ("b",), (1,)))
