"""What the name of a class or of a set may be, at every door, and how any text is shown in a terminal.

A name is read by people in terminals, pages and tables, and compared by machines. Therefore it is visible,
one line, and nothing in it is invisible: two names that look alike are alike.
"""

import re
import unicodedata

LONGEST = 200
"""Characters of a name, at most."""
LONGEST_LINE = 2000
"""Characters of a message, at most: what a file holds may be quoted in it."""

_JOINERS = "\u200c\u200d"  # Persian and Indic words, and emojis, need them
_CONTROLS = re.compile(r"[\0-\x08\n-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_text(text: str) -> bool:
    """Return whether a path fits a table and a message: one line, no controls, no broken encoding."""
    return not _CONTROLS.search(text)


def name_problem(name: object) -> str:
    """Return why something cannot be the name of a class or of a set; empty of one that can."""
    if not isinstance(name, str):
        return "is no text"
    if all(char.isspace() or char in _JOINERS for char in name):
        return "is empty"
    if len(name) > LONGEST:
        return f"is longer than {LONGEST} characters"
    if strange := [char for char in name if not _is_seen(char)]:
        return f"holds {_told(strange[0])}"
    return ""


def folder_name_problem(name: object) -> str:
    """As `name_problem`, of a name that is the name of a folder, too."""
    if problem := name_problem(name):
        return problem
    text = str(name)
    if text.startswith(".") or re.search(r"[/\\:]", text):
        return "is the name of a folder, too, and begins with a dot or holds a slash, backslash or colon"
    return ""


def shown(text: str) -> str:
    r"""Any text in one line as a terminal can show it.

    Controls, broken encoding and what is invisible are escaped, such as `\x1b`; bytes of a file's name that
    are no UTF-8 as `\xff`.
    """
    return "".join(char if _is_seen(char) else _escaped(char) for char in text)


def shortened(text: str) -> str:
    """The text; of one over `LONGEST_LINE` characters the beginning and the end, where remedies are."""
    kept = LONGEST_LINE // 2
    return text if len(text) <= LONGEST_LINE else f"{text[:kept]} ... {text[-kept:]}"


def _is_seen(char: str) -> bool:
    """Return whether a character is no control, surrogate, line break or invisible mark."""
    return char in _JOINERS or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _told(char: str) -> str:
    kinds = {"Cs": "what is no UTF-8", "Cf": "an invisible character"}
    kind = kinds.get(unicodedata.category(char), "a control character or line break")
    return f"{kind} ({_escaped(char)})"
