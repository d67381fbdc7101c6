"""`unispector benchmark`: judge any system by the protocol that judges UniSpector."""

from pathlib import Path
from typing import Annotated

import typer

from unispector.cli.parts import Roi, params

BENCHMARK_HELP = """Judge any system by the benchmark's protocol.

\b
  unispector benchmark --list
  unispector benchmark prototypes --roi mask --out reports/benchmark/prototypes-mask
  unispector benchmark unispector --weights artifacts/models/unispector/seed{seed} --out mine
  unispector benchmark my_package.my_module:make_detector --out mine

SYSTEM is a name of the list, or the import path of a callable that returns a detector; docs/benchmark.md
shows one. Sets, split seeds (`train.seeds`) and draws of prompts are those of params.yaml, so `make repro`
comes first, or `dvc repro split`, in a minute, for what needs no model trained here.
Writes OUT/evaluation.json, OUT/metrics.json and OUT/system.json (time, memory, size); a folder below
reports/benchmark/ becomes a row of reports/systems.md (docs/systems.md)."""


def benchmark(
    system: Annotated[
        str, typer.Argument(metavar="SYSTEM", help="A name of the list, or package.module:callable.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder to write the figures to.", show_default=False)
    ] = None,
    weights: Annotated[
        str, typer.Option(help="What the list says; {seed} in it stands for the split seed.")
    ] = "",
    roi: Annotated[
        Roi | None,
        typer.Option(help="Prompt with boxes or with masks; as a default, what the list names first."),
    ] = None,
    sets: Annotated[
        str, typer.Option(help="Of the sets of params.yaml, those to judge on.", metavar="A,B,...")
    ] = "",
    name: Annotated[str, typer.Option(help="How tables call it; as a default, SYSTEM's last part.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="Say which systems there are, and end.")] = False,
) -> None:
    """Judge any system by the benchmark's protocol."""
    from rich.console import Console

    if list_:
        from unispector.reporting.systems import catalogue_table

        Console().print(catalogue_table())
        return
    if not system or out is None:
        raise typer.BadParameter("give a system and --out; --list says which systems there are")
    from unispector.benchmark.other_detectors import benchmark as run
    from unispector.pipeline.systems import write_systems_page
    from unispector.project.paths import BENCHMARKED
    from unispector.reporting.report import terminal_table

    called = name or system.rpartition(":")[2]
    wanted = tuple(filter(None, map(str.strip, sets.split(","))))
    report = run(
        system, called, params(), Path(), out, weights=weights, roi=roi.value if roi else None, sets=wanted
    )
    Console().print(terminal_table(report))
    typer.echo(f"{len(report.rows)} evaluations: {out / 'metrics.json'}")
    if out.resolve().parent == BENCHMARKED.resolve():
        typer.echo(f"all systems: {write_systems_page()}")
