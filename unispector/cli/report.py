"""`unispector report`: the last run's figures, as a page and as a table."""

from pathlib import Path
from typing import Annotated

import typer

REPORTS = Path("reports")


def report(
    show: Annotated[bool, typer.Option("--show", help="Only print the table of what is there.")] = False,
    real: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="Instead measure the package's models, for hours, on magnetic_tile/ and neu_det/ of this "
            "folder and write reports/real.md.",
        ),
    ] = None,
) -> None:
    """Write reports/index.html and print the table of the last `make repro`."""
    if real is not None:
        from unispector.benchmark.real_sets import measure_real_sets

        page = REPORTS / "real.md"
        measure_real_sets(real, page)
        typer.echo(page)
        return
    from unispector.pipeline.report import show as show_report
    from unispector.project.paths import TRACKING
    from unispector.tracking.run import TrackingStore

    if not show:
        write_report()
    show_report(REPORTS, TrackingStore(TRACKING))


def write_report() -> Path:
    """Write the page; returns its path."""
    from unispector.pipeline.report import report as write
    from unispector.project.paths import TRACKING
    from unispector.tracking.run import TrackingStore

    return write(REPORTS, TrackingStore(TRACKING)).page
