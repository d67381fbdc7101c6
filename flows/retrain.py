"""The retraining flow: new raw data or code lead to a challenger and a written decision, or to nothing."""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import cache
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
from unispector.project.alerts import alert
from unispector.project.paths import TRACKING
from unispector.project.retrain import (
    CHECKS,
    DataRefusedError,
    LastRetraining,
    RetrainingNeed,
    look,
    reproduce,
    version_key,
)
from unispector.registry.promote import promote, settled
from unispector.registry.register import register_challenger
from unispector.tracking.run import TrackingStore

NAME = "retrain"
LOCK = Path("artifacts/retraining.lock")

_PATIENCE = 30.0  # seconds for the guard of a killed retraining to clear up
_RETRY_SECONDS = 30.0

logger = logging.getLogger("unispector.flows")


@cache
def hold_lock() -> None:
    """Be the only retraining, once for the life of this process; see `flows.guard`.

    Raises:
        TrainingError: another one runs.
    """
    guard_this_process(LOCK, _PATIENCE)


def worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Return whether a failed step is tried again: not when a person must mend something first."""
    return not isinstance(state.result(raise_on_failure=False), DataRefusedError)


def step(name: str) -> Callable[..., Any]:
    """A task whose truth is files, MLflow and DVC, not Prefect's cache."""
    return task(
        name=name, cache_policy=NO_CACHE, retry_delay_seconds=_RETRY_SECONDS, retry_condition_fn=worth_a_retry
    )


@step("look")
def find_work(params: Path) -> RetrainingNeed:
    """See `unispector.project.retrain.look`."""
    return look(load_config(params))


@step("pipeline")
def run_pipeline(targets: Sequence[str]) -> None:
    """See `unispector.project.retrain.reproduce`."""
    reproduce(targets)


@step("register")
def register(params: Path) -> int:
    """See `unispector.registry.register.register_challenger`."""
    config = load_config(params)
    return register_challenger(config, Path(), TrackingStore(TRACKING), version_key(config)).number


@step("promote")
def decide(params: Path, number: int) -> tuple[str, str]:
    """In one line and as a page, what is decided on a version: already, or by the rules now."""
    store = TrackingStore(TRACKING)
    already = settled(Path(), store, number)
    if already is not None:
        return already, already
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
        hold_lock()
    except TrainingError as busy:
        return _page("another retraining runs", str(busy))
    close_dead_runs()
    before = LastRetraining.read(Path())
    try:
        verdict, text = _retrain(params, before)
    except Exception as error:
        outcome = "data refused" if isinstance(error, DataRefusedError) else "failed"
        reason = " ".join(str(error).split())
        if (before.outcome, before.reason) != (outcome, reason):
            alert(f"retraining: {outcome}: {reason}")
        LastRetraining("", outcome, reason).write(Path())
        _page(outcome, reason)
        raise
    return _page(verdict, text)


def _retrain(params: Path, before: LastRetraining) -> tuple[str, str]:
    """Retrain, and return the result in one line and as a page."""
    retries = load_config(params).retrain.retries
    steps = (each.with_options(retries=retries) for each in (find_work, run_pipeline, register, decide))
    find, pipeline, enter, judge = steps
    found = find(params)
    if not found.work:
        return found.reason, "\n\n".join(found.notes)
    if before.outcome == "going on":
        alert("retraining: the last one was cut off; going on with it")
    LastRetraining(found.key, "going on", found.reason).write(Path())
    # The checks first, by themselves, so that a bad batch differs from a failed training.
    pipeline.with_options(name="convert and check data")(CHECKS)
    pipeline.with_options(name="train and evaluate")(())
    number = enter(params)
    summary, page = judge(params, number)
    # Told before it is remembered: twice is better than never.
    alert(f"retraining: {summary}")
    LastRetraining(found.key, "decided", summary, number).write(Path())
    return summary, "\n\n".join((page, f"Looked at: {found.reason}.", *found.notes))


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


def _page(verdict: str, text: str) -> str:
    """Write Prefect's page of the run; the verdict also goes to the log."""
    create_markdown_artifact(f"# {verdict}\n\n{text}\n", key="retraining")
    logger.info("retraining: %s", verdict)
    return verdict


def main() -> None:
    """Run the flow once, by hand; a user's mistake ends as one line."""
    try:
        hold_lock()  # before Prefect starts a server of its own, so that the guard ends that too
        retrain_flow()
    except UniSpectorError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
