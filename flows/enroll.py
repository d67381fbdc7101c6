"""The enrolment flow: a folder of marked images becomes a class in production, if it passes checks."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from unispector.config import load_config
from unispector.environment import show_messages
from unispector.errors import UniSpectorError
from unispector.project.paths import CHAMPION_MODEL, PROMPT_STORE
from unispector.prompts.enroll import enroll
from unispector.prompts.report import EnrollReport
from unispector.prompts.versions import user_name


# No cache: whether a folder is enrolled already is for the store to say, which looks at the images.
@task(name="enroll", cache_policy=NO_CACHE)
def check_and_add(
    params: Path, folder: Path, source: str, label: str, model: str, store: Path, by: str
) -> EnrollReport:
    """See `unispector.prompts.enroll.enroll`."""
    return enroll(load_config(params), folder, source, label, model, store, by)


@flow(name="enroll", validate_parameters=False)
def enroll_flow(
    source: str,
    folder: Path,
    label: str,
    model: str = CHAMPION_MODEL,
    store: Path = PROMPT_STORE,
    by: str | None = None,
    params: Path = Path("params.yaml"),
) -> EnrollReport:
    """Check the marked images of a folder and add them to the prompts in production.

    Args:
        source: layout of the folder, such as `coco` or `masks`.

    Raises:
        UniSpectorError: the folder, the model or the store is at fault. That the checks refuse the images
            is no error: the run's page says why.
    """
    report = check_and_add(Path(params), Path(folder), source, label, model, Path(store), by or user_name())
    create_markdown_artifact(f"{report.markdown()}\n{report.summary()}\n", key="enroll")
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the flow once; a user's mistake ends as one line, a refusal with exit code 1.

    Args:
        arguments: SOURCE FOLDER LABEL [--model REF] [--store FOLDER]; None = this process's own.
    """
    show_messages()
    parser = argparse.ArgumentParser(prog="python -m flows.enroll", description=__doc__)
    for name in ("source", "folder", "label"):
        parser.add_argument(name)
    parser.add_argument("--model", default=CHAMPION_MODEL)
    parser.add_argument("--store", default=PROMPT_STORE, type=Path)
    given = parser.parse_args(arguments)
    try:
        report = enroll_flow(given.source, Path(given.folder), given.label, given.model, given.store)
    except UniSpectorError as error:
        sys.exit(f"error: {error}")
    if report.outcome == "refused":
        sys.exit(report.summary())
    sys.stdout.write(f"{report.summary()}\n")


if __name__ == "__main__":
    main()
