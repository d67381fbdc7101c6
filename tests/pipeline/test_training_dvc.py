"""What DVC finds out of date when the files change that training starts from, or the locked packages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from unispector.config import load_config
from unispector.errors import ConfigError
from unispector.pipeline.fingerprint import fingerprint
from unispector.project.paths import MODELS, TRAINING_START

FIGURES = ("train", "evaluate", "sweep", "systems")


def dvc(project: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def out_of_date(project: Path) -> set[str]:
    return set(json.loads(dvc(project, "status", "--json")))


@pytest.fixture
def write_parameters(tiny_project):
    def write(**train):
        path = tiny_project / "params.yaml"
        content = yaml.safe_load(path.read_text())
        content["train"] |= train
        path.write_text(yaml.safe_dump(content))

    return write


@pytest.fixture
def project(tiny_project, project_root) -> Path:
    """The stages `fingerprint`, for real, and `train`, which trains nothing; without deps on code."""
    stages = yaml.safe_load((project_root / "dvc.yaml").read_text())["stages"]
    kept = {name: stages[name] for name in ("fingerprint", "train")}
    for body in kept.values():
        body["deps"] = [dep for dep in body["deps"] if not dep.startswith(("unispector", "flows"))]
    kept["fingerprint"]["cmd"] = f"{sys.executable} -m unispector.cli stage fingerprint"
    kept["train"]["cmd"] = (
        "echo trained && mkdir -p artifacts/models reports/training && echo > reports/training.json"
    )
    (tiny_project / "dvc.yaml").write_text(yaml.safe_dump({"stages": kept}))
    (tiny_project / "requirements.lock").write_text("torch==2.0\n")
    (tiny_project / "start.pt").write_bytes(b"weights")
    dvc(tiny_project, "init", "--no-scm", "-q")
    return tiny_project


def test_every_stage_that_computes_figures_depends_on_the_locked_packages(project_root):
    stages = yaml.safe_load((project_root / "dvc.yaml").read_text())["stages"]
    assert [name for name, body in stages.items() if "requirements.lock" in body.get("deps", ())] == [
        *FIGURES
    ]


def test_a_changed_start_and_changed_packages_train_anew_and_nothing_else_does(project, write_parameters):
    assert "> echo trained" in dvc(project, "repro")  # without a start
    assert out_of_date(project) == set()
    (project / "requirements.lock").write_text("torch==2.1\n")
    assert out_of_date(project) == {"train"}
    write_parameters(start="start.pt")
    assert out_of_date(project) == {"fingerprint", "train"}
    dvc(project, "repro")
    again = dvc(project, "repro")
    assert "Stage 'train' didn't change, skipping" in again
    assert out_of_date(project) == set()

    (project / "start.pt").write_bytes(b"weights trained further")
    assert "train" in out_of_date(project)
    assert "> echo trained" in dvc(project, "repro")
    assert out_of_date(project) == set()

    (project / "start.pt").unlink()
    write_parameters(start=None)
    assert "> echo trained" in dvc(project, "repro")


@pytest.mark.parametrize("start", ["latest", "latest/model.pt"])
def test_a_link_that_points_elsewhere_trains_anew(project, write_parameters, start):
    for name in ("first", "second"):
        (project / name).mkdir()
        (project / name / "model.pt").write_bytes(name.encode())
    (project / "latest").symlink_to("first")
    write_parameters(start=start)
    dvc(project, "repro")
    assert out_of_date(project) == set()
    (project / "latest").unlink()
    (project / "latest").symlink_to("second")
    assert "train" in out_of_date(project)
    assert "> echo trained" in dvc(project, "repro")
    assert out_of_date(project) == set()


def started_from(project: Path) -> dict[str, bytes]:
    folder = project / TRAINING_START
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_links_lead_to_every_file_wherever_it_lies(tiny_project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("saved")
    for name, content in (("model.safetensors", b"w"), ("config.json", b"c")):
        (elsewhere / name).write_bytes(content)
    path = tiny_project / "params.yaml"
    content = yaml.safe_load(path.read_text())
    content["train"] |= {"start": str(elsewhere), "views": 0}
    one = content["model"]["backbone"] | {"weights": "own/x.pth"}
    content["model"]["backbone"] = [one, one | {"weights": "other/x.pth"}]
    path.write_text(yaml.safe_dump(content))
    for folder in ("own", "other"):
        (tiny_project / folder).mkdir()
        (tiny_project / folder / "x.pth").write_bytes(folder.encode())
    fingerprint(load_config(path), tiny_project)
    name = elsewhere.name
    assert started_from(tiny_project) == {
        f"0/{name}/model.safetensors": b"w",
        f"0/{name}/config.json": b"c",
        "1/x.pth": b"own",
        "2/x.pth": b"other",
    }
    moved = tiny_project.parent / "moved"
    tiny_project.rename(moved)  # what lies in the project is found there
    assert started_from(moved)["1/x.pth"] == b"own"

    content["train"]["start"] = ""
    content["model"]["backbone"] = one | {"weights": "none"}
    (moved / "params.yaml").write_text(yaml.safe_dump(content))
    fingerprint(load_config(moved / "params.yaml"), moved)
    assert started_from(moved) == {}


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("nowhere.pt", r"train\.start: nowhere\.pt: no such file or folder"),
        (str(MODELS / "unispector/seed42"), r"lies in artifacts/models, which a training empties"),
    ],
)
def test_a_start_that_cannot_be_is_one_line(tiny_project, write_parameters, start, told):
    write_parameters(start=start)
    with pytest.raises(ConfigError, match=told) as error:
        fingerprint(load_config(tiny_project / "params.yaml"), tiny_project)
    assert "\n" not in str(error.value)
