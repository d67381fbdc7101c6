"""`unispector registry`: the versions of the trained model, and who decided what on them."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unispector.cli.parts import group
from unispector.errors import RegistryError
from unispector.project.columns import columns

if TYPE_CHECKING:
    from unispector.tracking.registry import Event, ModelRegistry, ModelVersion

registry_app = group("See the registered models; approve, refuse, roll back.")

_FIGURES = {
    "unseen_bbox_AP50": "unseen boxes",
    "unseen_segm_AP50": "unseen masks",
    "seen_bbox_AP50": "seen boxes",
    "seen_segm_AP50": "seen masks",
}

Version = Annotated[str, typer.Argument(help="Number, or alias such as `challenger`.", metavar="VERSION")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]


@registry_app.command("list")
def list_versions() -> None:
    """All versions, newest first; AP50 in percent, mean over the sets."""
    registry = _registry()
    rows = [
        [
            str(version.number),
            version.created[:16].replace("T", " "),
            version.tags.get("state", ""),
            ", ".join(version.aliases),
            *(_percent(version, figure) for figure in _FIGURES),
            version.tags.get("split_seed", ""),
            version.tags.get("training_run", "")[:8],
        ]
        for version in registry.versions()
    ]
    headings = ["version", "created (UTC)", "state", "aliases", *_FIGURES.values(), "seed", "training run"]
    typer.echo(
        "\n".join(columns([headings, *rows])) if rows else f"{registry.place}: no model is registered yet"
    )


@registry_app.command("show")
def show(version: Version) -> None:
    """All that is known of a version."""
    from unispector.registry.register import read_lineage

    registry = _registry()
    found = registry.version(version)
    directory = registry.model_directory(found.number)
    lineage = read_lineage(directory)
    facts = {
        "model": f"models:/{registry.name}/{found.number}",
        "created": found.created,
        "aliases": ", ".join(found.aliases) or "none",
        **dict(sorted(found.tags.items())),
        **{f"threshold {name}": f"{value:.3f}" for name, value in lineage.thresholds.items()},
        "trained classes": ", ".join(lineage.trained_classes),
        "files": str(directory),
    }
    typer.echo("\n".join(columns(list(facts.items()))))
    events = [event for event in registry.history() if event.version == found.number]
    if events:
        typer.echo(f"\n{_told(events[0])}")
        for file in registry.event_files(events[0]):
            if file.suffix == ".md":
                typer.echo(f"\n{file.read_text(encoding='utf-8').rstrip()}")


@registry_app.command("history")
def history() -> None:
    """All decisions, newest first."""
    registry = _registry()
    rows = [
        [
            event.time[:19].replace("T", " "),
            event.action,
            str(event.version),
            "none" if event.before is None else str(event.before),
            event.by,
            " ".join(event.reason.split()),
        ]
        for event in registry.history()
    ]
    headings = ["time (UTC)", "action", "version", "champion before", "by", "reason"]
    typer.echo(
        "\n".join(columns([headings, *rows])) if rows else f"{registry.place}: nothing was decided yet"
    )


@registry_app.command("approve")
def approve(version: Version, reason: Reason) -> None:
    """Make a version champion, if it works, whatever the rules said."""
    from unispector.registry.decisions import approve as run

    typer.echo(_told(run(_registry(), version, _user(), reason)))


@registry_app.command("refuse")
def refuse(version: Version, reason: Reason) -> None:
    """Turn a version down; it can still be approved later."""
    from unispector.registry.decisions import refuse as run

    typer.echo(_told(run(_registry(), version, _user(), reason)))


@registry_app.command("rollback")
def rollback(
    reason: Reason,
    to: Annotated[
        str | None,
        typer.Option(help="Version; as a default, the champion before this one.", metavar="VERSION"),
    ] = None,
) -> None:
    """Bring back an earlier champion."""
    from unispector.registry.decisions import rollback as run

    typer.echo(_told(run(_registry(), _user(), reason, to)))


def _registry() -> "ModelRegistry":
    from unispector.project.paths import TRACKING
    from unispector.tracking.registry import ModelRegistry
    from unispector.tracking.run import TrackingStore

    return ModelRegistry(TrackingStore(Path(TRACKING)))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise RegistryError("this user has no name; set the variable LOGNAME") from error


def _percent(version: "ModelVersion", figure: str) -> str:
    try:
        return f"{float(version.tags[figure]):.1f}"
    except (KeyError, ValueError):
        return ""


def _told(event: "Event") -> str:
    before = "" if event.before is None else f" (champion before: {event.before})"
    return (
        f"version {event.version} {event.action} by {event.by}, {event.time[:19]} UTC{before}: {event.reason}"
    )
