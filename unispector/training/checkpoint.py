"""State of an unfinished training: weights, optimiser and step in one safetensors file."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import AdamW

from unispector.errors import CheckpointError
from unispector.ops.files import atomic_write_bytes

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Checkpointer:
    """Saves and restores one training job."""

    path: Path  # the file; written atomically, so a killed save leaves the previous one
    job: str  # hash of configuration and data; a file of another job is refused

    def save(self, step: int, model: nn.Module, optimiser: AdamW) -> None:
        """Write the state after `step` steps.

        Raises:
            CheckpointError: it cannot be written; the previous checkpoint stays as it is.
        """
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
        for index, state in enumerate(_states(optimiser)):
            tensors |= {f"optimiser.{index}.{name}": state[name] for name in _MOMENTS if name in state}
        data = save(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            metadata={"step": str(step), "job": self.job},
        )
        try:
            atomic_write_bytes(self.path, data)
        except OSError as error:
            raise CheckpointError(self._unwritable(step, len(data), error)) from error

    def last_step(self) -> int | None:
        """Steps done in the checkpoint on the disk; None without a readable one."""
        try:
            with safe_open(self.path, framework="pt") as file:
                return int((file.metadata() or {})["step"])
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def restore(self, model: nn.Module, optimiser: AdamW) -> int:
        """Load the state, if there is one, and remove what killed saves left beside it.

        Returns:
            Steps already done; 0 when no checkpoint exists.

        Raises:
            CheckpointError: the file is damaged or belongs to another configuration or data.
        """
        for half in self.path.parent.glob(f".{self.path.stem}.*{self.path.suffix}"):
            half.unlink(missing_ok=True)
        if not self.path.exists():
            return 0
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{self.path}: damaged checkpoint ({error}); delete it to start anew"
            ) from error
        if metadata.get("job") != self.job:
            raise CheckpointError(
                f"{self.path}: belongs to another configuration or data; delete it to start anew"
            )
        model.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        for index, parameter in enumerate(parameters):
            state = {n: tensors[k] for n in _MOMENTS if (k := f"optimiser.{index}.{n}") in tensors}
            if state:
                optimiser.state[parameter] = {n: _placed(v, parameter) for n, v in state.items()}
        return int(metadata["step"])

    def _unwritable(self, step: int, size: int, error: OSError) -> str:
        free = shutil.disk_usage(self.path.parent).free if self.path.parent.is_dir() else 0
        last = self.last_step()
        kept = "there is no earlier one" if last is None else f"that of step {last} stays usable"
        return (
            f"{self.path}: the checkpoint of step {step} cannot be written ({error.strerror}; it takes "
            f"{size / 1e6:.1f} MB, {free / 1e6:.1f} MB are free); {kept}; make room and start again"
        )


def _states(optimiser: AdamW) -> list[dict[str, Tensor]]:
    return [optimiser.state.get(p, {}) for group in optimiser.param_groups for p in group["params"]]


def _placed(value: Tensor, parameter: Tensor) -> Tensor:
    """Copy beside the parameter; a moment in its memory layout, which fused AdamW takes for granted."""
    like = parameter if value.shape == parameter.shape else value
    return torch.empty_like(like, dtype=value.dtype, device=parameter.device).copy_(value)
