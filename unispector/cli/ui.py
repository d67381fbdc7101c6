"""`unispector ui`: the inspection bench, in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from unispector.cli.parts import Model
from unispector.environment import end_on_signals

UI_HELP = """Open a page in the browser: draw a box, see the defect on every image of a folder.

\b
  unispector ui photos/
  unispector ui                        choose a folder in the page, or let it draw demo images

Marks, classes, thresholds and findings are kept in FOLDER/.unispector (--session names another folder) and
are there again next time. Nothing is loaded from elsewhere. On any other --host than loopback the page asks
for the token in the variable UNISPECTOR_TOKEN."""


def ui(
    folder: Annotated[
        Path | None, typer.Argument(help="Images, also in subfolders.", metavar="[FOLDER]")
    ] = None,
    model: Model = "fast",
    bank: Annotated[
        Path | None, typer.Option(help="Prompts to begin with: a bank file, or a folder of prompts.")
    ] = None,
    session: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder that keeps the session.", metavar="DIR")
    ] = None,
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = a free one, which is printed.")] = 8765,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
    bit_depth: Annotated[
        int, typer.Option(min=8, max=16, help="Bits that 16-bit images really use, such as 12.")
    ] = 16,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
) -> None:
    """Open a page in the browser."""
    end_on_signals()
    from unispector.serving.ui import PageOptions
    from unispector.serving.ui import ui as run

    run(PageOptions(folder, session, host, port, browser, bit_depth), model, bank, device)
