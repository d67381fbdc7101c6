"""The thread that looks at the images of an opened folder, whenever its marks change."""

import logging
import threading
import time
from collections.abc import Callable

from unispector.errors import DataError, UniSpectorError
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.images import Pixels, as_pixels
from unispector.workbench.findings import Result, result_of
from unispector.workbench.folder import ImageFile
from unispector.workbench.joined import Model, encode
from unispector.workbench.project import Project

logger = logging.getLogger(__name__)

SEARCH = "bench search"
"""Name of the thread."""

SETTLE_SECONDS = 0.4
"""So long marks must rest before they are looked for."""
POLL_SECONDS = 0.5
RETRY_SECONDS = 5.0
"""After so long what could not be kept is looked for again."""
AT_ONCE_PIXELS = 40_000_000
"""Pixels of the images that are looked at together; an image of more is looked at alone."""


class _AbandonedError(Exception):
    """A large image that need not be looked at any further: the marks have changed."""


class Detecting:
    """Keeps the findings of a project up to date until it is stopped."""

    def __init__(self, project: Project, model: Callable[[], Model | str]) -> None:
        """Nothing runs yet.

        Args:
            model: gives the model in use, or a line that says why there is none.
        """
        self._project = project
        self._model = model
        self._stopping = threading.Event()
        # No daemon: PyTorch aborts a process that ends under its feet.
        self._thread = threading.Thread(target=self._work, name=SEARCH)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the images that are being looked at; does not wait for it."""
        self._stopping.set()

    def _work(self) -> None:
        failed = ""
        while not self._stopping.wait(POLL_SECONDS):
            try:
                failed = self._turn(failed)
            except UniSpectorError as error:  # such as a full disk
                self._project.report("error", str(error))
                self._stopping.wait(RETRY_SECONDS)
            except Exception as error:
                logger.exception("detection on %s", self._project.folder.root)
                self._project.report("error", f"{type(error).__name__}: {error}"[:300])
                failed = ""

    def _turn(self, failed: str) -> str:
        """Look at all images that need it; return the key of prompts that cannot be used, tried once."""
        project, model = self._project, self._model()
        if isinstance(model, str):
            project.report("loading", model)
            return ""
        if time.monotonic() - project.wanted_at < SETTLE_SECONDS:
            return failed
        key = project.key(model)
        if not key:
            if project.results.key:
                project.begin("")
            project.report("idle")
        elif key != failed:
            bank = project.bank if key == project.results.key and project.bank else self._encoded(model, key)
            if bank is None:
                return key
            self._look(model, bank, key)
            return ""
        return failed if key else ""

    def _encoded(self, model: Model, key: str) -> PromptBank | None:
        """The bank of the newest marks, which is looked for from now on; None where they cannot be used."""
        project = self._project
        project.begin(key)
        project.report("encoding")
        try:
            marks = project.used_marks()
            bank = encode(model, marks, project.folder.root, project.bit_depth)
        except UniSpectorError as error:
            project.report("error", str(error))
            return None
        with project.lock:
            project.bank, project.bank_marks = bank, marks
        return bank

    def _look(self, model: Model, bank: PromptBank, key: str) -> None:
        """Detect on what is pending, until nothing is or the prompts change."""
        project = self._project

        def tiles(done: int, total: int) -> None:
            if self._stopping.is_set() or key != project.key(model):
                raise _AbandonedError
            project.report("detecting", f"{done} of {total} tiles of a large image")

        while (pending := project.pending()) and not self._stopping.is_set():
            if key != project.key(model):
                return
            project.report("detecting")
            at_once = 2 if model.detector.device.type == "cpu" else 8
            batch = self._read(pending[:at_once], bank.bit_depth, key)
            found = model.detector.stream([pixels for _, pixels in batch], bank, progress=tiles)
            try:
                for (file, _), detections in zip(batch, found, strict=True):
                    project.found(result_of(file, detections), key)
            except _AbandonedError:
                return
        if not self._stopping.is_set():
            project.report("done")

    def _read(self, files: list[ImageFile], bit_depth: int, key: str) -> list[tuple[ImageFile, Pixels]]:
        """The first of some images that fit into memory together; one that is unreadable is reported so."""
        project, batch = self._project, list[tuple[ImageFile, Pixels]]()
        for file in files:
            try:
                pixels = as_pixels(project.folder.root / file.name, bit_depth)
            except DataError as error:
                why = str(error).replace(f"{project.folder.root}/", "")
                project.found(Result(file.name, file.stamp, (0, 0), why, []), key)
                continue
            if batch and sum(each.size for _, each in batch) + pixels.size > 3 * AT_ONCE_PIXELS:
                break
            batch.append((file, pixels))
        return batch
