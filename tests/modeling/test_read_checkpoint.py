"""Foreign checkpoint files: tensors are found, code is not run."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from unispector.errors import CheckpointError
from unispector.modeling.official_weights import read_checkpoint


def test_reading_takes_tensors_wherever_they_usually_are(tmp_path: Path):
    tensors = {"a": torch.rand(2)}
    for index, content in enumerate([tensors, {"model": tensors, "iteration": 3}, {"state_dict": tensors}]):
        torch.save(content, tmp_path / f"{index}.pth")
        assert torch.equal(read_checkpoint(tmp_path / f"{index}.pth")["a"], tensors["a"])


class Object:
    """What a training script may have put beside its weights."""


def test_reading_runs_no_code_and_says_what_is_wrong(tmp_path: Path):
    file = tmp_path / "file.pkl"

    def refused(match: str) -> None:
        with pytest.raises(CheckpointError, match=rf"file\.pkl: .*{match}") as caught:
            read_checkpoint(file)
        assert "\n" not in str(caught.value)

    refused("no such file")
    torch.save({"model": {"a": torch.rand(2)}, "args": Object()}, file)
    refused("only running its code")
    file.write_bytes(pickle.dumps({"model": {"a": np.zeros(2)}}))
    refused("only running its code")
    file.write_bytes(b"")
    refused("")
    torch.save({"a": torch.rand(2), "b": 3}, file)
    refused("b is no tensor")
    torch.save([torch.rand(2)], file)
    refused("no tensors by name")
    torch.save({"a": torch.rand(200)}, file)
    file.write_bytes(file.read_bytes()[:300])
    refused("")
