"""Work that a person asks for beside the search: marks checked, thresholds chosen; one at a time."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unispector.errors import DataError, UniSpectorError
from unispector.project.progress import listening
from unispector.prompts.calibrate import provable_odds
from unispector.workbench import joined
from unispector.workbench.marks import Mark
from unispector.workbench.project import Job, Project
from unispector.workbench.session import State, marks_about

logger = logging.getLogger(__name__)

JOB = "bench job"
"""Name of the thread."""


@dataclass(frozen=True)
class Provable:
    """What the good images can prove of a class."""

    good: int  # images
    best: int  # N of the fewest false alarms, one in N good images; 0 = too few for any
    refusal: str  # why the number that was asked for cannot be proved; empty where it can


class _GivenUpError(Exception):
    """The job is not wanted any more; the text says why."""


class Jobs:
    """Does the work on one project in a thread of its own."""

    def __init__(self, project: Project, model: Callable[[], joined.Model | str]) -> None:
        """Nothing runs yet.

        Args:
            model: gives the model in use, or a line that says why there is none.
        """
        self._project = project
        self._model = model
        self._stopped = False

    def check(self, label: str) -> None:
        """Begin to check the marks of a class, or of all classes where it is empty.

        Raises:
            DataError: there is nothing to check, or other work runs.
        """
        marks = self._project.used_marks()
        labels = joined.checkable(marks, label)
        model = self._ready()

        def work() -> None:
            lines = joined.check(model, marks, self._project.folder.root, labels, self._project.bit_depth)
            self._project.keep_advice(marks, lines, labels)

        self._start("check", label, marks, labels, work)

    def provable(self, label: str, one_in: int) -> Provable:
        """What the good images can prove, before a threshold is chosen.

        Raises:
            DataError: the model is not there yet.
        """
        good = self._good()
        try:
            self._check_budget(label, one_in, good)
        except DataError as error:
            return Provable(len(good), provable_odds(len(good)), str(error))
        return Provable(len(good), provable_odds(len(good)), "")

    def choose(self, label: str, one_in: int) -> None:
        """Begin to choose the threshold of a class.

        Args:
            one_in: of so many good images at most one may show a false alarm.

        Raises:
            DataError: too few good images or marks, or other work runs.
        """
        project, good = self._project, self._good()
        model, marks = self._check_budget(label, one_in, good)

        def work() -> None:
            value, chosen = joined.choose(
                model, marks, project.folder.root, label, good, one_in, project.bit_depth
            )
            with project.lock:
                self._unless_changed(marks, [label])
                project.keep_threshold(label, value, chosen)

        self._start("threshold", label, marks, [label], work)

    def stop(self) -> None:
        """Give the work up; does not wait for it."""
        self._stopped = True

    def _good(self) -> list[Path]:
        files = self._project.folder.files
        good = sorted(self._project.state()[1].good)
        return [self._project.folder.root / name for name in good if name in files]

    def _check_budget(
        self, label: str, one_in: int, good: Sequence[Path]
    ) -> tuple[joined.Model, Sequence[Mark]]:
        model, marks = self._ready(), self._project.used_marks()
        about = marks_about(self._project.state()[1].marks, label)
        joined.check_budget(model, about, marks, label, (len(good), one_in))
        return model, marks

    def _ready(self) -> joined.Model:
        model = self._model()
        if isinstance(model, str):
            raise DataError(model)
        return model

    def _start(
        self, kind: str, label: str, marks: Sequence[Mark], labels: Sequence[str], work: Callable[[], None]
    ) -> None:
        project = self._project
        with project.lock:
            if project.job.running:
                raise DataError("other work is running; wait for it or stop it")
            self._stopped = False
            job = Job(project.job.number + 1, kind, label, running=True)
            project.tell_job(job)

        def told(_: str, done: int, total: int | None) -> None:
            self._unless_changed(marks, labels)
            project.tell_job(replace(project.job, done=done, total=total or 0))

        def run() -> None:
            line = ""
            try:
                with listening(told):
                    work()
            except (_GivenUpError, UniSpectorError) as error:
                line = str(error).replace(f"{project.folder.root}/", "")
            except Exception as error:
                logger.exception("%s on %s", kind, project.folder.root)
                line = f"{type(error).__name__}: {error}"[:300]
            project.tell_job(replace(project.job, running=False, line=line))

        # Waited for at the end of the program, as the search is; it stops at its next trial.
        threading.Thread(target=run, name=JOB).start()

    def _unless_changed(self, marks: Sequence[Mark], labels: Sequence[str]) -> None:
        project = self._project
        if self._stopped or project.ended:
            raise _GivenUpError("stopped")
        now = State(marks=tuple(project.used_marks()))
        if any(marks_about(marks, label) != now.marks_about(label) for label in labels):
            raise _GivenUpError("given up, since the marks have changed; start it again")
