"""Stage `train`: what of a training goes to MLflow, at once or when it can be reached again."""

import csv
import io
import logging
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from unispector.ops.files import atomic_write_text
from unispector.project.paths import CHECKPOINTS, TRACKING
from unispector.tracking.recorder import Recorder, RunRecord
from unispector.tracking.run import JOB_TAG, Point, TrackingStore, flat
from unispector.training.images import FOLDER
from unispector.training.job import CACHED, CHECKPOINT, TrainingJob
from unispector.training.ray_trainer import Reported, past_reports

logger = logging.getLogger(__name__)

EXPERIMENT = "training"
RUN_FILE = "run.json"
"""Of a job's work directory: there as long as MLflow has not got all of the job's run."""

_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def recorded(job: TrainingJob, root: Path) -> Iterator["Follower"]:
    """Record what happens in the block as the job's run; one that was begun before goes on.

    The run ends FINISHED, KILLED after an interrupt, and FAILED after any other exception. Trouble with
    MLflow is said in one line and stops nothing.

    Yields:
        What to give the job's reports to.
    """
    tags = {JOB_TAG: job.key, "variant": job.variant, "split_seed": str(job.seed), **job.provenance}
    params = {name: str(value) for name, value in flat(job.config.model_dump(mode="json")).items()}
    record = RunRecord(EXPERIMENT, job.name, tags, params, str(job.model_directory))
    recorder = Recorder(TrackingStore(root / TRACKING), record, job.work_directory / RUN_FILE)
    recorder.update()
    follower = Follower(job, recorder)
    try:
        yield follower
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        recorder.end(status, artifacts=_pictures(job.work_directory))
        raise
    if not recorder.end("FINISHED", artifacts=_pictures(job.work_directory)):
        logger.warning("%s: MLflow lacks some of it; `unispector stage send-runs` sends it", job.name)


def send_left(root: Path = Path(), going_on: Collection[Path] | None = None) -> int:
    """Send to MLflow what earlier trainings could not.

    Args:
        going_on: work directories of trainings that start now and record themselves; every other one that
            has no end was killed. None = others may be training, and only what has ended is sent.

    Returns:
        Runs that are still not complete.

    Raises:
        DataError: the record of a run is damaged.
    """
    store, missing = TrackingStore(root / TRACKING), 0
    for file in sorted((root / CHECKPOINTS).resolve().glob(f"*/{RUN_FILE}")):
        record, folder = RunRecord.read(file), file.parent
        if folder in (going_on or ()) or (going_on is None and record.ended is None):
            continue
        points = [Point(each.step, each.time, each.metrics) for each in past_reports(folder)]
        last = points[-1].time if points else file.stat().st_mtime
        status, at = ("KILLED", last) if record.ended is None else (record.status, record.ended)
        if not Recorder(store, record, file).end(status, points, _pictures(folder), at):
            missing += 1
        elif not (folder / CHECKPOINT).exists():
            shutil.rmtree(folder)
    return missing


class Follower:
    """Turns a job's reports and images into MLflow's, and, now and then, into a line for the reader."""

    def __init__(self, job: TrainingJob, recorder: Recorder) -> None:
        """Nothing has come yet."""
        self.loss: float | None = None
        self._job, self._recorder = job, recorder
        self._curve: list[dict[str, float]] = []
        self._began = self._said = time.monotonic()
        self._first: int | None = None
        train = job.config.train
        logger.info("%s: %d steps, told from step %d on", job.name, train.steps, train.log_every)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; empty as long as MLflow has not been reached."""
        return self._recorder.run_id

    def __call__(self, reported: Reported) -> None:
        """Take a report."""
        step, metrics = reported.step, reported.metrics
        self._recorder.update([Point(step, reported.time, metrics)], _pictures(self._job.work_directory))
        self.loss = metrics["loss/total"]
        self._curve.append({"step": step, **metrics})
        now, steps = time.monotonic(), self._job.config.train.steps
        if self._first is None:
            self._began, self._first = now, step
        if now - self._said < _SECONDS_BETWEEN_LINES and step < steps:
            return
        self._said = now
        pace = (now - self._began) / max(step - self._first, 1)
        left = f", about {pace * (steps - step) / 60:.0f} min left" if self._first < step < steps else ""
        kept = f", {100 * metrics[CACHED]:.0f} % of the views kept" if CACHED in metrics else ""
        logger.info("%s: step %d of %d, loss %.2f%s%s", self._job.name, step, steps, self.loss, left, kept)

    def write_curve(self, path: Path) -> None:
        """Write all reports as CSV, which DVC draws and a spreadsheet opens."""
        text = io.StringIO()
        names = {name for row in self._curve for name in row}  # a figure may be absent at some steps
        writer = csv.DictWriter(text, ["step", *sorted(names - {"step"})], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._curve)
        atomic_write_text(path, text.getvalue())


def _pictures(folder: Path) -> list[tuple[str, str]]:
    """The images of the training in this work directory, and where they go."""
    return [(str(path), FOLDER) for path in sorted((folder / FOLDER).glob("step-*"))]
