"""The base install is enough for the detector: nothing of the extras is imported; a verb names its extra."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import cv2
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

# Hides all modules but those of the standard library and of the distributions named in the environment.
RUN = """
import os, sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)
hidden = set(os.environ["HIDDEN"].split(","))
sys.meta_path[:] = map(Without, sys.meta_path)
from unispector.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def base_distributions() -> set[str]:
    """The base dependencies of pyproject.toml and all that they need themselves."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting, found = list(project["dependencies"]), {"unispector"}
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not wanted or name in found:
            continue
        found.add(name)
        try:
            waiting += requires(requirement.name) or []
        except PackageNotFoundError:
            continue  # of another platform
    return found


@pytest.fixture(scope="module")
def light():
    """`light(arguments)`: the command line where only the base distributions can be imported."""
    base = base_distributions()
    hidden = [
        module
        for module, distributions in packages_distributions().items()
        if module not in ("unispector", "flows")
        and not any(canonicalize_name(each) in base for each in distributions)
    ]
    assert {"dvc", "mlflow", "prefect", "ray", "fastapi", "great_expectations", "scipy"} <= set(hidden)
    assert not {"torch", "timm", "numpy", "cv2", "pydantic"} & set(hidden)

    def run(arguments):
        command = [sys.executable, "-c", RUN, *map(str, arguments)]
        environment = {**os.environ, "HIDDEN": ",".join(hidden)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_detects_with_the_base_install(light, tiny_model, tmp_path):
    pixels = np.random.default_rng(0).integers(90, 160, (64, 80, 3), dtype=np.uint8)
    pixels[20:40, 30:50] = 255
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    marked = ["--prompt", tmp_path / "a.png", "--box", "30,20,20,20"]
    result = light(
        ["detect", tmp_path / "a.png", *marked, "--model", tiny_model, "--out", tmp_path / "found"]
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "found" / "detections.json").is_file()


def test_a_verb_that_needs_more_names_its_extra(light, tiny_model, tmp_path):
    result = light(["inspect", tmp_path, "--model", tiny_model, "--out", tmp_path / "table.parquet"])
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == (
        "error: pyarrow is not installed; it comes with pip install 'unispector[cluster]'"
    )
