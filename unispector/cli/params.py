"""`unispector params`: see the parameters in force, put a whole recipe into params.yaml, write it anew."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unispector.cli.parts import group
from unispector.project.columns import columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from unispector.project.parameters import Parameter

_HELP = """See the parameters in force, and put a whole recipe into params.yaml.

\b
  unispector params show                            every value, its source and what it means
  unispector params show --changed                  only what differs from the code's defaults
  unispector params show --preset paper             as it would be with the paper's recipe
  unispector params use paper --dry-run             what that recipe would change, old -> new
  unispector params use paper && make repro         train by it
  unispector params use default                     back to what runs on two CPU cores
  unispector params write                           every parameter on a line, with what it means

A preset is a part of params.yaml under a name: `default` is what the project ships, `paper` the published
recipe at full size (docs/parameters.md). Data sets, splits and mini are your own in every preset."""

_USE_HELP = """Put a preset's values into params.yaml.

\b
  unispector params use paper --dry-run
  unispector params use paper
  unispector params use default

Prints every value that changes, old -> new. Comments, order and all that the preset does not set stay;
the file is replaced in one step. What `make repro` must run anew, it runs."""

_SHOW_HELP = """Print every parameter in force, its source and what it means.

\b
  unispector params show --changed
  unispector params show --preset paper
  unispector params show --json | jq '."train.steps".value'

Source is `default` (the code's), params.yaml, or the preset that --preset lays over the file, which stays
as it is."""

_WRITE_HELP = """Write every parameter to params.yaml, each on a line with what it means.

\b
  unispector params write
  unispector params write --params new.yaml

Values of the file stay; what it does not name is written with the code's default, as after an upgrade.
Comments are written anew. Where there is no file, all is default: what the project ships."""

params_app = group(_HELP)

ParamsFile = Annotated[Path, typer.Option("--params", help="File of parameters.", metavar="FILE")]


@params_app.command("use", help=_USE_HELP)
def use(
    preset: Annotated[str, typer.Argument(help="Name of the preset, such as paper or default.")],
    params: ParamsFile = Path("params.yaml"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would change.")] = False,
) -> None:
    """Put a preset's values into params.yaml."""
    from unispector.project.parameters import use_preset

    changes = use_preset(preset, params, dry_run=dry_run)
    for line in columns([(change.name, change.old, "->", change.new) for change in changes]):
        typer.echo(line)
    if not changes:
        typer.echo(f"{params}: says what preset {preset} says already")
    elif dry_run:
        typer.echo(f"{params}: {len(changes)} values would change; nothing is written")
    else:
        typer.echo(f"{params}: {len(changes)} values changed to preset {preset}; `make repro` runs by them")


@params_app.command("write", help=_WRITE_HELP)
def write(params: ParamsFile = Path("params.yaml")) -> None:
    """Write every parameter with what it means."""
    from unispector.project.parameters import write_parameters

    write_parameters(params)
    typer.echo(f"{params}: every parameter is written")


@params_app.command("show", help=_SHOW_HELP)
def show(
    params: ParamsFile = Path("params.yaml"),
    preset: Annotated[str | None, typer.Option(help="Preset to lay over the file.", metavar="NAME")] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only values that differ from the code's defaults.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object, name -> value, source, meaning.")
    ] = False,
) -> None:
    """Print every parameter in force."""
    from unispector.project.parameters import parameters

    chosen = [each for each in parameters(params, preset) if each.changed or not changed]
    if json:
        typer.echo(_as_json(chosen))
        return
    for line in _sections(chosen):
        typer.echo(line)


def _as_json(parameters: "Iterable[Parameter]") -> str:
    from json import dumps

    keys = ("value", "source", "changed", "meaning")
    fields = {each.name: {key: getattr(each, key) for key in keys} for each in parameters}
    return dumps(fields, indent=2, ensure_ascii=False)


def _sections(parameters: "Sequence[Parameter]") -> "Iterator[str]":
    """Aligned lines, a heading and a blank line around each section."""
    from unispector.project.parameters import as_text

    names = [each.name.partition(".") for each in parameters]
    rows = [
        (f"  {name}", as_text(each.value), each.source, each.meaning)
        for (_, _, name), each in zip(names, parameters, strict=True)
    ]
    section = ""
    for (current, _, _), line in zip(names, columns(rows), strict=True):
        if current != section:
            yield f"\n{current}" if section else current
            section = current
        yield line
