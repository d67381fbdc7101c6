"""The bench: one opened folder at a time, its detection, its exports; how a folder comes to be opened."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unispector.errors import DataError, UniSpectorError
from unispector.ops.files import IMAGE_SUFFIXES, atomic_write_bytes
from unispector.workbench.detecting import SEARCH, Detecting
from unispector.workbench.exports import Kind, export
from unispector.workbench.folder import is_utf8
from unispector.workbench.jobs import JOB, Jobs
from unispector.workbench.joined import Model
from unispector.workbench.project import Project

logger = logging.getLogger(__name__)

DEMO = "unispector-demo"
UPLOADS = "unispector-images"


@dataclass(frozen=True)
class ExportState:
    """How far an export is."""

    number: int = 0  # of the export; 0 = none was asked for yet
    kind: str = ""
    done: int = 0  # images
    total: int = 0
    ready: bool = False
    file: str = ""  # name of the finished file
    trouble: str = ""  # why it failed, in one line


@dataclass(frozen=True)
class FolderEntry:
    """A folder that can be opened, or looked into."""

    name: str
    path: str
    images: int  # images directly in it, as far as they were counted


class Bench:
    """What the page works on.

    Attributes:
        fixed: the folder was named at the start, and the page opens no other.
    """

    def __init__(
        self, model: Callable[[], Model | str], home: Path, session: Path | None = None, bit_depth: int = 16
    ) -> None:
        """No folder is open yet.

        Args:
            model: gives the model in use, or a line that says why there is none.
            home: where demo images and images without a folder are put.
            session: folder of the session; None = inside the folder of images.
            bit_depth: bits that 16-bit images really use.
        """
        self.fixed = False
        self.home = home
        self.exporting = ExportState()
        self._exported: Path | None = None
        self._model = model
        self._session = session
        self._bit_depth = bit_depth
        self._project: Project | None = None
        self._detecting: Detecting | None = None
        self._jobs: Jobs | None = None
        self._lock = threading.Lock()

    @property
    def project(self) -> Project:
        """What is open.

        Raises:
            DataError: nothing is.
        """
        if self._project is None:
            raise DataError("no folder is open; choose one")
        return self._project

    @property
    def jobs(self) -> Jobs:
        """What works on it beside the search.

        Raises:
            DataError: nothing is open.
        """
        if self._jobs is None:
            raise DataError("no folder is open; choose one")
        return self._jobs

    @property
    def opened(self) -> bool:
        """Whether a folder is open."""
        return self._project is not None

    def open(self, root: Path, *, fixed: bool = False) -> None:
        """Open a folder with its session.

        Raises:
            DataError: the folder or the session's cannot be used, or another folder was named at the start.
        """
        with self._lock:
            if self.fixed:
                raise DataError("this page shows the folder it was started with; start it without one")
            self.close()
            self._project = None
            project = Project(root, self._session, self._bit_depth)
            self._project, self.fixed = project, fixed
            self.exporting, self._exported = ExportState(), None
            self._jobs = Jobs(project, self._model)
            self._detecting = Detecting(project, self._model)
            self._detecting.start()

    def close(self) -> None:
        """Let the detection of what is open end, and whoever waits for it."""
        if self._detecting is not None and self._project is not None:
            self._detecting.stop()
            self._project.end()

    def end(self) -> None:
        """Let all work on what is and was open end, and wait for it.

        A program must do so before its end, while PyTorch may still start threads.
        """
        self.close()
        for thread in threading.enumerate():
            if thread.name in (SEARCH, JOB):
                thread.join()

    def demo(self) -> None:
        """Draw images of defects and open them.

        Raises:
            DataError: the generator is not installed, or the images cannot be written.
        """
        try:
            from unispector.data.drawn_set import DrawnSet, draw_set
        except ModuleNotFoundError as error:
            raise DataError(
                "the demo images are drawn by a checkout of the project only; open a folder"
            ) from error
        out = self.home / DEMO
        if not out.exists():
            drawn = DrawnSet(seed=7, parts=1, classes=3, images=4, good=2, size=400)
            draw_set(drawn, out)
        self.open(out)

    def add(self, name: str, data: bytes) -> str:
        """Put an image into the open folder, or into a new one that is then opened.

        Returns the name that it got; a file that is there is never replaced.

        Raises:
            DataError: the name is of no image, or the folder cannot be written to.
        """
        plain = Path(name.replace("\\", "/")).name
        if Path(plain).suffix.lower() not in IMAGE_SUFFIXES or plain.startswith("."):
            raise DataError(f"{plain[:80]}: no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        folder = self.project.folder.root if self.opened else self.home / UPLOADS
        number, target = 1, folder / plain
        try:
            while target.exists():
                number += 1
                target = folder / f"{Path(plain).stem}-{number}{Path(plain).suffix}"
            atomic_write_bytes(target, data)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise DataError(
                f"{folder}: {plain[:80]!a} cannot be put there ({why}); rename it, or make room"
            ) from error
        if not self.opened:
            self.open(folder)
        return target.name

    def export(self, kind: Kind) -> int:
        """Begin an export; return its number.

        Raises:
            DataError: another one is being written.
        """
        project = self.project
        with self._lock:
            state = self.exporting
            if state.number and not state.ready and not state.trouble:
                raise DataError("another export is being written; wait for it")
            number = state.number + 1
            self.exporting = ExportState(number, kind)
        threading.Thread(target=self._export, args=(project, kind, number), name="export").start()
        return number

    def exported(self, number: int) -> Path:
        """The file of a finished export.

        Raises:
            DataError: it is not finished, or another one took its place.
        """
        if self.exporting.number != number or not self.exporting.ready or self._exported is None:
            raise DataError("that export is gone; export again")
        return self._exported

    def _export(self, project: Project, kind: Kind, number: int) -> None:
        def progress(done: int, total: int) -> None:
            if project.ended:
                raise DataError("given up: the folder was closed")
            self.exporting = ExportState(number, kind, done, total)

        try:
            self._exported = export(project, kind, project.session / "exports", progress)
            state = self.exporting
            self.exporting = ExportState(number, kind, state.done, state.total, True, self._exported.name)
        except UniSpectorError as error:
            self.exporting = ExportState(number, kind, trouble=str(error))
        except OSError as error:
            line = f"{error.filename}: cannot be written ({error.strerror}); make room or mend the folder"
            self.exporting = ExportState(number, kind, trouble=line)
        except Exception as error:
            logger.exception("export of %s", project.folder.root)
            self.exporting = ExportState(number, kind, trouble=f"{type(error).__name__}: {error}"[:300])


def folders(path: Path) -> list[FolderEntry]:
    """The folders in a folder, its parent first; hidden ones are passed over.

    Raises:
        DataError: it cannot be read.
    """
    try:
        named = (each for each in path.iterdir() if not each.name.startswith(".") and is_utf8(each.name))
        inside = sorted(each for each in named if each.is_dir())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    entries = [FolderEntry(each.name, str(each), images_in(each)) for each in inside]
    return [FolderEntry("..", str(path.parent), 0), *entries] if path.parent != path else entries


def images_in(folder: Path, most: int = 1000) -> int:
    """Images directly in a folder, counted up to `most`; 0 of one that cannot be read."""
    count = 0
    try:
        for each in folder.iterdir():
            count += each.suffix.lower() in IMAGE_SUFFIXES
            if count >= most:
                break
    except OSError:
        return 0
    return count
