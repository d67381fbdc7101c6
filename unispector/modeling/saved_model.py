"""A trained detector on disk: safetensors weights beside the configuration that made them.

A frozen backbone with an installed package's weights is not stored again: the package has it, and the
weights' hash says which.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from unispector.config import Config
from unispector.errors import CheckpointError
from unispector.modeling.build import build_model
from unispector.modeling.pretrained import packaged_weights
from unispector.modeling.unispector import UniSpectorModel
from unispector.ops.files import atomic_write_bytes, atomic_write_text

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_NETWORK = "backbone.network."

SHIPPED = Path(__file__).parents[1] / "shipped"
"""Folder of the model that the package ships; its README.md is the model card."""


@dataclass(frozen=True)
class SavedModel:
    """A loaded detector.

    Attributes:
        model: in evaluation mode.
        config: all parameters it was trained with.
        fingerprint: hex SHA-256 of weights and model configuration; prompt banks carry it.
        provenance: what produced it (data hash, commit, seeds ...).
    """

    model: UniSpectorModel
    config: Config
    fingerprint: str
    provenance: dict[str, str]


def save_model(directory: Path, model: UniSpectorModel, config: Config, provenance: dict[str, str]) -> str:
    """Write `model.safetensors` and `config.json`, each atomically.

    Returns:
        The fingerprint of what was written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    kept = {k: v for k, v in state.items() if not (_packaged(config) and k.startswith(_NETWORK))}
    weights = save(kept, metadata={"backbone_sha256": _backbone_hash(state)})
    fingerprint = _fingerprint(weights, config)
    description = {
        "config": config.model_dump(mode="json"),
        "provenance": provenance,
        "fingerprint": fingerprint,
    }
    atomic_write_bytes(directory / WEIGHTS, weights)
    atomic_write_text(directory / CONFIG, json.dumps(description, indent=2) + "\n")
    return fingerprint


def load_model(directory: Path, device: torch.device | str = "cpu") -> SavedModel:
    """Read a detector that `save_model` wrote.

    Raises:
        CheckpointError: a file is absent, damaged, or weights and configuration do not belong together.
    """
    try:
        weights = (directory / WEIGHTS).read_bytes()
        description = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        config = Config.model_validate(description["config"])
        provenance = {str(k): str(v) for k, v in description["provenance"].items()}
        expected = description["fingerprint"]
    except OSError as error:
        raise CheckpointError(
            f"{directory}: not a model directory ({error.filename} cannot be read); "
            f"it needs {WEIGHTS} and {CONFIG}"
        ) from error
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
        raise CheckpointError(
            f"{directory / CONFIG}: damaged or of another version; train or copy the model again"
        ) from error
    fingerprint = _fingerprint(weights, config)
    if fingerprint != expected:
        raise CheckpointError(
            f"{directory}: {WEIGHTS} and {CONFIG} do not belong together; copy the model again"
        )
    try:
        state = load(weights)
        model = build_model(config.model, load_weights=False)
        own = packaged_weights(config.model.backbone.name) if _packaged(config) else {}
        known = model.state_dict().keys()
        state |= {k: v for name, v in own.items() if (k := f"{_NETWORK}{name}") in known}
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{directory / WEIGHTS}: does not fit this version's network ({' '.join(str(error).split())})"
        ) from error
    if _backbone_hash(model.state_dict()) != _metadata(weights).get("backbone_sha256"):
        raise CheckpointError(
            f"{directory}: trained on other weights of {config.model.backbone.name} than the installed "
            "package's; install the version of requirements.lock or train again"
        )
    return SavedModel(model.to(device).eval(), config, fingerprint, provenance)


def _packaged(config: Config) -> bool:
    """Whether the backbone is just what an installed package holds."""
    return config.model.backbone.frozen and config.model.backbone.weights == "packaged"


def _backbone_hash(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(name for name in state if name.startswith(_NETWORK)):
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _metadata(weights: bytes) -> dict[str, str]:
    """What `save` was given beside the tensors: JSON, after eight bytes that say how long it is."""
    length = int.from_bytes(weights[:8], "little")
    found: dict[str, str] = json.loads(weights[8 : 8 + length]).get("__metadata__", {})
    return found


def _fingerprint(weights: bytes, config: Config) -> str:
    digest = hashlib.sha256(weights)
    digest.update(config.model.model_dump_json().encode())
    return digest.hexdigest()
