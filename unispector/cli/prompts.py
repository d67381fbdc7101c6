"""`unispector prompts`: banks of single models, and the prompts in production."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unispector.cli.parts import (
    Images,
    Model,
    PromptsFile,
    Roi,
    RoiOption,
    TileOption,
    group,
    params,
    tile_side,
)
from unispector.project.paths import CHAMPION_MODEL, PROMPT_STORE

if TYPE_CHECKING:
    from unispector.prompts.store import PromptSet, PromptStore

_BUILD_HELP = """Encode prompts once and keep them; the images are not needed any more.

\b
  unispector prompts build --annotations prompts.json --images photos --out bank.safetensors
  unispector detect line3/ --bank bank.safetensors --out found

A bank works only with the model that made it."""

_ENROLL_HELP = """Teach a new defect from a folder of marked images, without training, if it passes checks.

\b
  unispector prompts enroll masks new-defect/ --label "deep scratch"

Each image is looked at with prompts from the others. If enough marks are found, and not mistaken for a
class that is enrolled already, the images become a new version of the prompts in production; otherwise
nothing changes. Either way reports/enroll/LABEL/report.md says what was found on which image. The limits
are under `enroll` in params.yaml. Exit code 1: refused."""

prompts_app = group("Make prompt banks; enrol new defects; go back.")

Store = Annotated[Path, typer.Option(help="Folder of the prompts in production.")]
By = Annotated[str | None, typer.Option(help="Who changes them; without it, the system's user.")]


@prompts_app.command("build", help=_BUILD_HELP)
def prompts_build(
    annotations: PromptsFile,
    images: Images,
    out: Annotated[Path, typer.Option(dir_okay=False, help="Bank to write, e.g. bank.safetensors.")],
    model: Model = "fast",
    roi: RoiOption = Roi.BOX,
    tile: TileOption = "auto",
) -> None:
    """Encode prompts once and keep them."""
    side = tile_side(tile)
    from unispector.prompts.build import build_prompts
    from unispector.tracking.model_reference import find_model

    bank = build_prompts(annotations, images, find_model(model), out, roi.value, side)
    classes = [
        f"{name} ({count}{f', in tiles of {side} pixels' if side else ''})"
        for name, count, side in zip(bank.class_names, bank.counts, bank.tiles, strict=True)
    ]
    typer.echo(f"{out}: {', '.join(classes)}")


@prompts_app.command("enroll", help=_ENROLL_HELP)
def prompts_enroll(
    source: Annotated[str, typer.Argument(help="Layout: coco, voc, yolo, labelme, masks.")],
    folder: Annotated[Path, typer.Argument(help="Folder of marked images; it is only read.")],
    label: Annotated[str, typer.Option(help="Name of the defect; of several in FOLDER, the one meant.")],
    store: Store = PROMPT_STORE,
    model: Model = CHAMPION_MODEL,
    by: By = None,
) -> None:
    """Teach a new defect, if it passes checks."""
    from unispector.prompts.enroll import enroll
    from unispector.prompts.versions import user_name

    report = enroll(params(), folder, source, label, model, store, by or user_name())
    typer.echo(report.summary())
    if report.checks:
        typer.echo(f"image by image: {report.output / 'report.md'}")
    if report.outcome == "refused":
        raise typer.Exit(1)


@prompts_app.command("list")
def prompts_list(store: Store = PROMPT_STORE) -> None:
    """The classes in production."""
    from unispector.prompts.versions import list_classes

    typer.echo(list_classes(_opened(store)))


@prompts_app.command("history")
def prompts_history(store: Store = PROMPT_STORE) -> None:
    """All versions, newest first: when, who, why."""
    from unispector.prompts.versions import list_history

    typer.echo(list_history(_opened(store)))


@prompts_app.command("show")
def prompts_show(
    version: Annotated[int, typer.Argument(min=0, help="Its number; see `history`.")],
    store: Store = PROMPT_STORE,
) -> None:
    """One version: its classes and images, where it came from, what its checks said."""
    from unispector.prompts.versions import show_version

    typer.echo(show_version(_opened(store), version))


@prompts_app.command("revert")
def prompts_revert(
    version: Annotated[
        int | None, typer.Argument(min=0, help="Number to go back to; without it, the one before.")
    ] = None,
    store: Store = PROMPT_STORE,
    by: By = None,
) -> None:
    """Make a new version that equals an earlier one; nothing is lost."""
    from unispector.prompts.versions import user_name

    _tell(_opened(store).revert(version, by or user_name()))


@prompts_app.command("remove")
def prompts_remove(
    label: Annotated[str, typer.Argument(help="Name of the class.")],
    store: Store = PROMPT_STORE,
    by: By = None,
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Make a new version without a class; `revert` brings it back."""
    from unispector.prompts.versions import user_name

    _tell(_opened(store).remove(label, by or user_name(), note or f"without {label}"))


def _opened(store: Path) -> "PromptStore":
    from unispector.prompts.store import PromptStore

    return PromptStore(store)


def _tell(new: "PromptSet") -> None:
    typer.echo(f"version {new.version}: {', '.join(new.classes) or 'no class'}")
