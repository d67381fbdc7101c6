"""The description of a raw layout."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from unispector.data.sources.rows import Dropped, Entry
from unispector.data.sources.tree import ReleaseTree


@dataclass(frozen=True)
class Source:
    """A raw layout the project can read."""

    title: str  # name of the release, for people
    layout: str  # its files in one line, for `--list` and for the error where there are none
    published: str  # where to get it and under which licence, or for own data what makes it
    # Lists a release: an `Entry` per marked image, a `Dropped` for what is known to be left out; the same
    # rows in the same order at every call. Files it names nowhere are reported as such. Raises `DataError`
    # where an annotation file cannot be used.
    rows: Callable[[ReleaseTree], Iterator[Entry | Dropped]]
    insa_name: str = ""  # name of the set in InsA, also its folder below the data's root; "" for own data
    domain: Literal["in", "cross"] = "in"  # `in` trains with its seen classes, `cross` is only tested on
    # All `<product>_<defect>` the release may have, compared without regard to case; empty where there is no
    # such list.
    categories: frozenset[str] = frozenset()
    # Whether the size rule applies, which takes specks out of masks; instances that people drew one by one
    # are kept at any size.
    drops_small: bool = True
