"""The program: its verbs put together, and every mistake of the user's told in one line."""

import re
import sys
from collections.abc import Sequence
from importlib.metadata import requires, version
from pathlib import Path
from typing import Annotated

import typer

from unispector.cli.benchmark import BENCHMARK_HELP, benchmark
from unispector.cli.convert import CONVERT_HELP, convert
from unispector.cli.data import data_app
from unispector.cli.detect import DETECT_HELP, detect
from unispector.cli.diagnose import DIAGNOSE_HELP, diagnose
from unispector.cli.evaluate import EVALUATE_HELP, evaluate
from unispector.cli.export import EXPORT_HELP, export
from unispector.cli.inspect import INSPECT_HELP, inspect
from unispector.cli.measure import MEASURE_HELP, measure
from unispector.cli.operate import OPERATE_HELP, operate
from unispector.cli.params import params_app
from unispector.cli.parts import OrderedCommand, group
from unispector.cli.prompts import prompts_app
from unispector.cli.registry import registry_app
from unispector.cli.report import report
from unispector.cli.serve import SERVE_HELP, serve
from unispector.cli.stage import stage_app
from unispector.cli.sweep import SWEEP_HELP, sweep
from unispector.cli.ui import UI_HELP, ui
from unispector.cli.weights import weights_app
from unispector.environment import show_messages, work_offline
from unispector.errors import UniSpectorError
from unispector.names import shortened, shown

# Modules that the wheel leaves out.
_GENERATOR = {"unispector.data.mini", "unispector.data.drawn_set"}
_NO_GENERATOR = "the generator of drawn data is part of the checkout only; run this in a clone of the project"

# "\b" keeps the lines of a paragraph of help as they are.
_HELP = """Show one marked image of a defect; find that defect on every other image.

\b
  unispector detect photos/ --prompt bad.png --box 120,80,40,24 --out found
  unispector prompts build --annotations prompts.json --images photos --out bank.safetensors
  unispector detect photos/ --bank bank.safetensors --out found
  unispector convert voc my-set/ --out my-set.json

These use the model that the package ships; `--model` takes a folder (`make repro` leaves models in
artifacts/models/), an MLflow run id, or `models:/unispector@champion` of the registry.
`unispector ui` opens a page to draw marks and see what they find.
`unispector operate` starts what runs day and night.
`unispector VERB --help` explains a verb."""

app = group(_HELP)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"unispector {version('unispector')}")
        raise typer.Exit


@app.callback(help=_HELP)
def program(
    _: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_say_version, help="Say which version this is, and end."
        ),
    ] = False,
) -> None:
    """Do nothing before a verb."""


app.command(help=DETECT_HELP, cls=OrderedCommand)(detect)
app.command(help=EVALUATE_HELP)(evaluate)
app.command(help=SWEEP_HELP)(sweep)
app.command(help=MEASURE_HELP)(measure)
app.command(help=DIAGNOSE_HELP)(diagnose)
app.command(help=BENCHMARK_HELP)(benchmark)
app.command(help=CONVERT_HELP)(convert)
app.command(help=EXPORT_HELP)(export)
app.command()(report)
app.command(help=INSPECT_HELP)(inspect)
app.command(help=SERVE_HELP)(serve)
app.command(help=UI_HELP)(ui)
app.command(help=OPERATE_HELP)(operate)
app.add_typer(prompts_app, name="prompts")
app.add_typer(registry_app, name="registry")
app.add_typer(data_app, name="data")
app.add_typer(params_app, name="params")
app.add_typer(stage_app, name="stage")
app.add_typer(weights_app, name="weights")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    A mistake of the user's is one line on stderr, never a traceback.

    Args:
        arguments: without the program's name; None = this process's own, whose tools are set offline.

    Returns:
        Exit code: 0 done, 1 a file, parameter or model cannot be used, 2 wrong usage, 130 interrupted.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        work_offline(Path())
        show_messages()
    try:
        code = app(args=list(arguments) or ["--help"], prog_name="unispector", standalone_mode=False)
    except UniSpectorError as error:
        return _fail(str(error), 1)
    except typer.TyperException as error:
        return _fail(error.format_message(), error.exit_code)
    except ModuleNotFoundError as error:
        if error.name in _GENERATOR:
            return _fail(_NO_GENERATOR, 1)
        if (extra := _extra_of(error.name or "")) is None:
            raise
        return _fail(f"{error.name} is not installed; it comes with pip install 'unispector[{extra}]'", 1)
    except OSError as error:
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}", 1)
    return code if isinstance(code, int) else 0


def _extra_of(module: str) -> str | None:
    """The optional dependencies of the package that a module belongs to."""
    name = module.partition(".")[0].replace("_", "-").lower()
    for requirement in requires("unispector") or ():
        distribution, _, marker = requirement.partition(";")
        extra = re.search(r"extra == ['\"](\w+)", marker)
        if extra and re.match(rf"{re.escape(name)}(?![\w.])", distribution):
            return extra[1]
    return None


def _fail(message: str, code: int) -> int:
    typer.echo(f"error: {shown(shortened(' '.join(message.split())))}", err=True)
    return code
