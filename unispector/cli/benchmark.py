"""`unispector benchmark`: judge any detector by the protocol that judges UniSpector."""

from pathlib import Path
from typing import Annotated

import typer

from unispector.cli.parts import params

BENCHMARK_HELP = """Judge any detector by the benchmark's protocol.

\b
  unispector benchmark prototype --out floor
  unispector benchmark my_package.my_module:make_detector --out mine

DETECTOR is `prototype` (nearest-prototype matching without training, the floor to beat) or the import
path of a callable that returns a detector; docs/benchmark.md shows one. Sets, split seeds and draws of
prompts are those of params.yaml. Writes OUT/evaluation.json and OUT/metrics.json."""


def benchmark(
    detector: Annotated[str, typer.Argument(help="`prototype`, or package.module:callable.")],
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder to write evaluation.json and metrics.json to.")
    ],
    name: Annotated[
        str, typer.Option(help="How the report calls it; as a default, the last part of DETECTOR.")
    ] = "",
) -> None:
    """Judge any detector by the benchmark's protocol."""
    from rich.console import Console

    from unispector.benchmark.other_detectors import benchmark as run
    from unispector.reporting.report import terminal_table

    report = run(detector, name or detector.rpartition(":")[2], params(), Path(), out)
    Console().print(terminal_table(report))
    typer.echo(f"{len(report.rows)} evaluations: {out / 'metrics.json'}")
