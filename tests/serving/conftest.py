"""Images, a model, a bank, and services with them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from live_service import Live, encoded, follow, serving
from unispector.inference.detector import Prompt, UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.prompts.store import PromptStore
from unispector.serving.prompts import FixedPrompts, StoredPrompts

BOXES = {"spot": [[5, 5, 20, 10], [40, 30, 10, 10]], "line": [[8, 8, 30, 20]]}


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    sizes = ((50, 70), (64, 64), (90, 60), (44, 120), (64, 80), (70, 50))
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


@pytest.fixture(scope="session")
def files(pictures: list[np.ndarray]) -> list[bytes]:
    return [encoded(picture) for picture in pictures]


@pytest.fixture(scope="session")
def detector(tiny_model: Path) -> UniSpector:
    return UniSpector.load(tiny_model)


@pytest.fixture(scope="session")
def bank(detector: UniSpector, pictures: list[np.ndarray]) -> PromptBank:
    return detector.encode([Prompt(pictures[0], boxes, label=label) for label, boxes in BOXES.items()])


@pytest.fixture(scope="session")
def bank_file(bank: PromptBank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bank") / "bank.safetensors"
    bank.save(file)
    return file


@pytest.fixture(scope="module")
def fixed(tiny_model: Path, bank_file: Path) -> Iterator[Live]:
    """A service with a model and a bank that never change."""
    with serving(follow(tiny_model), FixedPrompts(bank_file)) as live:
        yield live


@pytest.fixture
def growing(tiny_model: Path, tmp_path: Path) -> Iterator[Live]:
    """A service with an empty prompt store at `tmp_path / "prompts"`."""
    prompts = StoredPrompts(PromptStore(tmp_path / "prompts"))
    with serving(follow(tiny_model), prompts, ready=False) as live:
        live.wait_for(lambda state: state["model"] is not None)
        yield live
