"""`data add`: copies, tracks and names a release, touches nothing else, and can be repeated."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from unispector.config import load_config
from unispector.data.add import add
from unispector.data.packing import bring_in
from unispector.errors import ConfigError, DataError

PARAMS = """# every knob
mini: # the embedded data
  seed: 42   # of all

data: # where raw data lie
  root: data/raw
  sets: # name: how to read it
    mini-MagneticTile: {source: magnetic_tile, path: insa-mini/MagneticTile, domain: in}
  # the size rule
  min_side: 0.01 # share

split:
  seeds: [42, 82]
"""
LINE = "    MagneticTile: {source: magnetic_tile, path: MagneticTile, domain: in}\n"


def write_release(folder: Path) -> None:
    """A release of two defects with what a download brings along."""
    for defect in ("Crack", "Hole", "Free"):
        images = folder / f"MT_{defect}" / "Imgs"
        images.mkdir(parents=True)
        for number in range(2):
            mask = np.zeros((20, 30), np.uint8)
            mask[5:9, 5 + number : 12] = 255
            cv2.imwrite(str(images / f"{number}.jpg"), np.full((20, 30), 99, np.uint8))
            cv2.imwrite(str(images / f"{number}.png"), mask)
    (folder / "README.md").write_text("read me")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_release(tmp_path / "download")
    return tmp_path / "download"


@pytest.fixture(scope="module")
def empty_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without git, so that DVC needs nothing but itself."""
    root = tmp_path_factory.mktemp("empty")
    (root / "params.yaml").write_text(PARAMS)
    dvc = Path(sys.executable).with_name("dvc")
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run([str(dvc), "init", "--quiet", "--no-scm"], cwd=root, env=environment, check=True)
    return root


@pytest.fixture
def project(empty_project: Path, tmp_path: Path) -> Path:
    return shutil.copytree(empty_project, tmp_path / "project")


@pytest.mark.integration
def test_add_copies_tracks_and_names(release, project):
    before = content(release)
    report = add("magnetic_tile", release, root=project)

    folder = project / "data/raw/MagneticTile"
    assert (report.set_name, report.folder, report.images) == ("MagneticTile", folder, 4)
    assert content(release) == before
    assert content(folder) == {name: data for name, data in before.items() if not name.startswith(".git")}
    tracked = yaml.safe_load((project / "data/raw/MagneticTile.dvc").read_text())["outs"][0]
    assert (tracked["path"], tracked["nfiles"]) == ("MagneticTile", 13)
    text = (project / "params.yaml").read_text()
    assert text == PARAMS.replace("domain: in}\n", "domain: in}\n" + LINE)
    assert list(load_config(project / "params.yaml").data.sets) == ["mini-MagneticTile", "MagneticTile"]

    states = content(project / "data"), text
    assert add("magnetic_tile", release, root=project) == report
    assert (content(project / "data"), (project / "params.yaml").read_text()) == states


@pytest.mark.integration
def test_another_release_is_not_overwritten(release, project):
    add("magnetic_tile", release, root=project)
    before = content(project / "data")
    name = "README.md"
    data = (release / name).read_bytes()
    (release / name).write_bytes(data[:-1] + b"x")  # as long and as old as the copy
    copied = (project / "data/raw/MagneticTile" / name).stat()
    os.utime(release / name, ns=(copied.st_atime_ns, copied.st_mtime_ns))
    with pytest.raises(DataError, match="MagneticTile: holds another release already"):
        add("magnetic_tile", release, root=project)
    (release / name).write_bytes(data)
    (release / "more.txt").write_text("x")
    with pytest.raises(DataError, match="MagneticTile: holds another release already"):
        add("magnetic_tile", release, root=project)
    assert content(project / "data") == before


@pytest.mark.integration
def test_a_run_that_was_cut_off_is_finished(release, project):
    """DVC refuses at first, here because the project is none of its own."""
    (project / ".dvc").rename(project / "gone")
    with pytest.raises(DataError, match=r"MagneticTile: `dvc add` failed \(.*\); mend that") as caught:
        add("magnetic_tile", release, root=project)
    assert "\n" not in str(caught.value)
    assert (project / "params.yaml").read_text() == PARAMS

    (project / "gone").rename(project / ".dvc")
    add("magnetic_tile", release, root=project)
    assert LINE in (project / "params.yaml").read_text()


def test_what_cannot_be_added_changes_nothing(release, tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    with pytest.raises(ConfigError, match=r"params.yaml: cannot be read"):
        add("magnetic_tile", release, root=root)
    (root / "params.yaml").write_text(PARAMS)
    with pytest.raises(DataError, match=r"tiles: no such source; known are .*magnetic_tile"):
        add("tiles", release, root=root)
    for name in ("../x", "-x", "---", "a b", "", "123", "1e3", "0x1F", "1_000", "null", "yes", "off", "True"):
        with pytest.raises(DataError, match=r"^('.*': the name of a set begins|a set of your own needs)"):
            add("voc", release, name, root)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        add("magnetic_tile", tmp_path / "nowhere", root=root)
    shutil.copy(release / "MT_Hole/Imgs/1.jpg", release / "MT_Hole/Imgs/1.jpeg")
    with pytest.raises(DataError, match=r"two images share this name"):
        add("magnetic_tile", release, root=root)
    (release / "MT_Hole/Imgs/1.jpeg").unlink()
    other = PARAMS.replace("mini-MagneticTile:", "MagneticTile:")
    (root / "params.yaml").write_text(other)
    with pytest.raises(DataError, match=r"data.sets.MagneticTile is another set already"):
        add("magnetic_tile", release, root=root)
    assert [path.name for path in root.iterdir()] == ["params.yaml"]
    assert (root / "params.yaml").read_text() == other


@pytest.mark.integration
@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (
            "  sets:\n    first:\n      source: magnetic_tile\n      path: a\n\n  # next\n  min_side: 0.02\n",
            "  sets:\n    first:\n      source: magnetic_tile\n      path: a\n"
            f"{LINE}\n  # next\n  min_side: 0.02\n",
        ),
        (
            "  min_side: 0.02\n  sets:\n    first: {source: magnetic_tile,\n      path: a}",
            f"  min_side: 0.02\n  sets:\n    first: {{source: magnetic_tile, path: a}}\n{LINE}",
        ),
        (
            "  min_side: 0.02\n  sets:\n    first: {source: magnetic_tile, path: a} # why\n    # a note\n",
            "  min_side: 0.02\n  sets:\n    first: {source: magnetic_tile, path: a} # why\n"
            f"{LINE}    # a note\n",
        ),
        (
            "  min_side: 0.02\n  sets: {first: {source: magnetic_tile, path: a}} # why\n",
            "  min_side: 0.02\n  sets: {first: {source: magnetic_tile, path: a}, "
            f"{LINE.strip()}}} # why\n",
        ),
    ],
)
def test_only_one_line_is_inserted(release, project, sets, expected):
    (project / "params.yaml").write_text("data:\n" + sets)
    add("magnetic_tile", release, root=project)
    assert (project / "params.yaml").read_text() == "data:\n" + expected
    config = load_config(project / "params.yaml")
    assert list(config.data.sets) == ["first", "MagneticTile"]
    assert config.data.min_side == 0.02


@pytest.mark.integration
def test_what_params_became_while_a_release_was_copied_stays(release, project, monkeypatch):
    """Another `data add`, or an editor, may have saved them meanwhile."""
    params, changed = project / "params.yaml", PARAMS.replace("0.01", "0.02")

    def copy_slowly(*arguments: Any) -> None:
        bring_in(*arguments)
        params.write_text(changed)

    monkeypatch.setattr("unispector.data.add.bring_in", copy_slowly)
    add("magnetic_tile", release, root=project)
    assert params.read_text() == changed.replace("domain: in}\n", "domain: in}\n" + LINE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        # A set more would take the place of the default ones.
        ("data:\n  min_side: 0.02\n", r"cannot be rewritten .*`unispector params write`"),
        ("data:\n  sets: {}\n  sets: {first: {source: magnetic_tile, path: a}}\n", "key 'sets' twice"),
    ],
)
def test_params_that_take_no_line_are_left_alone(release, tmp_path, text, reason):
    root = tmp_path / "project"
    root.mkdir()
    (root / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"params\.yaml: .*{reason}"):
        add("magnetic_tile", release, root=root)
    assert (root / "params.yaml").read_text() == text
    assert [path.name for path in root.iterdir()] == ["params.yaml"]


@pytest.mark.integration
def test_a_set_of_your_own_takes_a_name_and_may_be_a_tar(release, project, tmp_path):
    shutil.rmtree(release / ".git")
    folder = tmp_path / "download of a tar"
    folder.mkdir()
    with tarfile.open(folder / "tiles.tar.gz", "w:gz") as tar:
        tar.add(release, "tiles")

    report = add("magnetic_tile", folder, "line-3", project)

    assert (report.set_name, report.images, report.dropped) == ("line-3", 4, 2)
    assert content(project / "data/raw/line-3/tiles") == content(release)
    assert load_config(project / "params.yaml").data.sets["line-3"].path == "line-3"
    assert add("magnetic_tile", folder, "line-3", project) == report


@pytest.mark.integration
def test_what_shows_to_be_no_release_only_when_unpacked_is_taken_away_again(project, tmp_path):
    (tmp_path / "download").mkdir()
    with tarfile.open(tmp_path / "download" / "x.tar", "w") as tar:
        tar.add(project / "params.yaml", "params.yaml")
    with pytest.raises(DataError, match="no image with a marked defect; Magnetic Tile has MT_"):
        add("magnetic_tile", tmp_path / "download", root=project)
    assert list((project / "data/raw").iterdir()) == []
    assert (project / "params.yaml").read_text() == PARAMS
