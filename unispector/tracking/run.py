"""MLflow runs in a local SQLite store: the only module that knows MLflow."""

import logging
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unispector.errors import CheckpointError

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

JOB_TAG = "job"
MODEL_TAG = "model_directory"

_PARENT_TAG, _NAME_TAG = "mlflow.parentRunId", "mlflow.runName"
_PARAM_LENGTH, _PARAMS_AT_ONCE = 6000, 100
_opening = threading.Lock()


class TrackedRun:
    """One run, open for logging; made by `TrackingStore.run`."""

    def __init__(self, client: "MlflowClient", run_id: str, root: Path) -> None:
        """Wrap an existing run.

        Args:
            client: of the store the run lives in.
            run_id: MLflow's id.
            root: the store's folder; model directories are recorded relative to it.
        """
        self.run_id = run_id
        self._client = client
        self._root = root
        self._warned = False

    def params(self, values: Mapping[str, object]) -> None:
        """Record parameters, flat; nested ones are joined with dots beforehand (`flat`).

        Raises:
            MlflowException: a parameter is already recorded with another value.
        """
        from mlflow.entities import Param

        params = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in values.items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self.run_id, params=params[start : start + _PARAMS_AT_ONCE])

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers at a step; trouble with the store is warned of once and never stops training."""
        import time

        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value in values.items()]
        try:
            self._client.log_batch(self.run_id, metrics=entries)
        except (MlflowException, OSError) as error:
            if not self._warned:
                reason = " ".join(str(error).split())
                logger.warning("run %s: metrics of step %d were not recorded (%s)", self.run_id, step, reason)
            self._warned = True

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; an existing one is replaced."""
        for key, value in values.items():
            self._client.set_tag(self.run_id, key, value)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or all of a directory, into the run's artifacts.

        Args:
            path: what to copy.
            folder: where to put it among the run's artifacts; None = at the top.
        """
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Record rows as the table `<name>.json`, which MLflow's pages can show and compare.

        Args:
            name: file name without suffix, `/` for folders.
            rows: the same keys in each; at least one.
        """
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        self._client.log_table(self.run_id, columns, f"{name}.json")

    def model_directory(self, directory: Path) -> None:
        """Record where this run's model was saved, so that the run's id can stand for the model."""
        self.tags({MODEL_TAG: os.path.relpath(directory.resolve(), self._root)})


class TrackingStore:
    """MLflow experiments under one folder: `mlflow.db` and `artifacts/`. Nothing leaves the machine."""

    def __init__(self, root: Path = Path("artifacts/mlflow")) -> None:
        """Point at a store; nothing is read or made before it is used.

        Args:
            root: folder of the store, made on first use.
        """
        self.root = root.resolve()
        self._connection: MlflowClient | None = None

    @property
    def uri(self) -> str:
        """MLflow's tracking URI of the store."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @contextmanager
    def run(
        self,
        experiment: str,
        name: str,
        tags: Mapping[str, str],
        parent: str | None = None,
    ) -> Iterator[TrackedRun]:
        """Open a run; one whose tag `job` equals that of an earlier run goes on with that run.

        The run ends FINISHED, KILLED after an interrupt, and FAILED after any other exception.

        Args:
            experiment: made when new.
            name: shown in MLflow's pages.
            tags: put a hash of everything that determines the work under `job`, so that a killed
                job which starts again makes no second run.
            parent: id of the run this one is nested under.
        """
        client = self._client()
        everything = {**tags, **({_PARENT_TAG: parent} if parent else {})}
        experiment_id = self._experiment(experiment)
        run_id = self._run_of_job(experiment_id, tags.get(JOB_TAG))
        if run_id is None:
            run_id = client.create_run(experiment_id, tags=everything, run_name=name).info.run_id
        else:
            client.update_run(run_id, status="RUNNING", name=name)
        run = TrackedRun(client, run_id, self.root)
        run.tags({**everything, _NAME_TAG: name})
        with self._ending(run):
            yield run

    def existing(self, run_id: str) -> TrackedRun:
        """A run to add to, whatever its status, which stays as it is.

        Raises:
            CheckpointError: there is no such run.
        """
        self._tags_of(run_id)
        return TrackedRun(self._client(), run_id, self.root)

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
        """Whether the store has this run, not deleted; a store that was never used has none."""
        from mlflow.exceptions import MlflowException

        if not (self.root / "mlflow.db").exists():
            return False
        try:
            return bool(self._client().get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException:
            return False

    def ui_command(self) -> str:
        """The shell command that shows the store in a browser, paths relative to the working folder."""
        program = Path(sys.executable).parent / "mlflow"
        shown = _shortest(program) if program.exists() else "mlflow"
        database = _shortest(self.root / "mlflow.db")
        return f"{shlex.quote(shown)} ui --backend-store-uri {shlex.quote(f'sqlite:///{database}')}"

    @contextmanager
    def _ending(self, run: TrackedRun) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            self._client().set_terminated(run.run_id, status)
            raise
        self._client().set_terminated(run.run_id, "FINISHED")

    def _client(self) -> "MlflowClient":
        """The connection; the first one makes the database, one thread at a time."""
        with _opening:
            if self._connection is None:
                os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
                os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
                for noisy in ("alembic", "mlflow.store.db.utils"):
                    logging.getLogger(noisy).setLevel(logging.WARNING)
                from mlflow import MlflowClient

                (self.root / "artifacts").mkdir(parents=True, exist_ok=True)
                client = MlflowClient(tracking_uri=self.uri)
                client.search_experiments(max_results=1)
                self._connection = client
            return self._connection

    def _experiment(self, name: str) -> str:
        client = self._client()
        with _opening:
            known = client.get_experiment_by_name(name)
            if known is not None:
                return str(known.experiment_id)
            return str(client.create_experiment(name, (self.root / "artifacts" / name).as_uri()))

    def _run_of_job(self, experiment_id: str, job: str | None) -> str | None:
        if job is None:
            return None
        query = f"tags.`{JOB_TAG}` = '{job}'"
        found = self._client().search_runs([experiment_id], query, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _tags_of(self, run_id: str) -> dict[str, str]:
        if not self.has_run(run_id):
            raise CheckpointError(f"{run_id}: no such run; `{self.ui_command()}` lists them")
        return dict(self._client().get_run(run_id).data.tags)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, keys joined with dots, in the order given."""
    result: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result


def _shortest(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
