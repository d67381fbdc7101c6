"""Embeddings of single instances, and the banks that are means of some of them."""

import pytest
import torch

from unispector.errors import PromptBankError
from unispector.inference.instance_embeddings import InstanceEmbeddings
from unispector.prior_structures import PromptMemory
from unispector.structures import EncodedPrompts

VECTORS = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 7.0], [-1.0, 4.0]])


def remembered(count: int) -> PromptMemory:
    """Of each instance, nothing but its number; each lies in an image of its own."""
    number = torch.arange(count).float()
    cells, plainness = torch.eye(count)[:, None], number[:, None] / 256
    return PromptMemory(
        (cells, cells),
        (-cells, -cells),
        (plainness, plainness),
        torch.arange(count),
        number[:, None].expand(-1, 2),
    )


@pytest.fixture
def embeddings() -> InstanceEmbeddings:
    """Two cracks (ids 7 and 9), a hole (3) and, between them in the file, a third crack (1)."""
    encoded = EncodedPrompts(VECTORS, remembered(4))
    return InstanceEmbeddings(
        encoded, torch.tensor([0, 1, 0, 0]), (7, 3, 1, 9), ("crack", "hole"), "f" * 64, (64, 96)
    )


def test_a_bank_is_the_mean_of_each_classs_instances(embeddings: InstanceEmbeddings) -> None:
    bank = embeddings.bank()
    torch.testing.assert_close(bank.embeddings, torch.tensor([[5 / 3, 11 / 3], [3.0, 2.0]]))
    assert (bank.class_names, bank.counts, bank.fingerprint) == (("crack", "hole"), (3, 1), "f" * 64)
    assert bank.image_sizes == (64, 96)
    places = bank.memory.inside[0].argmax(-1).flatten().tolist()
    assert dict(zip(places, bank.owners, strict=True)) == {0: 0, 1: 1, 2: 0, 3: 0}


@pytest.mark.parametrize("ids", [{9, 3, 7}, [9, 7, 3, 7], frozenset({3, 7, 9, 500})])
def test_some_keep_their_order_and_ids(embeddings: InstanceEmbeddings, ids: frozenset[int]) -> None:
    some = embeddings.only(ids)
    assert some.instance_ids == (7, 3, 9)
    assert torch.equal(some.encoded.embeddings, VECTORS[[0, 1, 3]])
    assert some.encoded.memory.inside[1].argmax(-1).flatten().tolist() == [0, 1, 3]
    assert some.encoded.memory.outside[0].argmin(-1).flatten().tolist() == [0, 1, 3]
    assert some.encoded.memory.image.tolist() == [0, 1, 3]
    assert some.encoded.memory.sizes.tolist() == [[0, 0], [1, 1], [3, 3]]
    assert some.labels.tolist() == [0, 1, 0]
    torch.testing.assert_close(some.bank().embeddings, torch.tensor([[0.0, 2.0], [3.0, 2.0]]))
    assert some.only([7, 3]).bank().counts == (1, 1)
    assert embeddings.instance_ids == (7, 3, 1, 9)


def test_a_class_without_any_of_them_is_named(embeddings: InstanceEmbeddings) -> None:
    with pytest.raises(PromptBankError, match="class 'hole' has no prompt"):
        embeddings.only([7, 9]).bank()
    nothing = embeddings.only([])
    assert nothing.encoded.embeddings.shape == (0, 2)
    with pytest.raises(PromptBankError, match="class 'crack' has no prompt"):
        nothing.bank()
