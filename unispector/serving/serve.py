"""`unispector serve`: a model and prompts behind HTTP, until told to stop."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from unispector.errors import PromptBankError, ServiceError
from unispector.project.paths import TRACKING
from unispector.prompts.bank import is_bank_file
from unispector.prompts.store import PromptStore
from unispector.serving.engine import Reloader, WantedModel
from unispector.serving.gate import is_loopback
from unispector.serving.label_studio.images import StudioImages
from unispector.serving.limits import Limits
from unispector.serving.metrics import Metrics
from unispector.serving.prompts import FixedPrompts, Prompts, StoredPrompts
from unispector.serving.server import listening, run_server
from unispector.serving.service import Service
from unispector.tracking.model_reference import find_model
from unispector.tracking.registry import ModelRegistry
from unispector.tracking.run import TrackingStore

TOKEN = "UNISPECTOR_TOKEN"  # noqa: S105 - the variable's name

_ALIAS = re.compile(r"models:/([^/@]+)@([^/@]+)")


def serve(
    model: str,
    bank: Path,
    host: str,
    port: int,
    limits: Limits,
    device: str = "cpu",
    studio: StudioImages | None = None,
) -> None:
    """Answer requests until SIGTERM, SIGHUP or SIGINT; until the model is loaded, that it is not yet.

    Args:
        model: reference of a model; behind an alias of the registry, whatever version it stands for is
            served, also when that changes. There need be none yet.
        bank: file of a prompt bank, or folder of a prompt store, made by the first prompt.
        port: 0 = a free one.
        studio: where images of Label Studio's tasks are; None = the service is no backend of it.

    Raises:
        ServiceError: no token where one is needed, the address cannot be listened on, or the model (no alias)
            does not work with the prompts.
        CheckpointError, RegistryError, PromptBankError: the model (no alias) or the bank cannot be read.
        SystemExit: 0, after SIGTERM or SIGHUP.
    """
    token = token_for(host)
    prompts = open_prompts(bank)
    followed = followed_model(model)
    metrics = Metrics()
    reloader = Reloader(followed or fixed_model(model), prompts, metrics, device)
    with listening(host, port) as sock:
        service = Service(reloader, metrics, limits, token, studio=studio, needs_model=followed is None)
        run_server(service, sock)


def token_for(host: str) -> str:
    """The token that requests must carry; empty = none.

    Raises:
        ServiceError: others than this machine could ask, and there is no token; or it is none.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise ServiceError(f"{TOKEN}: has other characters than headers carry; use letters and digits")
    if not token and not is_loopback(host):
        raise ServiceError(
            f"--host {host} can be reached by others; set {TOKEN} to a long random text, which requests "
            "must then send as `Authorization: Bearer ...`"
        )
    return token


def open_prompts(bank: Path) -> Prompts:
    """The prompts of a bank file, or of a store's folder.

    Raises:
        PromptBankError: the file is no prompt bank, or the store is damaged, or the folder is of other files.
    """
    if is_bank_file(bank):
        return FixedPrompts(bank)
    store = PromptStore(bank)
    if store.current().version == 0 and any(bank.glob("[!.]*")) and not (bank / "CURRENT").exists():
        raise PromptBankError(f"{bank}: holds other files, no prompts; name a folder of prompts or a new one")
    return StoredPrompts(store)


def followed_model(reference: str) -> Callable[[], WantedModel] | None:
    """Tells which version an alias of the registry stands for now; None where `reference` is no alias."""
    parts = _ALIAS.fullmatch(reference)
    if parts is None:
        return None
    registry, alias = ModelRegistry(TrackingStore(TRACKING), parts[1]), parts[2]

    def wanted() -> WantedModel:
        number = registry.version(alias).number
        return WantedModel(reference, str(number), lambda: registry.model_directory(number))

    return wanted


def fixed_model(reference: str) -> Callable[[], WantedModel]:
    """Tells the same model always.

    Raises:
        CheckpointError, RegistryError: there is no such model.
    """
    folder = find_model(reference)
    number = reference.rpartition("/")[2] if reference.startswith("models:/") else ""
    # Of a folder only the name: whoever asks for /health need not learn where it lies.
    name = reference if number else Path(reference).resolve().name
    model = WantedModel(name, number, lambda: folder)
    return lambda: model
