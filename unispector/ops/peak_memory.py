"""The most memory this process has held."""

import resource
import sys

import torch


def peak_mib(device: torch.device) -> float:
    """Most memory held so far in MiB: a CUDA device's tensors, elsewhere this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
