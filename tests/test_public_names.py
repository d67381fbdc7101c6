"""What `import unispector` offers."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import unispector


def test_every_public_name_is_there_and_nothing_else() -> None:
    for name in unispector.__all__:
        assert getattr(unispector, name) is not None
        assert name in dir(unispector)
    with pytest.raises(AttributeError, match="no attribute 'Predictor'"):
        unispector.Predictor  # noqa: B018


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert unispector.__version__ == project["version"]


def test_the_import_alone_loads_nothing() -> None:
    code = "import sys, unispector; print(sorted(n for n in sys.modules if n.startswith('unispector')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['unispector']\n"
