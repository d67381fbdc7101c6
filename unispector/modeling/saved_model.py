"""A trained detector on disk: safetensors weights beside the configuration that made them.

A frozen network of the backbone with an installed package's weights is not stored again: the package has
it, and the weights' hash says which.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from unispector.config import BackboneConfig, Config, ModelConfig
from unispector.errors import CheckpointError, ConfigError, DataError
from unispector.modeling.backbones.pretrained import distributions_of, packaged_weights
from unispector.modeling.build import build_model
from unispector.modeling.unispector import UniSpectorModel
from unispector.ops.files import atomic_write_bytes, atomic_write_text
from unispector.ops.json_text import parse_json

WEIGHTS, CONFIG = "model.safetensors", "config.json"

SHIPPED = Path(__file__).parents[1] / "shipped"
"""The models that the package ships, a folder each; its README.md is the model card."""
SHIPPED_MODELS = ("fast", "accurate")
"""Their names; the first needs no package beyond the project's own."""

_BEFORE: dict[str, dict[str, Any]] = {
    "model": {"nms_iou": 0.7},
    "prompt": {"max_classes": None},
    "train": {"defect_free": 0, "views": 0},
}
"""Of parameters that came after the first saved models: what a model that does not name them means."""


@dataclass(frozen=True)
class SavedModel:
    """A loaded detector."""

    model: UniSpectorModel  # in evaluation mode
    config: Config  # all parameters it was trained with
    fingerprint: str  # hex SHA-256 of weights and model configuration; prompt banks carry it
    provenance: dict[str, str]  # what produced it (data hash, commit, seeds ...)


def save_model(directory: Path, model: UniSpectorModel, config: Config, provenance: dict[str, str]) -> str:
    """Write `model.safetensors` and `config.json`, each atomically.

    Returns:
        The fingerprint of what was written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    networks = _networks(config)
    packaged = tuple(prefix for prefix, network in networks.items() if _packaged(network))
    kept = {name: value for name, value in state.items() if not name.startswith(packaged)}
    hashes = " ".join(_network_hash(state, prefix) for prefix in networks)
    weights = save(kept, metadata={"backbone_sha256": hashes})
    written = config.model_dump(mode="json")
    fingerprint = _fingerprint(weights, written["model"])
    description = {"config": written, "provenance": provenance, "fingerprint": fingerprint}
    atomic_write_bytes(directory / WEIGHTS, weights)
    atomic_write_text(directory / CONFIG, json.dumps(description, indent=2) + "\n")
    return fingerprint


def model_folder(model: str | Path) -> Path:
    """The folder of a model: one that the package ships, by its name, or a folder as it is given.

    Raises:
        CheckpointError: as `shipped_model`.
    """
    return shipped_model(str(model)) if model in SHIPPED_MODELS else Path(model)


def shipped_model(name: str) -> Path:
    """The folder of a model that the package ships.

    Args:
        name: one of `SHIPPED_MODELS`.

    Raises:
        CheckpointError: this version of the package does not have it.
    """
    there = [known for known in SHIPPED_MODELS if (SHIPPED / known / WEIGHTS).is_file()]
    if name not in there:
        raise CheckpointError(f"{name}: the package ships no such model yet; it has {', '.join(there)}")
    return SHIPPED / name


def packages_of(config: ModelConfig) -> tuple[str, ...]:
    """Distributions that complete a saved model of this configuration when it is loaded."""
    packaged = (network.name for network in config.backbones if _packaged(network))
    return tuple(distribution for name in packaged for distribution in distributions_of(name))


def find_device(name: str | None) -> str:
    """The device of this name; None = a GPU where there is one.

    Raises:
        DataError: there is no such device here.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        gpus = torch.cuda.device_count()
        here = f"cpu and cuda:0 to cuda:{gpus - 1}" if gpus else "cpu only"
        raise DataError(f"no device {name!r}; this machine has {here}") from error
    return name


def load_model(directory: Path, device: torch.device | str = "cpu") -> SavedModel:
    """Read a detector that `save_model` wrote.

    Raises:
        CheckpointError: a file is absent, damaged, or weights and configuration do not belong together.
    """
    try:
        weights = (directory / WEIGHTS).read_bytes()
        description = parse_json((directory / CONFIG).read_text(encoding="utf-8"))
        written = description["config"]
        config = Config.model_validate(
            {**written, **{name: {**before, **written.get(name, {})} for name, before in _BEFORE.items()}}
        )
        provenance = {str(k): str(v) for k, v in description["provenance"].items()}
        # Of the section as it was written: parameters that have come since do not make it another model.
        fingerprint = _fingerprint(weights, written["model"])
        expected = description["fingerprint"]
    except OSError as error:
        raise CheckpointError(
            f"{directory}: not a model directory ({error.filename} cannot be read); "
            f"it needs {WEIGHTS} and {CONFIG}"
        ) from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError, ValidationError) as error:
        raise CheckpointError(
            f"{directory / CONFIG}: damaged or of another version; train or copy the model again"
        ) from error
    if fingerprint != expected:
        raise CheckpointError(
            f"{directory}: {WEIGHTS} and {CONFIG} do not belong together; copy the model again"
        )
    try:
        state = load(weights)
        model = build_model(config.model, load_weights=False)
        networks, known = _networks(config), model.state_dict().keys()
        for prefix, network in networks.items():
            own = packaged_weights(network.name) if _packaged(network) else {}
            state |= {k: v for name, v in own.items() if (k := f"{prefix}{name}") in known}
        if strange := sorted(state.keys() ^ known):
            raise CheckpointError(
                f"{directory / WEIGHTS}: does not fit this version's network ({len(strange)} tensors are in "
                f"one of the two only, such as {strange[0]!r}); train it again"
            )
        if problem := _problem(state, model.state_dict()):
            raise CheckpointError(f"{directory / WEIGHTS}: {problem}; copy the model again or train it again")
        model.load_state_dict(state)
    except (ConfigError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{directory / WEIGHTS}: does not fit this version's network ({' '.join(str(error).split())})"
        ) from error
    hashes = _metadata(weights).get("backbone_sha256", "").split()
    for number, (prefix, network) in enumerate(networks.items()):
        if hashes[number : number + 1] != [_network_hash(model.state_dict(), prefix)]:
            raise CheckpointError(
                f"{directory}: trained on other weights of {network.name} than the installed package's; "
                "install the version of requirements.lock or train again"
            )
    return SavedModel(model.to(device).eval(), config, fingerprint, provenance)


def _problem(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Say which tensor PyTorch would take though nothing can be found with it; empty where none is so."""
    for name, tensor in state.items():
        if tensor.dtype != own[name].dtype:
            return f"{name} is of {tensor.dtype}, not of {own[name].dtype}"
        if not tensor.isfinite().all():
            return f"{name} has values that are not finite"
    return ""


def _networks(config: Config) -> dict[str, BackboneConfig]:
    """Return the prefix of each network's tensor names, and its configuration."""
    networks = config.model.backbones
    if len(networks) == 1:
        return {"backbone.network.": networks[0]}
    return {f"backbone.parts.{number}.network.": network for number, network in enumerate(networks)}


def _packaged(network: BackboneConfig) -> bool:
    """Return whether a network is just what an installed package holds."""
    return network.frozen and network.weights == "packaged"


def _network_hash(state: Mapping[str, Tensor], prefix: str) -> str:
    digest = hashlib.sha256()
    for name in sorted(name for name in state if name.startswith(prefix)):
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _metadata(weights: bytes) -> dict[str, str]:
    """Read the metadata beside the tensors: JSON, after eight bytes that hold its length."""
    length = int.from_bytes(weights[:8], "little")
    found: dict[str, str] = parse_json(weights[8 : 8 + length]).get("__metadata__", {})
    return found


def _fingerprint(weights: bytes, model: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(weights)
    digest.update(json.dumps(model, separators=(",", ":")).encode())
    return digest.hexdigest()
