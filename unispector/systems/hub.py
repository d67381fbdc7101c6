"""Weights that a user names: a folder, a name in the hub's local cache, or a file that a system wrote.

Nothing is fetched, and nothing pickled is read.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unispector.errors import CheckpointError, in_one_line


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint, without a network.

    Args:
        name: a folder, or `owner/name` of the hub, whose files were fetched before.

    Raises:
        CheckpointError: there is neither, or it has no `config.json` or no weights as safetensors.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError) as error:
            raise CheckpointError(
                f"{name}: no such folder, and the local cache of the hub lacks it; "
                f"fetch it with `hf download {name}` or name a folder"
            ) from error
    files = {path.name for path in folder.iterdir()}
    if "config.json" not in files or "model.safetensors" not in files:
        raise CheckpointError(
            f"{folder}: a checkpoint has config.json and model.safetensors; pickled weights are not read"
        )
    return folder


def read_model(kind: Any, folder: Path) -> Any:
    """A model of transformers with its weights, in evaluation mode and frozen.

    Args:
        kind: its class.
        folder: as `checkpoint_folder` returns it.

    Raises:
        CheckpointError: the checkpoint cannot be read, or lacks tensors of such a model.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged file makes transformers stumble in ways it does not name
        raise CheckpointError(
            f"{folder}: no {kind.__name__} ({in_one_line(error)}); name another checkpoint"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{folder}: lacks {len(missing)} tensors of {kind.__name__}, first {missing[0]}; name another"
        )
    check_finite(model, folder)
    return model.eval().requires_grad_(False)


def check_finite(network: nn.Module, file: object) -> None:
    """Refuse weights with a number that is not finite: whatever they find would be judged as nothing.

    Raises:
        CheckpointError: there is one.
    """
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{file}: {name} has a number that is not finite; bring the file anew")


def read_trained(file: str, expected: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors that a system has written, checked against the shapes that it expects.

    Raises:
        CheckpointError: the file is absent or damaged, or its tensors are others.
    """
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: no readable safetensors file ({error}); train again") from error
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
        raise CheckpointError(f"{file}: not what this system learnt with this SAM; train again without it")
    if not all(tensor.is_floating_point() and tensor.isfinite().all() for tensor in tensors.values()):
        raise CheckpointError(f"{file}: a number is not finite or no fraction; train again without it")
    return {name: tensor.float() for name, tensor in tensors.items()}
