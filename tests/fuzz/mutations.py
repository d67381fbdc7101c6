"""What the fuzz tests share: mutations of what a door takes, and the property that every door keeps.

`pytest tests/fuzz` takes about a minute and tries the same examples each time. `FUZZ_SECONDS=600` in the
environment makes it try new ones, for about ten minutes. What such a run finds becomes a test of the door it
came through, or a file of `corpus/`.
"""

import copy
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar
from xml.etree import ElementTree

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from unispector.errors import UniSpectorError

CORPUS = Path(__file__).parent / "corpus"
USUAL_SECONDS = 60
EXHAUSTIVE = "FUZZ_SECONDS" in os.environ
EXAMPLE_SECONDS = 20
EXAMPLE_BYTES = 2**32  # an image whose header claims 170 million pixels may take 3 GB by the rule

Result = TypeVar("Result")
Draw = Callable[[st.SearchStrategy[Any]], Any]

NUMBERS: list[Any] = [0, -1, 1, 0.5, -0.0, 1e308, -1e308, float("nan"), float("inf"), float("-inf")]
NUMBERS += [2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1e-320, 65536, 10**7]
TEXTS = ["", " ", "0", "-1", "1e999", "NaN", "1_0", "\uff11", "0x10", "true", "{}", "%s", "Ä", "a.png", "a/b"]
TEXTS += [
    "a\nb\x1b[2J",
    "\ud800",
    "\0",
    "\u2028",
    "\u202ea",
    "a" * 3000,
    "s3://[",
    "http://[::1",
    "%2e%2e/a.png",
]
TEXTS += ["../../a.png", "..", "/nowhere/a.png", "C:\\x\\a.png", "\\\\host\\share\\a.png", "data:image/png,A"]
STRUCTURES: list[Any] = [None, True, False, [], {}, [[]], [None], [{}], {"a": 1}, [0] * 500, {"": {}}]
DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]
TOKENS = [b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\xff", b"[" * 20000, b"{" * 3000, b"9" * 5000, b"<a>" * 5000]
TOKENS += [b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"\xed\xa0\x80", b"1e999", b"NaN", b"\\u0000"]
TOKENS += [b"\n", b"\r", b'"', b"-", b",", b"%"]
WORDS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF]


def examples(usual: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Settings of a test that tries `usual` examples, or more where `FUZZ_SECONDS` says so."""
    seconds = os.environ.get("FUZZ_SECONDS")
    count = max(1, int(usual * float(seconds or USUAL_SECONDS) / USUAL_SECONDS))
    return settings(
        max_examples=count,
        derandomize=seconds is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )


def outcome(call: Callable[[], Result], *named: str) -> Result | None:
    """What a call returns; None where it refuses in one line, which holds one of `named`, if any are given.

    Every other exception, a line that is none, more than `EXAMPLE_SECONDS` or `EXAMPLE_BYTES` is a failure.
    """
    with bounded():
        try:
            return call()
        except UniSpectorError as error:
            # What is not printable in it the command line and the service replace when they say it.
            check_line("".join(char if char.isprintable() else " " for char in str(error)), *named)
            return None


def check_line(told: str, *named: str) -> None:
    """Check what a user reads: one line of readable text, not too long, that names what is wrong."""
    assert told.strip(), "an empty message"
    assert not re.search(r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", told), ascii(told)
    assert len(told) < 8000, told
    assert not named or any(name in told for name in named), told


@contextmanager
def bounded() -> Iterator[None]:
    """End the block by an exception where it takes too long or too much memory."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"over {EXAMPLE_SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, EXAMPLE_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + EXAMPLE_BYTES, before[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def anything() -> st.SearchStrategy[Any]:
    """A JSON value that a reader hardly expects."""
    return st.one_of(
        st.sampled_from(NUMBERS),
        st.sampled_from(TEXTS),
        st.sampled_from(STRUCTURES),
        st.just(DEEP),
        st.floats(),
    )


@st.composite
def changed_json(draw: Draw, document: Any, most: int = 3) -> Any:
    """A JSON document of which one to `most` places are replaced, removed, doubled, renamed or swapped."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(document))
        if not places:
            return draw(anything())
        holder, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "replace", "remove", "double", "rename", "swap", "wrap"])):
            case "replace":
                holder[key] = copy.deepcopy(draw(anything()))
            case "remove":
                del holder[key]
            case "double" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case "rename" if isinstance(holder, dict):
                holder[draw(st.sampled_from([*TEXTS, "id", "bbox", "image"]))] = holder.pop(key)
            case "wrap":
                holder[key] = [holder[key]]
            case _:
                other, at = draw(st.sampled_from(places))
                holder[key] = copy.deepcopy(other[at])
    return document


def _places(document: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Every place of a document that is not too deep: what holds it, and its key there."""
    keys: Any = list(document) if isinstance(document, dict) else ()
    if isinstance(document, list):
        keys = range(len(document))
    for key in keys if depth < 20 else ():
        yield document, key
        yield from _places(document[key], depth + 1)


@st.composite
def changed_bytes(draw: Draw, data: bytes, most: int = 4) -> bytes:
    """Bytes of which some were flipped, overwritten, inserted, cut out, doubled or cut off."""
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.one_of(st.integers(1, 8), st.integers(1, max(len(data), 1))))
        match draw(st.sampled_from(["flip", "byte", "word", "token", "cut", "double", "end"])):
            case "flip":
                data = (
                    data[:at]
                    + bytes([(data[at : at + 1] or b"\0")[0] ^ 1 << draw(st.integers(0, 7))])
                    + data[at + 1 :]
                )
            case "byte":
                data = data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
            case "word":
                size, order = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from(["big", "little"]))
                word = (draw(st.sampled_from(WORDS)) % 256**size).to_bytes(size, order)
                data = data[:at] + word + data[at + size :]
            case "token":
                data = data[:at] + draw(st.sampled_from(TOKENS)) + data[at:]
            case "cut":
                data = data[:at] + data[at + length :]
            case "double":
                data = data[: at + length] + data[at:]
            case _:
                data = data[:at]
    return data


@st.composite
def changed_xml(draw: Draw, text: str, most: int = 3) -> str:
    """An XML document with elements removed, doubled, renamed or moved, and odd texts and attributes."""
    root = ElementTree.fromstring(text)
    odd = st.sampled_from(["", *TEXTS, *map(str, NUMBERS)])
    for _ in range(draw(st.integers(1, most))):
        elements = list(root.iter())
        parents = [(parent, child) for parent in elements for child in parent]
        element = draw(st.sampled_from(elements))
        match draw(st.sampled_from(["text", "attribute", "remove", "double", "rename", "move", "lose"])):
            case "text":
                element.text = draw(odd)
            case "attribute" if element.attrib:
                element.set(draw(st.sampled_from(sorted(element.attrib))), draw(odd))
            case "lose" if element.attrib:
                del element.attrib[draw(st.sampled_from(sorted(element.attrib)))]
            case "rename":
                element.tag = draw(st.sampled_from([each.tag for each in elements] + ["a"]))
            case "move" if parents:
                draw(st.sampled_from(elements)).append(copy.deepcopy(element))
            case kind if parents:
                parent, child = draw(st.sampled_from(parents))
                parent.remove(child) if kind == "remove" else parent.append(copy.deepcopy(child))
            case _:
                pass
    return ElementTree.tostring(root, encoding="unicode")


@st.composite
def changed_words(draw: Draw, text: str, between: str = r"(\s+|,|:)", most: int = 3) -> str:
    """A text of fields (YOLO, CSV, YAML) of which some were replaced, removed, doubled or swapped."""
    words = re.split(between, text)
    odd = st.sampled_from(
        [*TEXTS, *map(str, NUMBERS), "&a [*a]", "!!python/name:os", "- " * 500, '"', "#", "\n", "\t"]
    )
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(words) - 1))
        match draw(st.sampled_from(["replace", "replace", "remove", "double", "swap"])):
            case "replace":
                words[at] = draw(odd)
            case "remove":
                words[at] = ""
            case "double":
                words.insert(at, words[at])
            case _:
                other = draw(st.integers(0, len(words) - 1))
                words[at], words[other] = words[other], words[at]
    return "".join(words)


def files_below(folder: Path, names: Sequence[str] = ("*",)) -> list[Path]:
    """The files of a part of the corpus, in order."""
    return sorted(path for name in names for path in folder.rglob(name) if path.is_file())
