"""What the tests of the tracking share."""

import pytest


@pytest.fixture
def client(store):
    """MLflow's own client of the store."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{store.root}/mlflow.db")


@pytest.fixture
def package(tmp_path):
    """What the registry needs of an MLflow model: its main file and the folder of ours."""
    folder = tmp_path / "saved"
    (folder / "artifacts" / "package").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "artifacts" / "package" / "lineage.json").write_text("{}")
    return folder
