"""A model by its folder or by the run that trained it."""

from pathlib import Path

import pytest

from unispector.errors import CheckpointError
from unispector.stages.model_reference import find_model
from unispector.stages.paths import MODELS, TRACKING
from unispector.tracking.run import TrackingStore


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert find_model(str(tmp_path)) == tmp_path


def test_what_is_neither_folder_nor_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="models/typo: no such model folder, nor an MLflow run id"):
        find_model("models/typo")
    with pytest.raises(CheckpointError, match="no such run"):
        find_model("0123456789abcdef" * 2)


@pytest.mark.slow
def test_a_run_stands_for_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / MODELS / "unispector" / "seed42"
    directory.mkdir(parents=True)
    with TrackingStore(TRACKING).run("training", "unispector-seed42", {}) as run:
        run.model_directory(directory)
    assert find_model(run.run_id).resolve() == directory.resolve()
