"""What names the code and the data, against git and DVC themselves."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from unispector.errors import DataError
from unispector.project.lineage import dvc_hash, git_state

IDENTITY = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(folder, *arguments):
    command = ["git", "-c", "init.defaultBranch=main", "-c", "core.autocrlf=false", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **IDENTITY}, capture_output=True, check=True
    )
    return done.stdout


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit."""
    (tmp_path / "project" / "reports").mkdir(parents=True)
    folder = tmp_path / "project"
    for name in ("code.py", "dvc.lock", "reports/metrics.json"):
        (folder / name).write_text("first\n")
    (folder / "picture.bin").write_bytes(bytes(range(256)))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_a_clean_tree_is_its_commit(checkout):
    commit = git(checkout, "rev-parse", "HEAD").decode().strip()
    assert git_state(checkout) == {"commit": commit, "dirty": "false"}
    assert git_state(checkout / "reports")["commit"] == commit


def test_each_change_of_a_tree_has_its_own_hash(checkout):
    clean = git_state(checkout)
    (checkout / "code.py").write_text("second\n")
    first = git_state(checkout)
    diff = git(checkout, "diff", "HEAD", "--binary", "--no-color")
    assert first == {
        "commit": clean["commit"],
        "dirty": "true",
        "diff_sha256": hashlib.sha256(diff).hexdigest(),
    }
    git(checkout, "add", "code.py")
    assert git_state(checkout) == first
    (checkout / "picture.bin").write_bytes(bytes(range(255, -1, -1)))
    second = git_state(checkout)
    (checkout / "picture.bin").write_bytes(bytes(256))
    third = git_state(checkout)
    assert len({state["diff_sha256"] for state in (first, second, third)}) == 3
    git(checkout, "checkout", "--quiet", "HEAD", "--", ".")
    assert git_state(checkout) == clean


def test_what_the_pipeline_writes_is_no_change(checkout):
    clean = git_state(checkout)
    for name in ("dvc.lock", "reports/metrics.json", "reports/new.json", "unknown-to-git.txt"):
        (checkout / name).write_text("second\n")
    assert git_state(checkout) == clean


def test_outside_of_git_and_before_the_first_commit_nothing_is_known(tmp_path, monkeypatch):
    unknown = {"commit": "unknown", "dirty": "unknown"}
    assert git_state(tmp_path) == unknown
    assert git_state(tmp_path / "absent") == unknown
    git(tmp_path, "init", "--quiet")
    assert git_state(tmp_path) == unknown
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == unknown


@pytest.mark.integration
def test_a_hash_is_the_one_dvc_has(tmp_path):
    # A folder's hash is that of the list of its files' hashes, so it cannot be right by chance.
    pipeline = {
        "stages": {
            "split": {"cmd": "mkdir -p data/splits && echo a > data/splits/a.json", "outs": ["data/splits"]},
            "use": {"cmd": "cp data/splits/a.json b", "deps": ["data/splits"], "outs": ["b"]},
        }
    }
    with (tmp_path / "dvc.yaml").open("w") as stream:
        YAML(typ="safe").dump(pipeline, stream)
    dvc = Path(sys.executable).with_name("dvc")
    for arguments in (["init", "--no-scm", "--quiet"], ["repro", "--quiet"]):
        subprocess.run([dvc, *arguments], cwd=tmp_path, check=True, capture_output=True)
    content = hashlib.md5(b"a\n").hexdigest()
    listing = f'[{{"md5": "{content}", "relpath": "a.json"}}]'
    assert dvc_hash(tmp_path, "data/splits") == f"{hashlib.md5(listing.encode()).hexdigest()}.dir"
    assert dvc_hash(tmp_path, "b") == content
    assert dvc_hash(tmp_path, "data") == "unknown"
    shutil.rmtree(tmp_path / ".dvc")
    (tmp_path / "dvc.lock").unlink()
    assert dvc_hash(tmp_path, "b") == "unknown"


LOCK = "schema: '2.0'\nstages:\n  split:\n    cmd: x\n    outs:\n    - path: data/splits\n      md5: abc\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1",
        "schema: '2.0'",
        "schema: '2.0'\nstages: 3",
        "schema: '2.0'\nstages:\n  split: 3",
        LOCK.replace("    - path", "    - [path").replace("splits\n", "splits]\n"),
        LOCK.replace("path:", "Path:"),
        f"<<<<<<< HEAD\n{LOCK}=======\n{LOCK}>>>>>>> other\n",
        "a: \x00",
    ],
)
def test_a_damaged_lock_is_named_with_its_remedy(tmp_path, text):
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(DataError, match=r"dvc\.lock: .*dvc repro") as raised:
        dvc_hash(tmp_path, "data/splits")
    assert "\n" not in str(raised.value)


def test_a_lock_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "dvc.lock").mkdir()
    with pytest.raises(DataError, match=r"dvc\.lock: cannot be read"):
        dvc_hash(tmp_path, "data/splits")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dvc.lock").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"dvc\.lock"):
        dvc_hash(tmp_path / "other", "data/splits")


@given(st.integers(0, len(LOCK)), st.text(max_size=5), st.integers(0, 5))
def test_no_damage_gives_anything_but_an_answer_or_one_line(tmp_path_factory, place, inserted, removed):
    folder = tmp_path_factory.mktemp("lock")
    text = LOCK[:place] + inserted + LOCK[place + removed :]
    (folder / "dvc.lock").write_text(text, encoding="utf-8")
    try:
        answer = dvc_hash(folder, "data/splits")
    except DataError as error:
        answer = str(error)
    assert answer
    assert "\n" not in answer


def test_a_stage_without_products_is_passed_over(tmp_path):
    (tmp_path / "dvc.lock").write_text(
        f"schema: '2.0'\nstages:\n  check:\n    cmd: x\n{LOCK.split('stages:')[1][1:]}"
    )
    assert dvc_hash(tmp_path, "data/splits") == "abc"
