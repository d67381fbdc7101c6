"""Warnings about images, for the page to show: one of each kind."""

import logging
import re
from pathlib import Path

MOST = 20


class Messages(logging.Handler):
    """Collects the package's warnings until it is closed.

    Attributes:
        lines: the first warning of each kind; kinds differ in more than a file's name and in numbers.
    """

    def __init__(self, root: Path) -> None:
        """Begin to collect.

        Args:
            root: folder whose path is left out of the lines.
        """
        super().__init__(logging.WARNING)
        self.lines: tuple[str, ...] = ()
        self._root = f"{root}/"
        self._kinds: set[str] = set()
        logging.getLogger("unispector").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a warning in."""
        line = record.getMessage().replace(self._root, "")
        kind = re.sub(r"\d+", "0", line.partition(": ")[2] or line)
        if kind not in self._kinds and len(self.lines) < MOST:
            self._kinds.add(kind)
            self.lines = (*self.lines, " ".join(line.split())[:400])

    def close(self) -> None:
        """Collect no more."""
        logging.getLogger("unispector").removeHandler(self)
        super().close()
