"""The model and the prompts in use, and how others take their place while requests are answered."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.serving.answers import ModelAnswer
from unispector.serving.metrics import Metrics
from unispector.serving.prompts import Prompts
from unispector.serving.refusal import without_folders

logger = logging.getLogger(__name__)

RETRY_SECONDS = 60
"""After which a model or prompts that failed are tried again."""


@dataclass(frozen=True)
class WantedModel:
    """The model that should be served now."""

    reference: str
    version: str  # of the registry; empty of a folder
    folder: Callable[[], Path] = field(compare=False)  # where it lies; asked only when the model is loaded

    def __str__(self) -> str:
        return f"{self.reference} (version {self.version})" if self.version else self.reference


@dataclass(frozen=True)
class Engine:
    """A model with its prompts, ready to detect; never changed, only replaced."""

    detector: UniSpector
    bank: PromptBank | None  # its prompts; None while no class is enrolled
    model: WantedModel
    bank_version: str
    since: str  # when it came into use, ISO 8601, UTC

    @property
    def answer(self) -> ModelAnswer:
        """The model as answers name it."""
        return ModelAnswer(
            reference=self.model.reference, version=self.model.version, fingerprint=self.detector.fingerprint
        )


class Reloader:
    """Keeps the engine up to date; what cannot be loaded leaves the one before in use.

    Attributes:
        engine: in use; None before the first.
        trouble: why what should be in use is not, in one line; empty when all is well.
    """

    def __init__(
        self, wanted: Callable[[], WantedModel], prompts: Prompts, metrics: Metrics, device: str = "cpu"
    ) -> None:
        """Nothing is loaded yet.

        Args:
            wanted: says which model should be in use now; raises when there is none.
            prompts: says which prompts.
        """
        self.engine: Engine | None = None
        self.trouble = "the model is still being loaded"
        self.prompts = prompts
        self._wanted = wanted
        self._metrics = metrics
        self._device = device
        self._failed: dict[tuple[WantedModel, str], tuple[str, float]] = {}  # why, and when to try again

    def refresh(self) -> None:
        """Take in another model or other prompts if they should be in use; never raises.

        While the model that should be in use cannot be had, the one before takes in the newest prompts.
        Blocks while loading; called by one thread at a time.
        """
        troubles = [self._follow(self._wanted)]
        if troubles[0] and self.engine is not None:
            own = self.engine.model
            troubles.append(self._follow(lambda: own))
        self._report("; ".join(dict.fromkeys(filter(None, troubles))))

    def _follow(self, wanted: Callable[[], WantedModel]) -> str:
        """Take in a model with the newest prompts; why not, or nothing."""
        try:
            target = wanted(), self.prompts.version()
        except Exception as error:  # noqa: BLE001 - whatever is wrong out there, the engine stays
            return without_folders(error)
        engine = self.engine
        if engine is not None and (engine.model, engine.bank_version) == target:
            return ""
        why, retry_at = self._failed.get(target, ("", 0.0))
        return why if time.monotonic() < retry_at else self._replace(*target)

    def _replace(self, model: WantedModel, bank_version: str) -> str:
        now = time.monotonic()
        self._failed = {target: failed for target, failed in self._failed.items() if now < failed[1]}
        try:
            engine = self._loaded(model)
        except Exception as error:  # noqa: BLE001 - the engine before stays, whatever is wrong with this one
            stays = f"; {self.engine.model} stays in use" if self.engine else ""
            why = f"{model} with prompts {bank_version} cannot be used: {without_folders(error)}{stays}"
            self._failed[model, bank_version] = why, time.monotonic() + RETRY_SECONDS
            self._metrics.reloads.labels("failed").inc()
            return why
        self.engine = engine
        self._metrics.reloads.labels("done").inc()
        self._metrics.info.clear()
        fingerprint = engine.detector.fingerprint
        self._metrics.info.labels(model.reference, model.version, fingerprint, engine.bank_version).set(1)
        logger.info("in use: %s, fingerprint %s, prompts %s", model, fingerprint[:12], engine.bank_version)
        return ""

    def _loaded(self, model: WantedModel) -> Engine:
        """The model with the newest prompts, tried once."""
        current = self.engine
        if current is not None and current.model == model:
            detector = current.detector
        else:
            detector = UniSpector.load(model.folder(), self._device)
        while True:  # another process may change the prompts while they are encoded
            version = self.prompts.version()
            bank = self.prompts.bank(detector)
            if version == self.prompts.version():
                break
        if bank is not None:
            detector.detect([np.full((64, 64, 3), 128, dtype=np.uint8)], bank)
        return Engine(detector, bank, model, version, datetime.now(UTC).isoformat(timespec="seconds"))

    def _report(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            logger.warning("%s", trouble)
        self.trouble = trouble
