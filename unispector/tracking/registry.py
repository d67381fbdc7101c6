"""MLflow's model registry: versions of the trained model, their aliases, and the history of decisions."""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter

from unispector.errors import RegistryError
from unispector.tracking.run import JOB_TAG, TrackedRun, TrackingStore, one_line, store_trouble

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAME = "unispector"
CHAMPION, CHALLENGER = "champion", "challenger"
KEY = "key"
PACKAGE = "package"
"""Folder among a model's artifacts that holds what this code loads: weights, configuration, lineage, card."""

Action = Literal["promoted", "refused", "approved", "rolled back"]

_MODELS, _EVENTS, _EVENT_TAG, _MODEL_TAG = "registry", "promotion", "event", "model"
_PAGE = 200
_TAG_LENGTH = 8000  # of a tag's value; MLflow cuts a longer one off
_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class ModelVersion:
    """A version in the registry."""

    number: int  # counts from 1
    created: str  # ISO time, UTC
    run_id: str  # MLflow run that holds the version's files: the one that trained it, where the store has it
    aliases: tuple[str, ...]  # names that stand for it now, in alphabetical order
    tags: dict[str, str]  # what is known of it: lineage, figures, `state`


@dataclass(frozen=True)
class Event:
    """A decision on a version."""

    action: Action
    version: int
    before: int | None  # champion until then; None where there was none
    by: str  # `rules`, or a user's name
    reason: str
    time: str  # ISO, UTC
    run_id: str = ""  # MLflow run that keeps the event; empty before it is recorded


_EVENT = TypeAdapter(Event)


def _told(
    method: Callable[Concatenate["ModelRegistry", _P], _R],
) -> Callable[Concatenate["ModelRegistry", _P], _R]:
    """Trouble with the store as one line."""

    @wraps(method)
    def told(self: "ModelRegistry", /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(self, *args, **kwargs)
        except store_trouble() as error:
            raise RegistryError(
                f"{self.place}: the model registry cannot be used ({one_line(error)}); "
                "see that its server runs, or that the folder can be written"
            ) from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise RegistryError(
                f"{self.place}: no answer that MLflow's registry gives ({one_line(error)}); check the "
                "address, and that its version is the one of requirements.lock"
            ) from error

    return told


class ModelRegistry:
    """Versions of one registered model; in a new store there are none, and reading makes none.

    Every method raises RegistryError, in one line, where the store cannot be reached.
    """

    def __init__(self, store: TrackingStore, name: str = MODEL_NAME) -> None:
        """Point at a registry; nothing is read or made before it is used.

        Args:
            store: the registry is in the same database, or on the same server.
        """
        self.name = name
        self._store = store

    @property
    def place(self) -> str:
        """The address of the registry, for people."""
        return self._store.place

    @_told
    def versions(self) -> tuple[ModelVersion, ...]:
        """All versions, newest first."""
        if not self._store._exists():
            return ()
        client = self._store.client()
        pages = _all_pages(
            lambda token: client.search_model_versions(
                f"name = '{self.name}'", max_results=_PAGE, page_token=token
            )
        )
        aliases = self._aliases(client) if pages else {}
        versions = [_version(found, aliases) for found in pages]
        return tuple(sorted(versions, key=lambda version: version.number, reverse=True))

    def version(self, reference: str | int) -> ModelVersion:
        """The version of a number or an alias.

        Raises:
            RegistryError: there is none.
        """
        found = self.find(reference)
        if found is None:
            known = ", ".join(str(version.number) for version in self.versions())
            there = (
                f"it has {known}"
                if known
                else "it is empty; register a trained model, or name a packaged one, such as fast"
            )
            what = "version" if str(reference).isdigit() else "version with the alias"
            raise RegistryError(f"{self.name}: no {what} {reference} in {self.place}; {there}")
        return found

    def find(self, reference: str | int) -> ModelVersion | None:
        """Like `version`, None where there is none."""
        text = str(reference)
        wanted = (each for each in self.versions() if str(each.number) == text or text in each.aliases)
        return next(wanted, None)

    def with_tag(self, key: str, value: str) -> ModelVersion | None:
        """The newest version that carries a tag; None without one."""
        return next((each for each in self.versions() if each.tags.get(key) == value), None)

    @_told
    def register(self, package: Path, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        """Keep a model with an MLflow run and make it the newest version.

        Its files go to a folder of their own for each tag `key`, so that a registration that was killed and
        starts again leaves nothing behind.

        Args:
            package: an MLflow model, as `serving.registered_model.save_registered_model` writes it.
            run_id: the run that trained the model; where the store has no such run, one is made.
        """
        client = self._store.client()
        key = tags.get(KEY, secrets.token_hex(16))
        run = self._run(run_id, key)
        folder = f"model-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        run.artifact(package, folder)
        self._make_model(client)
        source = f"{client.get_run(run.run_id).info.artifact_uri}/{folder}"
        made = client.create_model_version(self.name, source, run.run_id, dict(tags), await_creation_for=0)
        return self.version(int(made.version))

    @_told
    def set_alias(self, alias: str, number: int) -> None:
        """Let an alias stand for a version, and for no other."""
        self._store.client().set_registered_model_alias(self.name, alias, str(number))

    @_told
    def remove_alias(self, alias: str) -> None:
        """Let an alias stand for nothing; it need not exist."""
        self._store.client().delete_registered_model_alias(self.name, alias)

    @_told
    def tag(self, number: int, values: Mapping[str, str]) -> None:
        """Set tags of a version, one after the other; an existing one is replaced."""
        client = self._store.client()
        for key, value in values.items():
            client.set_model_version_tag(self.name, str(number), key, value)

    @_told
    def mlflow_directory(self, number: int) -> Path:
        """The version as an MLflow model, a local folder: downloaded, once, where the store is a server.

        Raises:
            RegistryError: there is no such version, or its files are gone.
        """
        self.version(number)
        client = self._store.client()
        found = client.get_model_version(self.name, str(number))
        folder = str(found.source).rsplit("/", 1)[-1]
        directory = self._local(client, str(found.run_id), folder)
        if not (directory / "MLmodel").is_file():
            raise RegistryError(
                f"{directory}: the files of {self.name} {number} are gone; delete the version in MLflow's "
                "pages, and the next retraining registers the model anew"
            )
        return directory

    def model_directory(self, number: int) -> Path:
        """Local folder of a version with `model.safetensors`, `config.json`, `lineage.json` and `README.md`.

        Raises:
            RegistryError: there is no such version, or its files are gone.
        """
        return self.mlflow_directory(number) / "artifacts" / PACKAGE

    @_told
    def begin(self, event: Event, files: Sequence[Path] = ()) -> None:
        """Write down an event that is about to be carried out; the same event is never there twice.

        Args:
            event: what was decided; `history` has it once it is finished.
        """
        run = self._open(event)
        for file in files:
            run.artifact(file)

    @_told
    def finish(self, event: Event) -> None:
        """Put an event that was begun into the history."""
        self._open(event).end("FINISHED")

    def begun(self) -> tuple[Event, ...]:
        """Events that were begun and never finished, oldest first."""
        return tuple(reversed(self._events("status != 'FINISHED'")))

    def history(self) -> tuple[Event, ...]:
        """All events, newest first."""
        return self._events("status = 'FINISHED'")

    @_told
    def event_files(self, event: Event) -> tuple[Path, ...]:
        """Return the files kept with an event of `history`, as local files, sorted by name."""
        client = self._store.client()
        names = sorted(each.path for each in client.list_artifacts(event.run_id) if not each.is_dir)
        return tuple(self._local(client, event.run_id, name) for name in names)

    @_told
    def _events(self, query: str) -> tuple[Event, ...]:
        """The events of some runs, newest first."""
        if not self._store._exists():
            return ()
        client = self._store.client()
        known = client.get_experiment_by_name(_EVENTS)
        if known is None:
            return ()
        runs = _all_pages(
            lambda token: client.search_runs(
                [known.experiment_id], query, max_results=_PAGE, page_token=token
            )
        )
        events = [
            _event(run.info.run_id, run.data.tags[_EVENT_TAG])
            for run in runs
            if _EVENT_TAG in run.data.tags and run.data.tags.get(_MODEL_TAG) == self.name
        ]
        return tuple(sorted(events, key=lambda event: event.time, reverse=True))

    def _open(self, event: Event) -> TrackedRun:
        text = json.dumps(asdict(replace(event, run_id="")), ensure_ascii=False)
        if len(text) > _TAG_LENGTH:
            raise RegistryError(f"a reason that takes {len(text)} characters to store; give a shorter one")
        job = hashlib.sha256(f"{self.name} {text}".encode()).hexdigest()
        tags = {JOB_TAG: job, _EVENT_TAG: text, _MODEL_TAG: self.name}
        return self._store.open(_EVENTS, f"{self.name} {event.version} {event.action}", tags)

    def _run(self, run_id: str, key: str) -> TrackedRun:
        if run_id and self._store.has_run(run_id):
            return self._store.existing(run_id)
        with self._store.run(_MODELS, f"{self.name} {key[:12]}", {JOB_TAG: key}) as run:
            return run

    def _make_model(self, client: "MlflowClient") -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _aliases(self, client: "MlflowClient") -> dict[int, tuple[str, ...]]:
        aliases = client.get_registered_model(self.name).aliases
        numbers = {int(number) for number in aliases.values()}
        return {
            number: tuple(sorted(alias for alias, target in aliases.items() if int(target) == number))
            for number in numbers
        }

    def _local(self, client: "MlflowClient", run_id: str, path: str) -> Path:
        """An artifact of a run on this machine; what a server holds is downloaded, whole or not at all."""
        uri = urlsplit(str(client.get_run(run_id).info.artifact_uri))
        if uri.scheme in ("", "file"):
            recorded = Path(unquote(uri.path))
            moved = self._store.root.joinpath("artifacts", *recorded.parts[-3:])  # with all of the project
            return (recorded if recorded.exists() else moved) / path
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        kept = self._store.root / "downloads" / run_id / path
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=kept.parent) as scratch:
                client.download_artifacts(run_id, path, scratch)
                with suppress(OSError):  # another process was faster
                    (Path(scratch) / path).replace(kept)
        return kept


def _event(run_id: str, text: str) -> Event:
    try:
        return replace(_EVENT.validate_json(text, strict=True, extra="forbid"), run_id=run_id)
    except ValueError as error:
        raise RegistryError(
            f"run {run_id}: its tag `{_EVENT_TAG}` is damaged; delete the run in MLflow's pages"
        ) from error


def now() -> str:
    """This moment as ISO time, UTC, for events."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _all_pages(page: Callable[[str | None], Any]) -> list[Any]:
    found, token = [], None
    while True:
        part = page(token)
        found += part
        token = part.token
        if not token:
            return found


def _version(found: Any, aliases: Mapping[int, tuple[str, ...]]) -> ModelVersion:
    number = int(found.version)
    created = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
    tags = {str(key): str(value) for key, value in found.tags.items()}
    return ModelVersion(number, created, str(found.run_id or ""), aliases.get(number, ()), tags)
