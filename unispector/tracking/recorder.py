"""A training's run, recorded whenever the store can be reached; trouble with the store never raises.

What the run is to hold lies in a file until the store has all of it; its figures are those of the
training's own reports, which lie on the disk too. So nothing is lost when a server is away: whoever finds
the file later makes a `Recorder` of it and gives it the reports again. The run is found by its tag `job`
and asked what it has already, so nothing is recorded twice.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from unispector.errors import DataError
from unispector.ops.files import atomic_write_json
from unispector.ops.json_text import parse_json
from unispector.tracking.run import Point, TrackedRun, TrackingStore, one_line, store_trouble

logger = logging.getLogger(__name__)

Artifact = tuple[str, str]
"""A file to copy if it is there, and the folder it goes to among the artifacts, empty at the top."""

_SECONDS_BETWEEN_TRIES = 30.0


@dataclass(frozen=True)
class RunRecord:
    """What a run is to hold in the end, its figures and images apart."""

    experiment: str
    name: str
    tags: dict[str, str]  # the hash of everything that determines the work under `job`
    params: dict[str, str]
    model: str = ""  # directory of the model it makes, recorded once it is `FINISHED`; empty without one
    status: str = "RUNNING"  # `RUNNING`, then `FINISHED`, `FAILED` or `KILLED`
    ended: float | None = None  # when, in seconds since 1970; None while it runs

    @classmethod
    def read(cls, file: Path) -> "RunRecord":
        """Read the file of a `Recorder`.

        Raises:
            DataError: the file is absent or damaged.
        """
        try:
            content = {**parse_json(file.read_text(encoding="utf-8"))}
            content.pop("artifacts", None)  # kept by earlier versions of this code
            return cls(**content)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{file}: not the record of a run; delete it") from error


class Recorder:
    """Brings one run of a store up to date, again and again until all of it is there."""

    def __init__(self, store: TrackingStore, record: RunRecord, file: Path) -> None:
        """Write the file; the store is not touched yet.

        Args:
            file: where that lies until the store has it all.
        """
        self._store, self._record, self._file = store, record, file
        self._run: TrackedRun | None = None
        self._unsent: list[Point] = []
        self._copied: set[Artifact] = set()
        self._next_try = 0.0
        self._warned = False
        self.run_id = ""
        self._keep()

    def update(self, points: Sequence[Point] = (), artifacts: Sequence[Artifact] = ()) -> None:
        """Record more; the first call opens the run. After trouble the store is left alone for a while.

        Args:
            artifacts: all files so far, those recorded before too.
        """
        self._unsent += points
        if time.monotonic() >= self._next_try:
            self._complete(artifacts)

    def end(
        self,
        status: str,
        points: Sequence[Point] = (),
        artifacts: Sequence[Artifact] = (),
        at: float | None = None,
    ) -> bool:
        """Record how the run ended, and all that is still missing.

        Args:
            status: `FINISHED`, `FAILED` or `KILLED`.
            at: when, in seconds since 1970; None = now.

        Returns:
            Whether the store has all of it; otherwise the file stays.
        """
        self._unsent += points
        self._record = replace(self._record, status=status, ended=time.time() if at is None else at)
        self._keep()
        complete = self._complete(artifacts)
        if complete:
            self._file.unlink(missing_ok=True)
        return complete

    def _complete(self, artifacts: Sequence[Artifact]) -> bool:
        try:
            self._send(artifacts)
        except store_trouble() as error:
            # What of it arrived is unknown: the run is asked when it is opened again.
            self._run = None
            self._next_try = time.monotonic() + _SECONDS_BETWEEN_TRIES
            if not self._warned:
                logger.warning(
                    "%s: MLflow at %s cannot be used now (%s); what it misses is kept and sent later",
                    self._record.name,
                    self._store.place,
                    one_line(error),
                )
            self._warned = True
            return False
        return True

    def _send(self, artifacts: Sequence[Artifact]) -> None:
        record = self._record
        if self._run is None:
            self._run = self._store.open(record.experiment, record.name, record.tags)
            self.run_id = self._run.run_id
            self._run.params(record.params)
        self._run.points(self._unsent)
        self._unsent.clear()
        if record.model and record.status == "FINISHED":
            self._run.model_directory(Path(record.model))
            artifacts = [*artifacts, (f"{record.model}/config.json", "")]
        for path, folder in artifacts:
            if (path, folder) not in self._copied and Path(path).exists():
                self._run.artifact(Path(path), folder or None)
                self._copied.add((path, folder))
        if record.ended is not None:
            self._run.end(record.status, record.ended)

    def _keep(self) -> None:
        atomic_write_json(self._file, asdict(self._record))
