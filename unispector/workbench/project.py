"""An opened folder with its session: what the page shows and changes, safe to use from several threads."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from unispector.errors import DataError
from unispector.inference.prompt_bank import PromptBank
from unispector.workbench import session_file
from unispector.workbench.findings import Result, Results, Summary, verdicts
from unispector.workbench.folder import ImageFile, ImageFolder
from unispector.workbench.history import History
from unispector.workbench.joined import Advice, Model, advice, holds, thresholds
from unispector.workbench.marks import ANY_CLASS, Mark, new_id
from unispector.workbench.messages import Messages
from unispector.workbench.pictures import Pictures
from unispector.workbench.session import (
    Around,
    Change,
    ChooseThreshold,
    Chosen,
    Found,
    OutdatedError,
    State,
    marks_about,
)

SESSION = ".unispector"
"""Folder of a session inside the folder of images, unless another is named."""
RESCAN_SECONDS = 2.0
TOLD = 400
"""Results that are told at a time."""


@dataclass(frozen=True)
class Run:
    """Where the detector stands."""

    state: str = "idle"  # idle, loading, encoding, detecting, done, error
    line: str = ""  # of an error, what is wrong
    done: int = 0  # images looked at with the newest prompts
    total: int = 0  # images of the folder
    key: str = ""  # of the prompts; results with another key are outdated


@dataclass(frozen=True)
class Job:
    """How far the newest work beside the search is."""

    number: int = 0  # 0 = none was asked for yet
    kind: str = ""  # check, threshold
    label: str = ""  # class that it is about; empty = all
    running: bool = False
    done: int = 0  # trials or images
    total: int = 0  # 0 = not known yet
    line: str = ""  # why it ended without a result


@dataclass(frozen=True)
class News:
    """What happened since the page asked last."""

    project: str  # another one when another folder was opened
    number: int  # to ask with next time
    more: bool  # there is more to tell at once
    version: int  # of the session
    listing: int  # version of the list of images
    run: Run
    job: Job
    messages: tuple[str, ...]  # warnings about images, one of each kind
    results: list[tuple[Summary, list[int]]]  # each with its verdicts


class Project:
    """A folder, its session, and what was found.

    Attributes:
        identity: of this opening.
        bit_depth: bits that 16-bit images really use.
        folder: the images.
        pictures: thumbnails and tiles.
        results: of detection; use with `lock`.
        bank: prompts in use; None while nothing is marked.
        bank_marks: the marks that they were made of.
        job: what is worked on beside the search.
        checked: class -> its marks when they were checked, and the advice.
        lock: held by whoever reads or changes more than one thing; notified of changes.
        notice: a line to show once, such as of a damaged session file.
        ended: whether nobody works on it any more.
        wanted_at: when the prompts changed last, on the monotonic clock.
    """

    def __init__(self, root: Path, session: Path | None = None, bit_depth: int = 16) -> None:
        """Open a folder.

        Args:
            session: folder that keeps the session; None = `.unispector` in the folder of images.
            bit_depth: bits that 16-bit images really use.

        Raises:
            DataError: the folder or the session's folder cannot be used.
        """
        self.identity = new_id()
        self.folder = ImageFolder(root)
        self.session = session or self.folder.root / SESSION
        session_file.prepare(self.session)
        self._kept = session_file.lock(self.session)
        self._messages = Messages(self.folder.root)
        self.folder.tell()
        state, version, self.notice = session_file.read_state(self.session)
        self.history = History(state, version)
        self.bit_depth = bit_depth
        self.pictures = Pictures(self.session / "thumbnails", bit_depth)
        self.results = Results(self.session / "findings")
        self.bank: PromptBank | None = None
        self.bank_marks: Sequence[Mark] = ()
        self.job = Job()
        self.checked: dict[str, tuple[tuple[Mark, ...], list[Advice]]] = {}
        self.lock = threading.Condition()
        self.run = Run(total=len(self.folder.files))
        self.wanted_at = time.monotonic()
        self.visible: tuple[str, ...] = ()
        self._numbers: dict[str, int] = {}  # image -> when its result or verdicts changed
        self._number = 0
        self.ended = False
        self._scanned = time.monotonic()
        self._scanning = threading.Lock()

    def change(self, change: Change, version: int) -> None:
        """Take in a change of the session and save it.

        Args:
            version: of the session that the change was made to.

        Raises:
            OutdatedError: the session has changed since.
            DataError: the change cannot be made, or not be saved; then it is not made.
        """
        around = Around(self.size, self._finding)
        self._changed(version, lambda history: history.apply(change, around))

    def undo(self, version: int, *, redo: bool = False) -> None:
        """Undo the newest change, or redo what was undone.

        Raises:
            OutdatedError, DataError: as `change`; also where there is nothing to undo.
        """
        self._changed(version, lambda history: history.redo() if redo else history.undo())

    def _changed(self, version: int, make: Callable[[History], object]) -> None:
        with self.lock:
            if version != self.history.version:
                raise OutdatedError(
                    "changed in another window meanwhile; this is the newest state, try again"
                )
            before, kept = self.history.now, replace(self.history)
            kept.past, kept.future = list(kept.past), list(kept.future)
            make(self.history)
            if self.history.version == kept.version:
                return
            try:
                session_file.write_state(self.session, self.history.now, self.history.version)
            except BaseException:
                self.history = kept
                raise
            self._follow(before, self.history.now)

    def _follow(self, before: State, now: State) -> None:
        """Tell of what a change of the session changes."""
        if before.marks != now.marks:
            self.wanted_at = time.monotonic()
            for name in {mark.image for mark in set_apart(before.marks, now.marks)}:
                self._touch(name)
        self.lock.notify_all()

    def size(self, name: str) -> tuple[int, int]:
        """Height and width of an image of the folder, upright.

        Raises:
            DataError: it is gone or unreadable.
        """
        return self.folder.size(name)

    def _finding(self, image: str, identity: str) -> Found:
        result = self.results.whole(image)
        for own in result.findings if result else ():
            if own.id == identity:
                return Found(image, own.label, own.box, own.mask, result.hw if result else (0, 0))
        raise DataError("that finding is gone; newer marks give other findings")

    def state(self) -> tuple[int, State, bool, bool]:
        """Version and state of the session, and whether there is something to undo and to redo."""
        with self.lock:
            return self.history.version, self.history.now, bool(self.history.past), bool(self.history.future)

    def used_marks(self) -> list[Mark]:
        """The marks whose images are there, as they were marked."""
        with self.lock:
            return [mark for mark in self.history.now.marks if self.folder.holds(mark.image, mark.hw)]

    def advice(self) -> list[Advice]:
        """Advice on the prompts; also of marks that cannot be used."""
        with self.lock:
            marks, files, bank = self.history.now.marks, self.folder.files, self.bank
            used, checked = self.used_marks(), dict(self.checked)
        lines = []
        for mark in {(mark.image, mark.label): mark for mark in marks if mark not in used}.values():
            what = (
                f"has changed (it had {mark.hw[1]}x{mark.hw[0]} pixels)" if mark.image in files else "is gone"
            )
            text = f"the image {what}; its marks are kept, but not used"
            lines.append(Advice(mark.label, mark.image, text))
        return lines + advice(used, bank, checked)

    def keep_advice(self, marks: Sequence[Mark], lines: Sequence[Advice], labels: Sequence[str]) -> None:
        """Take in the advice on classes, which holds for these marks."""
        with self.lock:
            for label in labels:
                own = [line for line in lines if line.label == label]
                self.checked[label] = (marks_about(marks, label), own)

    def keep_threshold(self, label: str, value: float, chosen: Chosen) -> None:
        """Take in a threshold that good images proved.

        Raises:
            DataError: it cannot be saved.
        """
        with self.lock:
            change = ChooseThreshold(label, value, chosen)
            around = Around(self.size, self._finding)
            self._changed(self.history.version, lambda history: history.apply(change, around))

    def bank_to_keep(self) -> PromptBank | None:
        """The prompts in use, with what good images proved of them."""
        with self.lock:
            bank, marks = self.bank, self.history.now.marks
            if bank is None:
                return None
            proved = {
                own.name: own.chosen.calibration
                for own in self.history.now.classes
                if own.chosen is not None
                and holds(own.chosen, bank)
                # While newer marks are still encoded, these are the prompts of earlier ones.
                and marks_about(self.bank_marks, own.name) == marks_about(marks, own.name)
            }
            return bank.calibrated(proved)

    def thresholds(self) -> dict[str, float]:
        """The threshold of each class of the prompts and of the session."""
        with self.lock:
            bank, own = self.bank, self.history.now.classes
        known = dict(thresholds(bank)) if bank is not None else {}
        return known | {each.name: each.threshold for each in own if each.threshold is not None}

    def class_names(self) -> tuple[str, ...]:
        """The classes of the session, then those that only the prompts have."""
        with self.lock:
            own = [each.name for each in self.history.now.classes]
            marked = [mark.label for mark in self.history.now.marks if mark.label != ANY_CLASS]
            bank = self.bank.class_names if self.bank is not None else ()
            return tuple(dict.fromkeys([*own, *marked, *bank]))

    def key(self, model: Model) -> str:
        """What results depend on; empty where there is nothing to look for."""
        marks = self.used_marks()
        if model.base is None and not any(not mark.negative for mark in marks):
            return ""
        files = self.folder.files
        content = [
            model.detector.fingerprint,
            model.version,
            self.bit_depth,
            [[files[mark.image].stamp, {**asdict(mark), "id": "", "origin": ""}] for mark in marks],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]

    def begin(self, key: str) -> None:
        """Results are of these prompts from now on; none with an empty key."""
        with self.lock:
            known = set(self.results.done(self.folder.files))
            if key:
                self.results.begin(key, self.folder.files)
                for name in self.results.done(self.folder.files) - known:
                    self._touch(name)
            else:
                self.results.clear()
                self.bank = None
                self._touch(*self.folder.files)

    def pending(self) -> list[ImageFile]:
        """Images that were not looked at yet, those that someone sees first."""
        with self.lock:
            files, done = self.folder.files, self.results.done(self.folder.files)
            names = dict.fromkeys([*(name for name in self.visible if name in files), *files])
            return [files[name] for name in names if name not in done]

    def found(self, result: Result, key: str) -> None:
        """Take in a result, unless other prompts are looked for by now.

        Raises:
            DataError: it cannot be written.
        """
        with self.lock:
            if key == self.results.key:
                self.results.add(result)
                self._touch(result.image)

    def report(self, state: str, line: str = "") -> None:
        """Say where the detector stands."""
        with self.lock:
            files = self.folder.files
            run = Run(state, line, len(self.results.done(files)), len(files), self.results.key)
            if run != self.run:
                self.run = run
                self._number += 1
                self.lock.notify_all()

    def tell_job(self, job: Job) -> None:
        """Say how far the work beside the search is."""
        with self.lock:
            self.job = job
            self._number += 1
            self.lock.notify_all()

    def news(self, after: int, version: int, seconds: float) -> News:
        """What happened after `after`; waits up to some seconds for something to happen.

        Args:
            version: of the session that the page knows.
        """
        self._rescan()
        end = time.monotonic() + seconds
        with self.lock:
            while self._number <= after and self.history.version == version and not self.ended:
                if not self.lock.wait(end - time.monotonic()) or time.monotonic() >= end:
                    break
            new = sorted((number, name) for name, number in self._numbers.items() if number > after)
            told, marks = new[:TOLD], self.history.now.marks
            results = []
            for _, name in told:
                own = [mark for mark in marks if mark.image == name]
                if (summary := self.results.summary(name)) is not None:
                    results.append((summary, verdicts(summary, own)))
            more = len(new) > len(told)
            number = told[-1][0] if more else self._number
            state = (self.history.version, self.folder.version, self.run, self.job, self._messages.lines)
            return News(self.identity, number, more, *state, results)

    def end(self) -> None:
        """Let nobody wait for news any more, and another program have the session."""
        with self.lock:
            self.ended = True
            self._kept.close()
            self._messages.close()
            self.lock.notify_all()

    def look(self, names: Sequence[str]) -> None:
        """These images are seen now; they are looked at first."""
        with self.lock:
            self.visible = tuple(names)

    def _rescan(self) -> None:
        """Look at the folder again, if that was not done just now."""
        if time.monotonic() - self._scanned < RESCAN_SECONDS or not self._scanning.acquire(blocking=False):
            return
        try:
            fresh = ImageFolder(self.folder.root)
        except DataError as error:
            self.report("error", str(error))
        else:
            with self.lock:
                fresh.tell(self.folder.trouble)
                self.folder.trouble = fresh.trouble
                if fresh.files != self.folder.files:
                    self.folder.files = fresh.files
                    self.folder.version += 1
                    self._number += 1
                    self.wanted_at = time.monotonic()
                    self.lock.notify_all()
        finally:
            self._scanned = time.monotonic()
            self._scanning.release()

    def _touch(self, *names: str) -> None:
        for name in names:
            self._number += 1
            self._numbers[name] = self._number
        self.lock.notify_all()


def set_apart(before: Sequence[Mark], now: Sequence[Mark]) -> list[Mark]:
    """Marks that are in one of two states only."""
    return [mark for mark in before if mark not in now] + [mark for mark in now if mark not in before]
