"""MLflow runs, in a local SQLite store or on the server at `MLFLOW_TRACKING_URI`."""

import json
import logging
import math
import os
import re
import shlex
import sqlite3
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unispector.errors import CheckpointError
from unispector.ops.json_text import parse_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

JOB_TAG = "job"
MODEL_TAG = "model_directory"

_PARENT_TAG, _TABLES_TAG = "mlflow.parentRunId", "mlflow.loggedArtifacts"
_PARAM_LENGTH = 6000
_opening = threading.Lock()


class Point(NamedTuple):
    """Figures at one step: `step`, `time` in seconds since 1970, `values` by name."""

    step: int
    time: float
    values: Mapping[str, float]


class TrackedRun:
    """One run, open for logging; made by `TrackingStore.run`."""

    def __init__(self, client: "MlflowClient", run_id: str, root: Path, *, reopened: bool = False) -> None:
        """Wrap an existing run.

        Args:
            root: the store's folder; model directories are recorded relative to it.
            reopened: an earlier attempt at the same job may have recorded metrics already.
        """
        self.run_id = run_id
        self._client = client
        self._root = root
        self._reopened = reopened
        self._recorded: dict[str, dict[int, float]] = {}

    def params(self, values: Mapping[str, object]) -> None:
        """Record parameters, flat; nested ones are joined with dots beforehand (`flat`).

        Raises:
            MlflowException: a parameter is already recorded with another value.
        """
        from mlflow.entities import Param

        params = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in values.items()]
        self._client.log_batch(self.run_id, params=params)

    def points(self, points: "Sequence[Point]") -> None:
        """Record numbers at steps.

        A job that went on from a checkpoint comes to some steps again: what its run recorded of them
        before it was reopened stays.
        """
        self._log(
            [
                (key, point.step, float(value), int(point.time * 1000))
                for point in points
                for key, value in point.values.items()
                if self._is_new(key, point.step)
            ]
        )

    def end(self, status: str, at: float | None = None) -> None:
        """Close the run: `FINISHED`, `FAILED` or `KILLED`, at a time in seconds since 1970 or now."""
        self._client.set_terminated(self.run_id, status, None if at is None else int(at * 1000))

    def results(self, curves: Mapping[str, Mapping[int, float]]) -> None:
        """Record final figures, in a run that may have some from an earlier time already.

        Args:
            curves: metric -> step -> value; a figure that is no curve has step 0. What is not finite is
                left out, as is what the run has already; a changed value becomes the step's latest.

        Raises:
            MlflowException: trouble with the store, or a name MLflow does not take (`metric_part`).
        """
        latest = self._client.get_run(self.run_id).data.metrics
        entries, now = [], int(time.time() * 1000)
        for key, curve in curves.items():
            # MLflow tells all latest values at once, but a history only one by one.
            known = dict.fromkeys(curve, latest.get(key))
            if key in latest and len(curve) > 1:
                known = {**dict.fromkeys(curve), **self._history(key)}
            entries += [
                (key, step, value, now)
                for step, value in curve.items()
                if math.isfinite(value) and value != known[step]
            ]
        self._log(entries)

    def _log(self, entries: Sequence[tuple[str, int, float, int]]) -> None:
        from mlflow.entities import Metric

        # The client keeps to the limits of a batch itself.
        metrics = [Metric(key, value, milliseconds, step) for key, step, value, milliseconds in entries]
        self._client.log_batch(self.run_id, metrics=metrics)

    def _is_new(self, key: str, step: int) -> bool:
        if not self._reopened:
            return True
        if key not in self._recorded:
            self._recorded[key] = self._history(key)
        return step not in self._recorded[key]

    def _history(self, key: str) -> dict[int, float]:
        """Step -> value, the latest where a step has several."""
        return {entry.step: entry.value for entry in self._client.get_metric_history(self.run_id, key)}

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; an existing one is replaced."""
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in values.items()])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or all of a directory, into the run's artifacts.

        Args:
            folder: where to put it among the run's artifacts; None = at the top.
        """
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Record rows as the table `<name>.json`, which MLflow's pages can show and compare.

        MLflow's own `log_table` adds to a table that is there; this one takes its place.

        Args:
            name: file name without suffix, `/` for folders.
            rows: the same keys in each; at least one. A value that is not finite is left empty.
        """
        file = f"{name}.json"
        data = [[_json_value(row[key]) for key in rows[0]] for row in rows]
        content = {"columns": list(rows[0]), "data": data}
        self._client.log_text(self.run_id, json.dumps(content), file)
        tables = parse_json(self._client.get_run(self.run_id).data.tags.get(_TABLES_TAG, "[]"))
        if file not in [table["path"] for table in tables]:
            self.tags({_TABLES_TAG: json.dumps([*tables, {"path": file, "type": "table"}])})

    def model_directory(self, directory: Path) -> None:
        """Record where this run's model was saved, so that the run's id can stand for the model."""
        self.tags({MODEL_TAG: os.path.relpath(directory.resolve(), self._root)})


class TrackingStore:
    """MLflow experiments: in one folder (`mlflow.db`, `artifacts/`), or where `MLFLOW_TRACKING_URI` says."""

    def __init__(self, root: Path = Path("artifacts/mlflow")) -> None:
        """Point at a store; nothing is read or made before it is used.

        Args:
            root: folder of the store, made on first use; of models on a server too the place follows from it.
        """
        self.root = root.resolve()
        self._server = os.environ.get("MLFLOW_TRACKING_URI")
        self._connection: MlflowClient | None = None

    @property
    def uri(self) -> str:
        """MLflow's tracking URI of the store."""
        return self._server or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def place(self) -> str:
        """The address of the runs, for people: the folder, or the server without a password."""
        return re.sub(r"//[^/@]*@", "//", self._server) if self._server else str(self.root)

    @contextmanager
    def run(
        self, experiment: str, name: str, tags: Mapping[str, str], parent: str | None = None
    ) -> Iterator[TrackedRun]:
        """Open a run; one whose tag `job` equals that of an earlier run goes on with that run.

        The run ends FINISHED, KILLED after an interrupt, and FAILED after any other exception.

        Args:
            tags: put a hash of everything that determines the work under `job`, so that a killed
                job which starts again makes no second run.
            parent: id of the run this one is nested under.
        """
        run = self.open(experiment, name, {**tags, **({_PARENT_TAG: parent} if parent else {})})
        try:
            yield run
        except BaseException as error:
            run.end("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        run.end("FINISHED")

    def open(self, experiment: str, name: str, tags: Mapping[str, str]) -> TrackedRun:
        """Open a run as `run` does; whoever opens it ends it."""
        client = self.client()
        experiment_id = self._experiment(experiment)
        run_id = self._run_of_job(experiment_id, tags.get(JOB_TAG))
        if run_id is None:
            run_id = client.create_run(experiment_id, tags=dict(tags), run_name=name).info.run_id
            return TrackedRun(client, run_id, self.root)
        client.update_run(run_id, status="RUNNING", name=name)
        run = TrackedRun(client, run_id, self.root, reopened=True)
        run.tags(tags)
        return run

    def existing(self, run_id: str) -> TrackedRun:
        """A run to add to, whatever its status, which stays as it is.

        Raises:
            CheckpointError: there is no such run.
        """
        self._tags_of(run_id)
        return TrackedRun(self.client(), run_id, self.root)

    def latest(self, experiment: str, tag: str, value: str) -> TrackedRun | None:
        """The run with this tag that ended last, to add to; None without one."""
        if not self._exists():
            return None
        client = self.client()
        known = client.get_experiment_by_name(experiment)
        query, order = f"tags.`{tag}` = '{value}'", ["attributes.end_time DESC"]
        found = known and client.search_runs([known.experiment_id], query, max_results=1, order_by=order)
        return TrackedRun(client, found[0].info.run_id, self.root) if found else None

    @contextmanager
    def unfailing(self, what: str) -> Iterator[None]:
        """Turn errors of the store into warnings: what is recorded there is on the disk too."""
        try:
            yield
        except store_trouble() as error:
            logger.warning(
                "%s: %s was not recorded in full (%s); its files are complete",
                self.place,
                what,
                one_line(error),
            )

    def model_directory(self, run_id: str) -> Path:
        """Directory of the model a run has saved.

        Raises:
            CheckpointError: there is no such run, it saved no model, or the model is gone.
        """
        tags = self._tags_of(run_id)
        if MODEL_TAG not in tags:
            raise CheckpointError(f"run {run_id} has no model yet; wait for its end or name a directory")
        directory = Path(os.path.normpath(self.root / tags[MODEL_TAG]))
        if not directory.is_dir():
            raise CheckpointError(f"{directory}: the model of run {run_id} is gone; train again")
        return directory

    def has_run(self, run_id: str) -> bool:
        """Return whether the store has this run, not deleted; a store that was never used has none."""
        from mlflow.exceptions import MlflowException

        if not self._exists():
            return False
        try:
            return bool(self.client().get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException:
            return False

    def ui_command(self) -> str:
        """The shell command that shows the store in a browser, paths relative to the working folder."""
        if self._server:
            return f"python -m webbrowser {shlex.quote(self.place)}"
        program = Path(sys.executable).parent / "mlflow"
        shown = _shortest(program) if program.exists() else "mlflow"
        database = _shortest(self.root / "mlflow.db")
        return f"{shlex.quote(shown)} ui --backend-store-uri {shlex.quote(f'sqlite:///{database}')}"

    def _exists(self) -> bool:
        return self._server is not None or (self.root / "mlflow.db").exists()

    def client(self) -> "MlflowClient":
        """The connection; the first one makes the database, one thread at a time."""
        with _opening:
            if self._connection is None:
                os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
                os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
                logging.getLogger("alembic").setLevel(logging.WARNING)
                # Its errors are raised too; here they would come with the whole SQL and a traceback.
                logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
                from mlflow import MlflowClient

                # Its own patience with a server that does not answer is minutes for every request.
                os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
                os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
                os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
                logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
                if self._server is None:
                    (self.root / "artifacts").mkdir(parents=True, exist_ok=True)
                    # Where this fails MLflow would try again for most of an hour.
                    sqlite3.connect(self.root / "mlflow.db").close()
                client = MlflowClient(tracking_uri=self.uri)
                client.search_experiments(max_results=1)
                self._connection = client
            return self._connection

    def _experiment(self, name: str) -> str:
        client = self.client()
        with _opening:
            known = client.get_experiment_by_name(name)
            if known is not None:
                return str(known.experiment_id)
            own = None if self._server else (self.root / "artifacts" / name).as_uri()
            return str(client.create_experiment(name, own))

    def _run_of_job(self, experiment_id: str, job: str | None) -> str | None:
        if job is None:
            return None
        query = f"tags.`{JOB_TAG}` = '{job}'"
        found = self.client().search_runs([experiment_id], query, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _tags_of(self, run_id: str) -> dict[str, str]:
        if not self.has_run(run_id):
            raise CheckpointError(f"{run_id}: no such run; `{self.ui_command()}` lists them")
        return dict(self.client().get_run(run_id).data.tags)


def store_trouble() -> tuple[type[Exception], ...]:
    """The exceptions by which a store says that it cannot be used now."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, sqlite3.Error, OSError


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, keys joined with dots, in the order given."""
    result: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result


def metric_part(name: str) -> str:
    """`name` as one part of a metric's name, which MLflow shows and groups by `/`.

    Letters, digits, `_`, `-`, `.` and spaces stay; anything else becomes its code point, `:2b:` for
    `+`, so that different names stay different.
    """
    return re.sub(r"[^\w .-]|^\.+$", lambda part: "".join(f":{ord(sign):x}:" for sign in part[0]), name)


def _json_value(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def one_line(error: Exception) -> str:
    """Return an exception's message in one line of limited length, without passwords in addresses."""
    return textwrap.shorten(re.sub(r"//[^/@\s]*@", "//", str(error)), 300, placeholder="...")


def _shortest(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
