"""A comment beside or above a field of a class becomes its documentation on the site."""

import re
from typing import Any

from griffe import Attribute, Docstring, Extension


class Fields(Extension):
    """Documents fields by their comments."""

    def on_attribute_instance(self, *, attr: Attribute, **_: Any) -> None:
        """Give a field its comment, when it has nothing else."""
        if attr.docstring or attr.lineno is None or not attr.parent or not attr.parent.is_class:
            return
        lines = attr.lines_collection[attr.filepath]
        last = lines[(attr.endlineno or attr.lineno) - 1]
        comment = re.search(r"\s#\s(.*)$", last)
        words = [comment[1]] if comment else []
        above = attr.lineno - 2
        while not comment and (line := re.fullmatch(r"\s*#\s(.*)", lines[above])):
            words.insert(0, line[1])
            above -= 1
        if words:
            attr.docstring = Docstring(" ".join(words), parent=attr)
