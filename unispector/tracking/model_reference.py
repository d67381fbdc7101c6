"""References to a model: `fast`, `accurate`, its folder, a registered version, or its training run."""

import re
from pathlib import Path

from unispector.errors import CheckpointError

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_REGISTERED = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")


def find_model(reference: str) -> Path:
    """The folder of a model.

    Args:
        reference: `fast` or `accurate` (the package's), a folder with `model.safetensors` and
            `config.json`, a registered model as MLflow writes it (`models:/NAME@ALIAS`,
            `models:/NAME/VERSION`), or an MLflow run id (32 hex digits).

    Raises:
        CheckpointError: there is no such folder, the run has no model, or the package does not ship it.
        RegistryError: there is no such registered version.
    """
    from unispector.modeling.saved_model import SHIPPED_MODELS, shipped_model

    if reference in SHIPPED_MODELS:
        return shipped_model(reference)
    folder = Path(reference)
    if folder.is_dir():
        return folder
    registered = _REGISTERED.fullmatch(reference)
    if reference.startswith("models:") and not registered:
        raise CheckpointError(f"{reference}: write models:/NAME@ALIAS or models:/NAME/VERSION")
    if not registered and not _RUN_ID.fullmatch(reference):
        raise CheckpointError(
            f"{reference}: no such model folder, nor an MLflow run id; `make repro` trains models, "
            "`fast` and `accurate` are the package's"
        )
    # Only now: MLflow takes seconds to import.
    from unispector.project.paths import TRACKING
    from unispector.tracking.run import TrackingStore

    if registered:
        from unispector.tracking.registry import ModelRegistry

        registry = ModelRegistry(TrackingStore(TRACKING), registered[1])
        return registry.model_directory(registry.version(registered[2] or registered[3]).number)
    return TrackingStore(TRACKING).model_directory(reference)
