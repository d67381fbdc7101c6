"""`unispector ui`: the service with the page on it."""

import logging
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from unispector.prompts.store import PromptStore
from unispector.serving.engine import Reloader
from unispector.serving.limits import Limits
from unispector.serving.metrics import Metrics
from unispector.serving.prompts import StoredPrompts
from unispector.serving.serve import fixed_model, followed_model, open_prompts, token_for
from unispector.serving.server import address, listening, run_server
from unispector.serving.service import Service
from unispector.workbench.bench import Bench
from unispector.workbench.joined import Model
from unispector.workbench.project import SESSION

logger = logging.getLogger(__name__)

LIMITS = Limits(body_mib=256, megapixels=178, memory_mib=4096)
"""A person's own images may be large."""


@dataclass(frozen=True)
class PageOptions:
    """Where the page is, and what it shows."""

    folder: Path | None  # images; None = chosen in the page
    session: Path | None  # folder of the session; None = inside the folder of images
    host: str
    port: int  # 0 = a free one
    browser: bool  # open one
    bit_depth: int = 16  # bits that 16-bit images really use


def ui(options: PageOptions, model: str, bank: Path | None, device: str = "cpu") -> None:
    """Show the page until SIGTERM or SIGINT.

    Args:
        model: reference of a model.
        bank: prompts to begin with, a bank file or the folder of a prompt store.

    Raises:
        DataError: the folder or the session's folder cannot be used.
        ServiceError: no token where one is needed, or the address cannot be listened on.
        CheckpointError, RegistryError, PromptBankError: the model or the bank cannot be read.
        SystemExit: 0, after SIGTERM.
    """
    token = token_for(options.host)
    prompts = open_prompts(bank) if bank else StoredPrompts(PromptStore(_kept(options) / "prompts"))
    metrics = Metrics()
    reloader = Reloader(followed_model(model) or fixed_model(model), prompts, metrics, device)
    bench = Bench(lambda: in_use(reloader), Path.cwd(), options.session, options.bit_depth)
    with listening(options.host, options.port) as sock:
        if options.folder is not None:
            bench.open(options.folder, fixed=True)
        if options.browser:
            threading.Thread(target=webbrowser.open, args=(address(sock),), daemon=True).start()
        logger.info("open %s in a browser; Ctrl+C ends it", address(sock))
        try:
            run_server(Service(reloader, metrics, LIMITS, token, bench=bench), sock)
        finally:
            kept = f"; marks are kept in {bench.project.session}" if bench.opened else ""
            logger.info("ending%s", kept)
            bench.end()


def _kept(options: PageOptions) -> Path:
    return options.session or (options.folder or Path.cwd()) / SESSION


def in_use(reloader: Reloader) -> Model | str:
    """The model in use with the prompts that it was given; why there is none, in one line."""
    engine = reloader.engine
    return Model(engine.detector, engine.bank, engine.bank_version) if engine else reloader.trouble
