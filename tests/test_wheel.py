"""The wheel: the detector and its pipeline without the generator of drawn data, whose verbs say so."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]
GENERATOR = ("unispector/data/mini/", "unispector/data/drawn_set.py")
MESSAGE = (
    "error: the generator of drawn data is part of the checkout only; run this in a clone of the project\n"
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content."""
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder))
    with ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line of the unpacked wheel, outside the checkout."""
    code = "import sys; from unispector.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_has_every_module_but_the_generator(installed: Path) -> None:
    modules = {
        path.relative_to(ROOT).as_posix()
        for room in ("unispector", "flows")
        for path in (ROOT / room).rglob("*.py")
    }
    generator = {module for module in modules if module.startswith(GENERATOR)}
    assert len(generator) > 10
    assert {path.relative_to(installed).as_posix() for path in installed.rglob("*.py")} == modules - generator


def test_the_wheel_has_the_built_page_and_not_its_sources(installed: Path) -> None:
    page = ROOT / "unispector/page"
    built = {path.relative_to(ROOT).as_posix() for path in (page / "dist").rglob("*") if path.is_file()}
    assert "unispector/page/dist/index.html" in built
    inside = {
        path.relative_to(installed).as_posix()
        for path in installed.glob("unispector/page/**/*")
        if path.is_file()
    }
    assert inside == built


def test_a_verb_that_draws_says_that_it_needs_the_checkout(installed: Path) -> None:
    (installed / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    for arguments in (["data", "draw", "drawn"], ["stage", "generate"]):
        done = run(installed, *arguments)
        assert (done.returncode, done.stderr) == (1, MESSAGE)
    assert not (installed / "drawn").exists()


def test_other_verbs_work(installed: Path) -> None:
    done = run(installed, "convert", "--list")
    assert (done.returncode, done.stderr) == (0, "")
