"""What a user calls a model: `shipped`, its folder, or the MLflow run that trained it."""

import re
from pathlib import Path

from unispector.errors import CheckpointError

_RUN_ID = re.compile(r"[0-9a-f]{32}")


def find_model(reference: str) -> Path:
    """The folder of a model.

    Args:
        reference: `shipped`, a folder with `model.safetensors` and `config.json`, or an MLflow run id (32
            hex digits).

    Raises:
        CheckpointError: there is no such folder, or the run has no model.
    """
    if reference == "shipped":
        from unispector.modeling.saved_model import SHIPPED

        return SHIPPED
    folder = Path(reference)
    if folder.is_dir():
        return folder
    if not _RUN_ID.fullmatch(reference):
        raise CheckpointError(
            f"{reference}: no such model folder, nor an MLflow run id; `make repro` trains models, "
            "`shipped` is the one in the package"
        )
    from unispector.stages.paths import TRACKING
    from unispector.tracking.run import TrackingStore

    return TrackingStore(TRACKING).model_directory(reference)
