"""A disk that is full at any moment: one line and exit code 1, and what was there can still be read."""

import builtins
import errno
import io
import json
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fuzz.mutations import CORPUS, EXHAUSTIVE, check_line
from unispector.cli.main import main
from unispector.data.coco import Annotations
from unispector.errors import UniSpectorError
from unispector.inference.export import read_record
from unispector.inference.prompt_bank import PromptBank
from unispector.prompts.store import MarkedImage, PromptStore

IMAGES = CORPUS / "annotations/coco"
BOX = (4.0, 5.0, 12.0, 8.0)
SIZES = (0, 1, 100, 500, 1000, 3000, 10_000, 30_000)


class Disk:
    """Counts what is about to be written below a folder, and refuses one of it.

    Attributes:
        begun: writes that were asked for so far.
    """

    def __init__(self, folder: Path, fails: int) -> None:
        self.begun = 0
        self._folder, self._fails = str(folder), fails

    def count(self, path: object) -> None:
        """Refuse the write if it is its turn."""
        if isinstance(path, int) or str(path).startswith(self._folder):
            self.begun += 1
            if self.begun == self._fails:
                name = None if isinstance(path, int) else str(path)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


@contextmanager
def full_at(folder: Path, fails: int) -> Iterator[Disk]:
    """A disk whose write number `fails` (from 1) below a folder has no room; later ones have."""
    disk = Disk(folder, fails)

    def opening(own: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if set(mode) & set("wax+"):
                disk.count(file)
            return own(file, mode, *rest, **named)

        return wrapped

    def opening_handle(own: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any, flags: int, *rest: Any, **named: Any) -> Any:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                disk.count(path)
            return own(path, flags, *rest, **named)

        return wrapped

    def moving(own: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any, *rest: Any, **named: Any) -> Any:
            disk.count(path)
            return own(path, *rest, **named)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder / "tmp"))
        patch.setattr(io, "open", opening(io.open))
        patch.setattr(builtins, "open", opening(builtins.open))
        patch.setattr(os, "open", opening_handle(os.open))
        for name in ("replace", "rename", "mkdir", "fsync"):
            patch.setattr(os, name, moving(getattr(os, name)))
        yield disk


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """A disk that takes no file of more bytes than that, whoever writes it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@dataclass(frozen=True)
class Work:
    """A command that writes over what it wrote before."""

    command: Callable[[Path, Path, str], list[str]]  # of the folder, the model, and an image's name
    readable: Callable[[Path], object]  # the old or the new state; raises where there is neither


def record_of(folder: Path) -> object:
    found = [folder / "out" / name for name in ("detections.json", "detections.earlier.json")]
    return read_record(next(path for path in found if path.exists()))


def detect(folder: Path, model: Path, image: str) -> list[str]:
    marks = ["--prompt", str(IMAGES / "a.png"), "--box", "4,5,12,8"]
    return ["detect", str(IMAGES / image), "--model", str(model), *marks, "--out", str(folder / "out")]


def build(folder: Path, model: Path, _: str) -> list[str]:
    marks = ["--annotations", str(folder / "marks.json"), "--images", str(IMAGES)]
    return ["prompts", "build", *marks, "--model", str(model), "--out", str(folder / "bank.safetensors")]


def convert(folder: Path, _: Path, __: str) -> list[str]:
    return ["convert", "coco", str(IMAGES), "--workers", "1", "--out", str(folder / "set.json")]


def inspect(folder: Path, model: Path, image: str) -> list[str]:
    shutil.copy(IMAGES / image, folder / "images")
    marks = ["--bank", str(folder / "bank.safetensors"), "--model", str(model), "--workers", "1"]
    return ["inspect", str(folder / "images"), *marks, "--out", str(folder / "found.parquet")]


WORKS = {
    "detect": Work(detect, record_of),
    "build": Work(build, lambda folder: PromptBank.load(folder / "bank.safetensors")),
    "convert": Work(convert, lambda folder: Annotations.read(folder / "set.json")),
    "inspect": Work(inspect, lambda folder: pq.read_table(folder / "found.parquet")),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder in which every command was run once."""
    folder = tmp_path_factory.mktemp("disk") / "made"
    (folder / "images").mkdir(parents=True)
    (folder / "tmp").mkdir()
    content = json.loads((IMAGES / "marks.json").read_text())
    content["annotations"] = content["annotations"][:3]
    (folder / "marks.json").write_text(json.dumps(content))
    for work in WORKS.values():
        assert main(work.command(folder, tiny_model, "a.png")) == 0
        work.readable(folder)
    return folder


def check(
    work: Work,
    made: Path,
    folder: Path,
    model: Path,
    trouble: Callable[[], AbstractContextManager[object]],
    capsys: pytest.CaptureFixture[str],
) -> bool:
    """Run a command in trouble; return whether it failed."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, folder)
    command = work.command(folder, model, "b.png")
    capsys.readouterr()
    with trouble():
        code = main(command)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert code in (0, 1)
    assert len(told) == code, told
    for line in told:
        check_line(line, str(folder), tempfile.gettempdir())
    work.readable(folder)
    left = [path for path in folder.rglob(".*") if path.is_file() and path.name != ".lock"]
    assert not left, left
    assert main(command) == 0  # once there is room
    work.readable(folder)
    return code == 1


@pytest.mark.parametrize("name", WORKS)
def test_a_write_that_fails(
    name: str, made: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, work = tmp_path / "folder", WORKS[name]
    shutil.copytree(made, folder)
    with full_at(folder, 0) as disk:
        assert main(work.command(folder, tiny_model, "b.png")) == 0
    steps = range(1, disk.begun + 1)
    failed = 0
    for step in steps if EXHAUSTIVE else steps[:: max(1, len(steps) // 4)]:
        failed += check(work, made, folder, tiny_model, partial(full_at, folder, step), capsys)
    assert failed


@pytest.mark.parametrize("name", WORKS)
def test_files_that_end_too_early(
    name: str, made: Path, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for size in SIZES if EXHAUSTIVE else (0, 500):
        check(WORKS[name], made, tmp_path / "folder", tiny_model, partial(no_file_over, size), capsys)


def test_the_prompt_store(tmp_path: Path) -> None:
    picture = MarkedImage((IMAGES / "a.png").read_bytes(), "a.png", [BOX])
    third = MarkedImage((IMAGES / "c.png").read_bytes(), "c.png", [BOX])
    other = MarkedImage((IMAGES / "b.png").read_bytes(), "b.png", [BOX])
    step, disk = 0, Disk(tmp_path, 0)
    while step <= disk.begun:
        step += 1
        folder = tmp_path / str(step)
        (folder / "tmp").mkdir(parents=True)
        store = PromptStore(folder / "prompts")
        store.add("dent", [picture], "me", "", {})
        failed = False
        with full_at(folder, step) as disk:
            try:
                store.add("dent", [other], "me", "", {})
            except UniSpectorError as error:
                failed = True
                check_line(str(error), str(folder), "b.png")
        now = store.current()
        assert now.version in ((1, 2) if failed else (2,))
        store.annotations(now)
        assert store.add("dent", [third], "me", "", {}).version == now.version + 1
    assert step > 5
