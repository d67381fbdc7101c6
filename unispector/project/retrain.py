"""Retraining: is there anything new, run the pipeline on it, and remember how far that got.

Content decides whether work is to be done, not time: a hash over the parameters, the files that training
starts from, the locked packages, the pipeline, the code and the raw data. A state of these that was
retrained on and decided is left alone, however often it is asked about.
"""

import hashlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from unispector.config import Config
from unispector.errors import RetrainingError
from unispector.ops.files import atomic_write_json, sha256_of_tree
from unispector.ops.json_text import parse_json
from unispector.project.lineage import dvc_hash
from unispector.project.paths import RETRAINING, SPLITS, TRAINING_SUMMARY

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parents[1]
_DAMAGED_LOCK = re.compile(r"dvc\.lock' (is invalid|validation failed)")
_PROJECT_FILES = ("params.yaml", "dvc.yaml", "requirements.lock")
_GENERATED = "insa-mini"  # made by a stage
_TAIL = 400  # lines of DVC's output that are looked through for a reason


CHECKS = ("split",)
"""What stands behind the conversion and all checks of the data, and before any training."""


class DataRefusedError(RetrainingError):
    """The data do not pass: a person must mend them, trying again does not help."""


@dataclass(frozen=True)
class RetrainingNeed:
    """The need for a retraining, and its reasons."""

    key: str  # hash of parameters, what training starts from, packages, pipeline, code and raw data
    work: bool  # whether this state has still to be retrained on
    reason: str  # in one line, for people
    changed: tuple[str, ...] = ()  # raw sets whose files differ from what DVC has recorded
    notes: tuple[str, ...] = ()  # what a person should know of the raw data, in sentences


@dataclass(frozen=True)
class LastRetraining:
    """How the latest retraining ended; one record, which the next retraining replaces."""

    key: str
    outcome: str  # `going on`, `data refused`, `failed` or `decided`
    reason: str
    version: int | None = None  # of the registered model; None before there is one
    time: str = ""  # of this record, ISO 8601 in UTC

    @classmethod
    def read(cls, root: Path) -> "LastRetraining":
        """The record, an empty one where there is none; a damaged file counts as none: all is redone."""
        try:
            return cls(**parse_json((root / RETRAINING).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls("", "", "")

    def write(self, root: Path) -> None:
        """Replace the former record atomically, with the time of now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        atomic_write_json(root / RETRAINING, {**asdict(self), "time": now})


def look(config: Config, root: Path = Path()) -> RetrainingNeed:
    """Return whether parameters, code or raw data have changed since the last decided retraining.

    Reads and hashes only what DVC finds changed; of data at rest, file times and sizes.

    Raises:
        RetrainingError: DVC cannot say; the message has its reason.
    """
    raw = root / config.data.root
    notes, tracked = _notes(config, raw), sorted(raw.glob("*.dvc"))
    changed = _changed(root, tracked)
    youngest = max((_youngest(path.with_suffix("")) for path in changed), default=0.0)
    names = tuple(path.stem for path in changed)
    wait = config.retrain.settle - (time.time() - youngest)
    if changed and wait > 0:
        reason = f"{', '.join(names)}: files are still arriving; looked at again at the next run"
        return RetrainingNeed("", False, reason, names, notes)
    if changed:
        # DVC takes the files as they are now; the stages that read them then count as out of date.
        _dvc(root, ["add", "--quiet", *(str(path.with_suffix("").relative_to(root)) for path in changed)])
    key = _state(root, [*tracked, *(root / path for path in config.starting_files.values())])
    last = LastRetraining.read(root)
    if (last.key, last.outcome) == (key, "decided"):
        return RetrainingNeed(key, False, f"nothing new since {last.time}", names, notes)
    reason = f"changed: {', '.join(names)}" if names else "data, parameters or code not retrained on yet"
    return RetrainingNeed(key, True, reason, names, notes)


def reproduce(targets: Sequence[str] = (), root: Path = Path()) -> None:
    """Run `dvc repro` in a session of its own, line by line into the log; ended with this process.

    Args:
        targets: stages to bring up to date with all they need; none = the whole pipeline.

    Raises:
        DataRefusedError: `targets` are `CHECKS`, and a stage said in one line what is to be mended.
        RetrainingError: it failed for another reason, which may pass.
    """
    code, lines = _run_dvc(root, ["repro", *targets])
    if any(_DAMAGED_LOCK.search(line) for line in lines):
        # DVC does not write it atomically; without it, what was made is taken from DVC's cache of runs.
        kept = (root / "dvc.lock").replace(root / "dvc.lock.damaged")
        logger.warning("dvc.lock: damaged by a kill, moved to %s", kept)
        code, lines = _run_dvc(root, ["repro", *targets])
    if code == 0:
        return
    what = next((line for line in reversed(lines) if "failed to reproduce" in line), "dvc repro failed")
    told = [line.partition("error: ")[2] for line in lines if line.lstrip().startswith("error: ")]
    if told and tuple(targets) == CHECKS:
        raise DataRefusedError(f"{_stage(what)}: {told[-1]}")
    reason = told[-1] if told else f"ended with code {code}; its log says more"
    raise RetrainingError(f"{_stage(what)}: {reason}; the next run goes on")


def version_key(config: Config, root: Path = Path()) -> str:
    """Hash of the trained models and the splits: the same training is registered once.

    Raises:
        RetrainingError: nothing was trained yet.
    """
    path = root / TRAINING_SUMMARY
    try:
        models = parse_json(path.read_text(encoding="utf-8"))
        prints = [models[f"unispector-seed{seed}"]["fingerprint"] for seed in config.train.seeds]
    except (OSError, ValueError, KeyError) as error:
        raise RetrainingError(
            f"{path}: does not name a model for each of train.seeds; run `make repro`"
        ) from error
    return hashlib.sha256("\0".join([*prints, dvc_hash(root, SPLITS.as_posix())]).encode()).hexdigest()


def _notes(config: Config, raw: Path) -> tuple[str, ...]:
    """Raw folders that nobody looks at."""
    known = {Path(own.path).parts[0] for own in config.data.sets.values()} | {_GENERATED}
    folders = sorted(path.name for path in raw.glob("[!.]*/")) if raw.is_dir() else []
    strangers = [
        f"{name} among the raw data belongs to no set; `unispector data add` brings it in."
        for name in folders
        if name not in known
    ]
    loose = [
        f"{name} is not in DVC's care, so changes in it are not seen; run `dvc add {raw / name}`."
        for name in sorted(known - {_GENERATED})
        if not (raw / f"{name}.dvc").exists()
    ]
    return (*strangers, *loose)


def _changed(root: Path, tracked: Sequence[Path]) -> list[Path]:
    """Those of DVC's files whose data are not as recorded."""
    if not tracked:
        return []
    names = {path.relative_to(root).as_posix(): path for path in tracked}
    told = parse_json(_dvc(root, ["status", "--json", *names]) or "{}")
    return [path for name, path in names.items() if name in told and path.with_suffix("").exists()]


def _youngest(folder: Path) -> float:
    """Return when anything below was last written or moved: a copy may keep the time of its content."""
    try:
        return max(path.lstat().st_ctime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:  # a copy renames its files as they are complete
        return time.time()


def _state(root: Path, given: Sequence[Path]) -> str:
    code = sorted(_PACKAGE.rglob("*.py"))
    digest = hashlib.sha256()
    for path in (*(root / name for name in _PROJECT_FILES), *given, *code):
        if not path.exists():  # the stage that needs it says so
            continue
        name = path.relative_to(_PACKAGE) if path.is_relative_to(_PACKAGE) else path.name
        digest.update(f"{name}\0{sha256_of_tree([path])}\n".encode())
    return digest.hexdigest()


def _stage(line: str) -> str:
    """The stage that DVC says has failed."""
    named = re.search(r"failed to reproduce '([^']+)'", line)
    return named[1] if named else "dvc repro"


def _mend_lock(root: Path) -> None:
    """Take away DVC's list of locks where a kill has left it half-written: DVC would refuse to go on.

    Another DVC writes it in a moment, so what is still damaged after a second is nobody's.
    """
    path = root / ".dvc" / "tmp" / "rwlock"
    for wait in (1.0, 0.0):
        try:
            parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:
            time.sleep(wait)
        else:
            return
    logger.warning("%s: damaged by a kill, removed", path)
    path.unlink(missing_ok=True)


def _dvc(root: Path, arguments: Sequence[str]) -> str:
    """Return DVC's answer."""
    _mend_lock(root)
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())
        raise RetrainingError(f"dvc {arguments[0]}: {reason[-300:]}")
    return done.stdout


def _run_dvc(root: Path, arguments: Sequence[str]) -> tuple[int, list[str]]:
    """DVC's exit code and the last lines it and its stages said."""
    _mend_lock(root)
    lines: deque[str] = deque(maxlen=_TAIL)
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            logger.info("%s", line.rstrip())
        return process.wait(), list(lines)
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End DVC and its stage together."""
    for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 10)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
