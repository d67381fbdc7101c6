"""The images of a release, found by the paths that a tool's export gives them."""

from collections import defaultdict

from unispector.data.sources.fields import IMAGE_SUFFIX
from unispector.data.sources.tree import ReleaseTree
from unispector.ops.files import read_image_size


class NamedImages:
    """All images of a release, and which of them an annotation was found for.

    What exports call an image was a place on another machine, so an image is taken whose path ends like it.
    """

    def __init__(self, tree: ReleaseTree) -> None:
        self._tree = tree
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._annotated: dict[str, str] = {}
        for match in tree.matching(rf"(?:.*/)?([^/]+\.{IMAGE_SUFFIX})"):
            self._by_name[match[1]].append(match[0])

    def find(self, path: str, file: str, *, least: int) -> str | None:
        """The image whose path ends most like `path`; None where there is none.

        Args:
            path: parts joined by slashes; the last is the image's name.
            file: the export, which the message names; of equals the image nearest to it is taken.
            least: as many of the last parts must be the same.

        Raises:
            DataError: two images are as likely.
        """
        wanted, folder = path.split("/"), file.split("/")[:-1]
        ranked = []
        for image in self._by_name.get(wanted[-1], []):
            parts = image.split("/")
            same = _common(wanted[::-1], parts[::-1])
            if same >= least:
                ranked.append(((same, _common(folder, parts)), image))
        ranked.sort(reverse=True)
        if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            raise self._tree.error(
                file, f"{path!r} may be {ranked[1][1]} or {ranked[0][1]}; remove or rename one"
            )
        return ranked[0][1] if ranked else None

    def size(self, image: str) -> tuple[int, int]:
        """Width and height of an image's file, upright.

        Raises:
            DataError: it is unreadable.
        """
        return read_image_size(self._tree.root / image)

    def annotate(self, image: str, what: str, file: str) -> None:
        """Remember what annotates an image, so that nothing else does.

        Raises:
            DataError: something else did.
        """
        if image in self._annotated:
            raise self._tree.error(
                file, f"{what} annotates {image}, as does {self._annotated[image]}; remove one of the two"
            )
        self._annotated[image] = f"{what} of {file}"

    def not_annotated(self) -> list[str]:
        """Images that nothing was found for, in order."""
        return sorted(name for same in self._by_name.values() for name in same if name not in self._annotated)


def _common(ours: list[str], theirs: list[str]) -> int:
    """Length of the common beginning."""
    length = min(len(ours), len(theirs))
    return next((i for i in range(length) if ours[i] != theirs[i]), length)
