"""The package ultralytics, imported where a system asks for it: offline, silent, unpickling by allow-list.

Its licence is AGPL-3.0, which asks of whoever offers a service that runs it to offer the source of all of
that service; therefore it is an extra, and a message says when it is used.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from unispector.errors import CheckpointError, in_one_line
from unispector.systems.hub import check_finite

logger = logging.getLogger(__name__)

_QUIET = {
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",  # no downloads, no usage figures
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "true",  # torch.load(weights_only=True) with its own classes allowed
}
_settings = tempfile.TemporaryDirectory(prefix="unispector-ultralytics-")  # its settings file; goes at exit


def load_network(weights: str, kind: str) -> Any:
    """Load a network of ultralytics in evaluation mode.

    Args:
        weights: a checkpoint `.pt`, or an architecture `.yaml` (a file, or one that ultralytics knows by
            name) for random weights, always the same.
        kind: class of `ultralytics.nn.tasks` that it must be.

    Raises:
        CheckpointError: there is no such file, it cannot be read, or it is another kind of network.
        ModuleNotFoundError: ultralytics is not installed.
    """
    tasks = _tasks()
    path = Path(weights)
    architecture = path.suffix in (".yaml", ".yml")
    if "'" in weights:
        raise CheckpointError(
            f"{weights}: ultralytics drops the apostrophe and reads another file; rename it"
        )
    if not architecture and not path.is_file():
        raise CheckpointError(f"{weights}: no such file; give a .pt of ultralytics, or a .yaml architecture")
    try:
        if architecture:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                network = getattr(tasks, kind)(weights, verbose=False)
        else:
            network, _ = tasks.load_checkpoint(weights)
    except Exception as error:  # a damaged file makes ultralytics stumble in ways it does not name
        raise CheckpointError(f"{weights}: ultralytics cannot load it ({in_one_line(error)})") from error
    if type(network).__name__ != kind:
        raise CheckpointError(f"{weights}: it holds a {type(network).__name__}; this system takes a {kind}")
    check_finite(network, weights)
    head = network.model[-1]
    if hasattr(head, "lrpc") or getattr(head, "is_fused", False):
        raise CheckpointError(f"{weights}: its classes are built in (prompt-free); take the one for prompts")
    head.end2end = False  # all networks by the same non-maximum suppression
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.eval().to(device)


def rebuilt(network: Any, classes: int) -> Any:
    """The same architecture for another number of classes, with all weights that still fit."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        other = type(network)(deepcopy(network.yaml), nc=classes, verbose=False)
        other.load(network, verbose=False)
    return other.to(next(network.parameters()).device)


def count_parameters(network: nn.Module) -> int:
    """How many numbers were or can be learnt."""
    return sum(weight.numel() for weight in network.parameters())


def _tasks() -> Any:
    """The module of networks, imported with its habits off and its changes to other packages undone."""
    os.environ |= _QUIET
    os.environ.setdefault("YOLO_CONFIG_DIR", _settings.name)
    with _others_unchanged():
        from ultralytics.nn import tasks
    vars(tasks)["SAFE_LOAD"] = True  # whoever imported it before us may have had the variable unset
    logger.warning("ultralytics is used, whose licence is AGPL-3.0")
    return tasks


@contextmanager
def _others_unchanged() -> Iterator[None]:
    """Undo what importing ultralytics changes: how arrays print, the number of threads, torch.save."""
    printing, threads, save = np.get_printoptions(), cv2.getNumThreads(), torch.save
    for_torch = torch._tensor_str.PRINT_OPTS
    omp = os.environ.get("OMP_NUM_THREADS")
    kept = dict(vars(for_torch))
    try:
        yield
    finally:
        np.set_printoptions(**printing)
        cv2.setNumThreads(threads)
        torch.save = save
        vars(for_torch).update(kept)
        if omp is None:
            os.environ.pop("OMP_NUM_THREADS", None)
