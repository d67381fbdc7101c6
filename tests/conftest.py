"""What all tests share: a quiet environment, and one Prefect server for the session."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import settings
from PIL import Image

from tiny import FACTORY_PARAMETERS, TINY_PARAMETERS, save_tiny, tiny_config, tiny_network
from unispector.config import load_config
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.protocol.split_tree import SplitTree
from unispector.environment import work_offline
from unispector.pipeline.fingerprint import fingerprint
from unispector.project.paths import SPLITS
from unispector.tracking.run import TrackingStore

ROOT = Path(__file__).parents[1]

pytest_plugins = ["benchmark_project", "made_up_evaluation"]

# Before any test module imports ray, prefect or mlflow, which read their settings then.
work_offline(ROOT)
# One thread a process: workers of xdist and Ray would fight for the cores otherwise, and forks would hang.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)  # of this process, which has read the variable already
# No verdict depends on how busy the machine is.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty experiment store, to be copied; making its database takes seconds."""
    root = tmp_path_factory.mktemp("store")
    TrackingStore(root).client()
    return root


@pytest.fixture
def store(template: Path, tmp_path: Path) -> TrackingStore:
    shutil.copytree(template, tmp_path / "mlflow")
    return TrackingStore(tmp_path / "mlflow")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the project; tests that want them are skipped elsewhere."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data are not at {os.path.relpath(folder, ROOT)}")
    return folder


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """Gone after the module, because the flow's test starts its own."""
    from unispector.training.ray_trainer import cluster

    with cluster(cpus=2):
        yield


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a saved detector: the network at its smallest, random weights."""
    # Of seed 0 a cell lies on a cut to the last bit, so that batches and single images differ.
    return _tiny_model(tmp_path_factory.mktemp("tiny_model"), seed=2)


@pytest.fixture(scope="session")
def other_tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `tiny_model`, with other weights."""
    return _tiny_model(tmp_path_factory.mktemp("other_tiny_model"), seed=1)


def _tiny_model(directory: Path, seed: int) -> Path:
    model = tiny_config(backbone={"weights": "none"})
    network = tiny_network(model, seed)
    # The prior sees nothing in noise; masks as small as random weights make them would all be empty.
    torch.nn.init.zeros_(network.similarity.evidence.mask_weight.bias)
    return save_tiny(directory, network, model)


@pytest.fixture
def tiny_project(tmp_path: Path) -> Path:
    """A project folder ready to train: the real parameters shrunk, training files, images, fingerprints."""
    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(merged(parameters, TINY_PARAMETERS)))
    config = load_config(tmp_path / "params.yaml")
    for seed in config.split.seeds:
        write_training_set(
            SplitTree(tmp_path / SPLITS).training(seed), tmp_path / config.data.root, seed=seed
        )
    fingerprint(config, tmp_path)
    return tmp_path


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `change` in place of its own."""
    inner = {
        key: merged(base[key], value) if isinstance(value, dict) else value for key, value in change.items()
    }
    return {**base, **inner}


def write_training_set(annotations: Path, images: Path, seed: int, count: int = 6) -> None:
    """Grey noise with a dark or a bright square each: two classes, one instance an image."""
    rng = np.random.default_rng(seed)
    records, instances = [], []
    for number in range(1, count + 1):
        label = number % 2
        x, y, side = (int(value) for value in rng.integers((4, 4, 12), (36, 36, 24)))
        pixels = rng.integers(96, 160, (64, 64), dtype=np.uint8)
        pixels[y : y + side, x : x + side] = 255 * label
        name = f"set/{seed}-{number}.png"
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(images / name)
        box = (float(x), float(y), float(side), float(side))
        records.append(ImageRecord(number, name, 64, 64))
        instances.append(InstanceRecord(number, number, label + 1, box, float(side**2), None))
    classes = (CategoryRecord(1, "set/dark", "set"), CategoryRecord(2, "set/bright", "set"))
    Annotations(tuple(records), tuple(instances), classes).write(annotations)


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    """A whole project with git and DVC, one small raw set of its own, and nothing made yet."""
    project = tmp_path / "factory"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not listing:
        pytest.skip("not a git checkout: a project cannot be made of its files")
    for name in filter(None, listing.split("\0")):
        wanted = not name.startswith(("tests/", "docs/", "reports/", "benchmarks/"))
        if wanted and (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, project / name)
    parameters = merged(yaml.safe_load((project / "params.yaml").read_text()), FACTORY_PARAMETERS)
    parameters["data"]["sets"] = {"line": {"source": "coco", "path": "line", "domain": "in"}}
    (project / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))
    marked_batch(project / "data/raw/line/first", seed=1)
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (["git", "init", "-q"], ["dvc", "add", "-q", "data/raw/line"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=project, check=True, capture_output=True)
    subprocess.run(["git", *who, "commit", "-qm", "factory"], cwd=project, check=True, capture_output=True)
    return project


def marked_batch(folder: Path, seed: int, count: int = 9) -> None:
    """Grey noise with a dark, bright or striped square each, and a COCO file that marks them."""
    rng = np.random.default_rng(seed)
    images, marks = [], []
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        label = number % 3
        x, y, side = (int(value) for value in rng.integers((4, 4, 14), (36, 36, 24)))
        pixels = rng.integers(96, 160, (64, 64), dtype=np.uint8)
        pixels[y : y + side, x : x + side] = (0, 255, 0)[label]
        if label == 2:
            pixels[y : y + side : 3, x : x + side] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        outline = [x, y, x + side, y, x + side, y + side, x, y + side]
        marks.append(
            {
                "id": number,
                "image_id": number,
                "category_id": label + 1,
                "bbox": [x, y, side, side],
                "area": side * side,
                "iscrowd": 0,
                "segmentation": [outline],
            }
        )
    names = [{"id": i, "name": name} for i, name in enumerate(("dark", "bright", "striped"), start=1)]
    content = {"images": images, "annotations": marks, "categories": names}
    # As a person copies a folder: the list of its images last.
    (folder / "marks.json").write_text(json.dumps(content))


@pytest.fixture
def new_batch() -> Callable[[Path, int], None]:
    """`new_batch(folder, seed)`: images and marks as they come from the line."""
    return marked_batch
