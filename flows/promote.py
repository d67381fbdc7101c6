"""The promotion flow: the registered challenger is measured against the champion, and decided on."""

import logging
import sys
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from unispector.config import load_config
from unispector.environment import show_messages
from unispector.errors import UniSpectorError
from unispector.project.paths import TRACKING
from unispector.registry.promote import promote
from unispector.registry.rules import Decision
from unispector.tracking.run import TrackingStore

logger = logging.getLogger("unispector.flows")


# No cache: whether a pair was decided on is for the registry to say, which looks at rules and data.
@task(name="promote", cache_policy=NO_CACHE)
def decide(params: Path) -> Decision:
    """See `unispector.registry.promote.promote`."""
    root = Path(params).parent
    return promote(load_config(params), root, TrackingStore(root / TRACKING))


@flow(name="promote", validate_parameters=False)
def promote_flow(params: Path = Path("params.yaml")) -> Decision:
    """Judge the challenger against the champion; that it is refused is no failure.

    Raises:
        UniSpectorError: there is no challenger, or a model, the data or the registry are at fault.
    """
    decision = decide(params)
    create_markdown_artifact(decision.markdown(), key="promotion")
    logger.info("%s", decision.summary)
    return decision


def main() -> None:
    """Run the flow on `params.yaml`; a user's mistake ends as one line."""
    show_messages()
    try:
        promote_flow()
    except UniSpectorError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
