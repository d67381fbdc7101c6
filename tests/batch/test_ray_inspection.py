import os
import signal
import sys
from contextlib import suppress

import numpy as np
import psutil
import pytest
from PIL import Image

from unispector.batch import ray_inspection
from unispector.batch.inspection import Inspection, look, one_thread
from unispector.batch.ray_inspection import _Worker, look_on_ray
from unispector.batch.source import ImageSource
from unispector.errors import CheckpointError, ServiceError
from unispector.inference.detector import Prompt, UniSpector

pytestmark = [pytest.mark.slow, pytest.mark.integration]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def detector(tiny_model):
    return UniSpector.load(tiny_model)


@pytest.fixture
def inspection(folder, tiny_model, detector):
    bank = detector.encode([Prompt(folder / "00.png", [[5, 5, 30, 30]])])
    return Inspection(ImageSource.at(str(folder)), tiny_model, bank, min_score=0.0, limit=5)


@pytest.fixture
def files(inspection):
    return inspection.source.pictures({".png"})


@pytest.fixture
def sent_by_value():
    """Workers cannot import a test module, so what it defines travels as code."""
    from ray import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


class DeadlyImage(_Worker):
    """A worker that one image kills, as a bug in a decoder would."""

    def __call__(self, block):
        if "07.png" in block["path"].to_pylist():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(block)


class NoModel(_Worker):
    """A worker on a machine that does not see the model."""

    def __init__(self, inspection):
        raise CheckpointError(f"{inspection.model}: not a model directory")


def rows_of(tables):
    return sorted(
        (row for table in tables for row in table.to_pylist()),
        key=lambda row: (row["path"], row["detection"] or 0),
    )


def workers_of_ray():
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "MapWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_rows_are_those_of_one_process_though_a_worker_is_killed(ray_cluster, detector, inspection, files):
    with one_thread():
        expected = look(detector, inspection, files).to_pylist()
    tables = []
    for table in look_on_ray(inspection, files, 2, gpu=False):
        if not tables:
            workers = workers_of_ray()
            assert len(workers) == 2
            workers[0].kill()
        tables.append(table)
    assert rows_of(tables) == expected


def test_a_picture_that_kills_its_worker_is_told_from_its_neighbours(
    ray_cluster, detector, inspection, files, sent_by_value, monkeypatch
):
    monkeypatch.setattr(ray_inspection, "_Worker", DeadlyImage)
    monkeypatch.setattr(ray_inspection, "_BLOCKS_A_WORKER", 2)
    with one_thread():
        expected = look(detector, inspection, files).to_pylist()
    rows = rows_of(look_on_ray(inspection, files, 2, gpu=False))
    deadly = [row for row in rows if row["path"] == "07.png"]
    assert len(deadly) == 1
    assert deadly[0]["error"].startswith("its worker died or failed while looking at it, twice")
    assert [row for row in rows if row["path"] != "07.png"] == [
        row for row in expected if row["path"] != "07.png"
    ]


def test_workers_that_cannot_start_end_the_run_with_the_reason(
    ray_cluster, inspection, files, sent_by_value, monkeypatch
):
    monkeypatch.setattr(ray_inspection, "_Worker", NoModel)
    with pytest.raises(ServiceError, match=r"go on \(CheckpointError: .*: not a model directory\); mend"):
        list(look_on_ray(inspection, files, 2, gpu=False))
