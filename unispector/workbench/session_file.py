"""The file that keeps a session: written after every change, kept aside when it cannot be read."""

import fcntl
import os
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from unispector.errors import DataError
from unispector.ops.files import atomic_write_json, remove_leftovers
from unispector.ops.json_text import parse_json
from unispector.prompts.marks import checked_label
from unispector.workbench.marks import ANY_CLASS, Mark, box_inside, checked_mask
from unispector.workbench.session import SessionClass, State

FORMAT = "unispector session 1"
FILE = "session.json"

_MARKS, _CLASSES = TypeAdapter(list[Mark]), TypeAdapter(list[SessionClass])


def prepare(folder: Path) -> None:
    """Make the folder of a session.

    Raises:
        DataError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: the session cannot be kept there ({error.strerror}); name another folder by --session"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"{folder}: the session cannot be kept there; name another folder with --session")


def lock(folder: Path) -> IO[str]:
    """Keep a session's folder for this program until the returned file is closed.

    Raises:
        DataError: another program keeps it.
    """
    try:
        file = (folder / "lock").open("w")
    except OSError as error:
        raise DataError(
            f"{folder / 'lock'}: cannot be written ({error.strerror}); remove it, or name another "
            "folder with --session"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise DataError(
            f"{folder}: another `unispector ui` has this session open; use its page, or name another folder "
            "with --session"
        ) from error
    except OSError:  # a file system without locks
        return file
    remove_leftovers(folder, age=0, stem="session")
    return file


def write_state(folder: Path, state: State, version: int) -> None:
    """Write a session, atomically.

    Raises:
        DataError: it cannot be written, such as on a full disk; the file before stays.
    """
    content = {
        "format": FORMAT,
        "version": version,
        "classes": [asdict(own) for own in state.classes],
        "marks": [asdict(mark) for mark in state.marks],
        "reviewed": sorted(state.reviewed),
        "good": sorted(state.good),
    }
    try:
        atomic_write_json(folder / FILE, content)
    except UnicodeEncodeError as error:
        raise DataError("a name in it is not UTF-8; rename the file") from error
    except OSError as error:
        raise DataError(
            f"{folder / FILE}: the session cannot be saved ({error.strerror}); make room or mend the folder"
        ) from error


def read_state(folder: Path) -> tuple[State, int, str]:
    """The session of a folder, its version, and a line for the user.

    A file that cannot be read is kept beside the new one and named in the line, which is empty otherwise.
    """
    file = folder / FILE
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
        return *_state(content), ""
    except FileNotFoundError:
        return State(), 0, ""
    except _NewerError as error:
        why = str(error)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, DataError) as error:
        why = f"damaged ({type(error).__name__})"
    aside = _free(folder)
    file.replace(aside)
    return State(), 0, f"{file}: {why}; it is kept as {aside.name} and a new session begins"


class _NewerError(Exception):
    """A file that a newer version of this package wrote."""


def _state(content: dict[str, Any]) -> tuple[State, int]:
    if content["format"] != FORMAT:
        number = str(content["format"]).removeprefix("unispector session ")
        if number.isdigit():
            raise _NewerError(f"written by a newer version of UniSpector (session {number})")
        raise ValueError("no session")
    marks = tuple(_checked(mark) for mark in _MARKS.validate_python(content["marks"]))
    classes = tuple(_CLASSES.validate_python(content["classes"]))
    for own in classes:
        checked_label(own.name)
    if len({mark.id for mark in marks}) < len(marks) or len({own.name for own in classes}) < len(classes):
        raise ValueError("twice the same")
    reviewed, good = content["reviewed"], content.get("good", [])  # the first sessions have no good images
    state = State(classes, marks, frozenset(map(str, reviewed)), frozenset(map(str, good)))
    return state, int(content["version"])


def _checked(mark: Mark) -> Mark:
    box_inside(mark.box, mark.hw)
    if mark.label != ANY_CLASS or not mark.negative:
        checked_label(mark.label)
    if mark.mask is not None and checked_mask(mark.mask, mark.hw) is None:
        raise ValueError("an empty mask")
    return mark


def _free(folder: Path) -> Path:
    number = 1
    while (aside := folder / f"session.damaged-{number}.json").exists():
        number += 1
    return aside
