"""A model by its folder, as a version of the registry, or by the run that trained it."""

import pytest

from unispector.errors import CheckpointError, RegistryError
from unispector.modeling.saved_model import SHIPPED
from unispector.project.paths import MODELS, TRACKING
from unispector.tracking.model_reference import find_model
from unispector.tracking.registry import ModelRegistry
from unispector.tracking.run import TrackingStore


def test_a_folder_is_itself(tmp_path):
    assert find_model(str(tmp_path)) == tmp_path


def test_the_packages_models_have_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model("fast") == SHIPPED / "fast"
    (tmp_path / "fast").mkdir()
    assert find_model("fast") == SHIPPED / "fast"
    assert find_model("./fast").resolve() == tmp_path / "fast"


def test_what_is_neither_folder_nor_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="models/typo: no such model folder, nor an MLflow run id"):
        find_model("models/typo")
    with pytest.raises(CheckpointError, match="no such run"):
        find_model("0123456789abcdef" * 2)


@pytest.mark.slow
def test_a_run_stands_for_its_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / MODELS / "unispector" / "seed42"
    directory.mkdir(parents=True)
    with TrackingStore(TRACKING).run("training", "unispector-seed42", {}) as run:
        run.model_directory(directory)
    assert find_model(run.run_id).resolve() == directory.resolve()


def test_a_registered_version_by_number_and_by_alias(store, package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TRACKING.parent.mkdir()
    store.root.rename(TRACKING)
    registry = ModelRegistry(TrackingStore(TRACKING))
    for key in "ab":
        (package / "artifacts" / "package" / "key").write_text(key)
        registry.register(package, "", {"key": key})
    registry.set_alias("champion", 1)
    assert (find_model("models:/unispector@champion") / "key").read_text() == "a"
    assert (find_model("models:/unispector/2") / "key").read_text() == "b"
    with pytest.raises(RegistryError, match="unispector: no version 3"):
        find_model("models:/unispector/3")
    with pytest.raises(RegistryError, match="other: no version with the alias champion"):
        find_model("models:/other@champion")


@pytest.mark.parametrize("reference", ["models:/unispector", "models:/unispector/latest", "models:/a/1/b"])
def test_other_ways_to_name_a_version_are_refused(reference):
    with pytest.raises(CheckpointError, match="write models:/NAME@ALIAS or models:/NAME/VERSION"):
        find_model(reference)


def test_a_project_that_was_moved_finds_its_versions(store, package, tmp_path):
    ModelRegistry(store).register(package, "", {})
    store.root.rename(tmp_path / "elsewhere")
    directory = ModelRegistry(TrackingStore(tmp_path / "elsewhere")).model_directory(1)
    assert directory.is_dir()
    assert tmp_path / "elsewhere" in directory.parents
