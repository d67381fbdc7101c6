"""The retraining flow: new raw data or code lead to a challenger and a written decision, or to nothing."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_client, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.states import Crashed

from flows.guard import guard_this_process
from unispector.config import load_config
from unispector.environment import show_messages
from unispector.errors import TrainingError, UniSpectorError
from unispector.stages.alert import alert
from unispector.stages.paths import TRACKING
from unispector.stages.promote import BY_RULES, promote
from unispector.stages.register import register_challenger
from unispector.stages.retrain import DataRefusedError, Journal, Look, look, reproduce, version_key
from unispector.tracking.registry import ModelRegistry
from unispector.tracking.run import TrackingStore

NAME = "retrain"
LOCK = Path("artifacts/retraining.lock")

_PATIENCE = 30.0  # seconds for the guard of a killed retraining to clear up
_RETRY_SECONDS = 30.0

logger = logging.getLogger("unispector.flows")


def worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a failed step is tried again: not when a person must mend something first."""
    return not isinstance(state.result(raise_on_failure=False), DataRefusedError)


def step(name: str) -> Callable[..., Any]:
    """A task whose truth is files, MLflow and DVC, not Prefect's cache."""
    return task(
        name=name, cache_policy=NO_CACHE, retry_delay_seconds=_RETRY_SECONDS, retry_condition_fn=worth_a_retry
    )


@step("look")
def find_work(params: Path) -> Look:
    """See `unispector.stages.retrain.look`."""
    return look(load_config(params))


@step("pipeline")
def run_pipeline(targets: Sequence[str]) -> None:
    """See `unispector.stages.retrain.reproduce`."""
    reproduce(targets)


@step("register")
def register(params: Path) -> int:
    """See `unispector.stages.register.register_challenger`."""
    config = load_config(params)
    return register_challenger(config, Path(), TrackingStore(TRACKING), version_key(config)).number


@step("promote")
def decide(params: Path, number: int) -> tuple[str, str]:
    """In one line and as a page, what is decided on a version: by a person already, or by the rules now."""
    store = TrackingStore(TRACKING)
    for event in ModelRegistry(store).history():
        if event.version == number and event.by != BY_RULES:
            said = f"Version {number} was {event.action} by {event.by}, which stands: {event.reason}"
            return said, said
    decision = promote(load_config(params), Path(), store)
    return decision.summary, decision.markdown()


@flow(name=NAME, validate_parameters=False)
def retrain_flow(params: Path = Path("params.yaml")) -> str:
    """Look for new or changed raw data, parameters or code; check, retrain, evaluate, register and judge.

    Nothing new ends it in seconds. Killed at any point and run again, it does nothing twice.

    Args:
        params: the parameters' file; its folder is the working folder.

    Returns:
        In one line, how it ended.

    Raises:
        UniSpectorError: data that do not pass, or trouble that retries did not mend; what was in production
            stays, and the run's page says why.
    """
    show_messages()
    try:
        guard_this_process(LOCK, _PATIENCE)
    except TrainingError as busy:
        return _page("another retraining runs", str(busy))
    close_dead_runs()
    found = find_work(params)
    if not found.work:
        return _page(found.reason, _notes(found))
    before = Journal.read(Path())
    if before.outcome == "going on":
        alert("retraining: the last one was cut off; going on with it")
    Journal(found.key, "going on", found.reason).write(Path())
    try:
        return _retrain(params, found)
    except Exception as error:
        outcome = "data refused" if isinstance(error, DataRefusedError) else "failed"
        reason = " ".join(str(error).split())
        if (before.key, before.outcome, before.reason) != (found.key, outcome, reason):
            alert(f"retraining: {outcome}: {reason}; the champion stays")
        Journal(found.key, outcome, reason).write(Path())
        _page(f"{outcome}: the champion stays", f"{reason}\n\n{_notes(found)}")
        raise


def _retrain(params: Path, found: Look) -> str:
    retries = load_config(params).retrain.retries
    pipeline, one = (each.with_options(retries=retries) for each in (run_pipeline, register))
    # The checks first, by themselves: a bad batch is told from a training that failed.
    pipeline.with_options(name="convert and check data")(["split"])
    pipeline.with_options(name="train and evaluate")([])
    number = one(params)
    summary, page = decide.with_options(retries=retries)(params, number)
    Journal(found.key, "decided", summary, number).write(Path())
    alert(f"retraining: {summary}")
    return _page(summary, f"{page}\n\n{_notes(found)}")


def close_dead_runs() -> None:
    """Have Prefect know that earlier runs it believes alive are dead: this one holds their lock."""
    context = FlowRunContext.get()
    own = context.flow_run if context else None
    if own is None or own.start_time is None:
        return
    running = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[NAME])), flow_run_filter=running
        )
        for run in runs:
            if run.id != own.id and run.start_time and run.start_time < own.start_time:
                message = "its process was gone when the next retraining began"
                client.set_flow_run_state(run.id, Crashed(message=message), force=True)


def _notes(found: Look) -> str:
    notes = [f"Looked at: {found.reason}."]
    notes += [
        f"`{name}` among the raw data belongs to no set: `unispector data add` brings it in."
        for name in found.unknown
    ]
    return "\n".join(notes)


def _page(verdict: str, text: str) -> str:
    """What Prefect's page of the run shows; the verdict also goes to the log."""
    create_markdown_artifact(f"# {verdict}\n\n{text}\n", key="retraining")
    logger.info("retraining: %s", verdict)
    return verdict


def main() -> None:
    """Run the flow once, by hand; a user's mistake ends as one line."""
    try:
        retrain_flow()
    except UniSpectorError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
