"""`unispector operate`: everything that runs day and night, started by one command."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

OPERATE_HELP = """Start what runs day and night on this machine, and keep it alive.

\b
  unispector operate                  MLflow, Prefect, its worker, the service
  unispector operate prefect worker   the schedule alone

A program that dies is started again. Ctrl-C ends all of them. Logs and state lie in artifacts/operate;
`supervisorctl -c artifacts/operate/supervisord.conf status` asks. Ports: UNISPECTOR_MLFLOW_PORT (5000),
UNISPECTOR_PREFECT_PORT (4200), UNISPECTOR_SERVICE_PORT (8000). All of it listens on this machine only."""


class ProgramName(StrEnum):
    """A program that can be started."""

    MLFLOW = "mlflow"
    PREFECT = "prefect"
    WORKER = "worker"
    SERVICE = "service"


def operate(
    program: Annotated[list[ProgramName] | None, typer.Argument(help="Which ones; none = all.")] = None,
) -> None:
    """Start what runs day and night."""
    from unispector.project.operate import operate as run
    from unispector.project.operate import programs
    from unispector.project.paths import OPERATION

    names = [each.value for each in program or ProgramName]
    for each in programs():
        if each.name in names:
            typer.echo(f"{each.name:8} {each.purpose:38} {each.address}")
    typer.echo(f"logs in {OPERATION}; Ctrl-C ends all")
    run(names, Path())
