"""What `--bank` names: a file or the folder of a store."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unispector.errors import PromptBankError
from unispector.inference.detector import Prompt, UniSpector
from unispector.prompts.bank import find_bank, is_bank_file
from unispector.prompts.store import MarkedImage, PromptStore

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> UniSpector:
    return UniSpector.load(tiny_model, "cpu")


def test_a_file_and_a_store_of_the_same_prompts_are_the_same(detector: UniSpector, tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    store = PromptStore(tmp_path / "prompts")
    data = (tmp_path / "a.png").read_bytes()
    store.add("crack", [MarkedImage(data, "a.png", ((5.0, 5.0, 20.0, 10.0),))], "ann", "", {})
    bank = detector.encode(Prompt(PIXELS, [(5, 5, 20, 10)], label="crack"))
    bank.save(tmp_path / "bank.any")
    for place in (tmp_path / "bank.any", tmp_path / "prompts"):
        found = find_bank(place, detector)
        assert found.class_names == ("crack",)
        torch.testing.assert_close(found.embeddings, bank.embeddings)


def test_what_is_no_bank_is_told(detector: UniSpector, other_tiny_model: Path, tmp_path: Path) -> None:
    def refused(place: Path) -> str:
        with pytest.raises(PromptBankError) as caught:
            find_bank(place, detector)
        return str(caught.value)

    assert "no such prompt bank" in refused(tmp_path / "none.safetensors")
    assert "no such prompt bank" in refused(tmp_path / "none")
    assert "no class in this prompt store; `unispector prompts enroll`" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("no bank")
    assert "notes.txt: not a readable prompt bank" in refused(tmp_path / "notes.txt")
    other = UniSpector.load(other_tiny_model, "cpu").encode(Prompt(PIXELS, [(5, 5, 20, 10)]))
    other.save(tmp_path / "other")
    told = refused(tmp_path / "other")
    assert told.startswith(f"{tmp_path}/other: the prompt bank was made by model")
    assert "build the bank again with this model" in told


def test_a_name_that_is_not_there_is_a_store_unless_it_ends_as_a_bank(tmp_path: Path) -> None:
    assert is_bank_file(tmp_path / "none.safetensors")
    assert not is_bank_file(tmp_path / "none")
    (tmp_path / "x.safetensors").mkdir()
    assert not is_bank_file(tmp_path / "x.safetensors")
