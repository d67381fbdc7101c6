"""What a user calls a model: `shipped`, its folder, a registered version, or the run that trained it."""

import re
from pathlib import Path

from unispector.errors import CheckpointError

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_REGISTERED = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")


def find_model(reference: str) -> Path:
    """The folder of a model.

    Args:
        reference: `shipped`, a folder with `model.safetensors` and `config.json`, a registered model as
            MLflow writes it (`models:/NAME@ALIAS`, `models:/NAME/VERSION`), or an MLflow run id (32 hex
            digits).

    Raises:
        CheckpointError: there is no such folder, or the run has no model.
        RegistryError: there is no such registered version.
    """
    if reference == "shipped":
        from unispector.modeling.saved_model import SHIPPED

        return SHIPPED
    folder = Path(reference)
    if folder.is_dir():
        return folder
    from unispector.stages.paths import TRACKING
    from unispector.tracking.run import TrackingStore

    if registered := _REGISTERED.fullmatch(reference):
        from unispector.tracking.registry import ModelRegistry

        registry = ModelRegistry(TrackingStore(TRACKING), registered[1])
        return registry.model_directory(registry.version(registered[2] or registered[3]).number)
    if reference.startswith("models:"):
        raise CheckpointError(f"{reference}: write models:/NAME@ALIAS or models:/NAME/VERSION")
    if not _RUN_ID.fullmatch(reference):
        raise CheckpointError(
            f"{reference}: no such model folder, nor an MLflow run id; `make repro` trains models, "
            "`shipped` is the one in the package"
        )
    return TrackingStore(TRACKING).model_directory(reference)
