"""The prompt bank: means, merging, its file, and what it refuses."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from unispector.errors import PromptBankError
from unispector.inference.prompt_bank import PromptBank

MODEL = "a" * 64


def bank_of(rows: list[list[float]], names: tuple[str, ...], counts: tuple[int, ...]) -> PromptBank:
    return PromptBank(torch.tensor(rows), names, counts, MODEL)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(-5, 5, width=32)), min_size=3, max_size=30).filter(
        lambda rows: {label for label, _ in rows} == {0, 1, 2}
    )
)
@settings(max_examples=30, deadline=None)
def test_a_class_is_the_mean_of_its_instances(rows: list[tuple[int, float]]) -> None:
    labels = torch.tensor([label for label, _ in rows])
    values = torch.tensor([[value, -value] for _, value in rows])
    bank = PromptBank.from_instances(values, labels, ("a", "b", "c"), MODEL)
    for index in range(3):
        mine = [value for label, value in rows if label == index]
        assert bank.counts[index] == len(mine)
        mean = sum(mine) / len(mine)
        torch.testing.assert_close(bank.embeddings[index], torch.tensor([mean, -mean]), atol=1e-5, rtol=1e-5)


def test_merging_equals_averaging_all_instances_at_once() -> None:
    instances = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 1, 1, 0, 2, 2, 1])
    together = PromptBank.from_instances(instances, labels, ("a", "b", "c"), MODEL)
    first = PromptBank.from_instances(instances[:5], labels[:5], ("a", "b"), MODEL)
    second = PromptBank.from_instances(instances[5:], torch.tensor([0, 1, 1, 2]), ("a", "c", "b"), MODEL)
    merged = first.merge(second).select(("a", "b", "c"))
    assert merged.counts == together.counts
    torch.testing.assert_close(merged.embeddings, together.embeddings)


def test_banks_of_different_models_do_not_merge() -> None:
    other = PromptBank(torch.ones(1, 2), ("b",), (1,), "b" * 64)
    with pytest.raises(PromptBankError, match="made by model bbbbbbbbbbbb"):
        bank_of([[1.0, 2.0]], ("a",), (1,)).merge(other)


def test_a_class_without_prompt_is_named() -> None:
    with pytest.raises(PromptBankError, match="class 'hole' has no prompt"):
        PromptBank.from_instances(torch.ones(2, 3), torch.tensor([0, 2]), ("crack", "hole", "dent"), MODEL)
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
def test_an_impossible_bank_is_refused(
    rows: list[list[float]], names: tuple[str, ...], counts: tuple[int, ...], message: str
) -> None:
    with pytest.raises(PromptBankError, match=message):
        bank_of(rows, names, counts)


def test_a_bank_without_classes_is_refused() -> None:
    with pytest.raises(PromptBankError, match="without any class"):
        PromptBank.from_instances(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), (), MODEL)


def test_a_file_holds_all_of_the_bank(tmp_path: Path) -> None:
    bank = bank_of([[0.1, -2.0], [3.5, 1e-8]], ("Kratzer, außen", 'a "quoted" name'), (3, 1))
    path = tmp_path / "new" / "bank.safetensors"
    bank.save(path)
    again = PromptBank.load(path)
    assert torch.equal(again.embeddings, bank.embeddings)
    assert (again.class_names, again.counts, again.fingerprint) == (
        bank.class_names,
        bank.counts,
        bank.fingerprint,
    )
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
    with pytest.raises(PromptBankError, match="no prompt bank of this version"):
        PromptBank.load(tmp_path / "weights.safetensors")


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
