"""The description of a raw layout."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from unispector.data.sources.rows import Dropped, Entry
from unispector.data.sources.tree import ReleaseTree


@dataclass(frozen=True)
class Source:
    """A raw layout the project can read.

    Attributes:
        title: name of the release, for people.
        layout: its files in one line, for `--list` and for the error where there are none.
        published: where to get it and under which licence, or for own data what makes it.
        rows: lists a release: an `Entry` per marked image, a `Dropped` for what is known to be left out;
            the same rows in the same order at every call. Files it names nowhere are reported as such.
            Raises `DataError` where an annotation file cannot be used.
        insa_name: name of the set in InsA, also its folder below the data's root; "" for own data.
        domain: `in` trains with its seen classes, `cross` is only tested on.
        categories: all `<product>_<defect>` the release may have, compared without regard to case; empty
            where there is no such list.
        drops_small: whether the size rule applies, which takes specks out of masks; instances that
            people drew one by one are kept at any size.
    """

    title: str
    layout: str
    published: str
    rows: Callable[[ReleaseTree], Iterator[Entry | Dropped]]
    insa_name: str = ""
    domain: Literal["in", "cross"] = "in"
    categories: frozenset[str] = frozenset()
    drops_small: bool = True
