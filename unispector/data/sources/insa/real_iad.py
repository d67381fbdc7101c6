"""The Real-IAD release: `realiad_1024/<product>/NG/<code>/S0001/*.jpg`, labelled by `<product>.json`.

Of each sample five views exist, and a defect is not visible in every one: views the annotation file calls OK
are left out though they lie below NG (paper appendix 1.1). Defects are named by their code: AK pit, BX
deformation, CH abrasion, HS scratch, PS damage, QS missing parts, YW foreign object, ZW contamination.

The images may lie in `realiad_1024` or `realiad-1024` or directly in the root; other resolutions and the
`_sv` and `_fuiad` variants of the annotation files are not used.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from pydantic import TypeAdapter, ValidationError

from unispector.data.sources import reasons
from unispector.data.sources.fields import to_name
from unispector.data.sources.rows import BinaryMask, Dropped, Entry
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree

NOT_VISIBLE = "view that shows no defect"
THRESHOLD = 127  # masks are 0 and 255; of a grey edge, should there be one, the brighter half counts
CODES = ("AK", "BX", "CH", "HS", "PS", "QS", "YW", "ZW")
PRODUCTS = (
    "audiojack bottle_cap button_battery end_cap eraser fire_hood mint mounts pcb phone_battery plastic_nut "
    "plastic_plug porcelain_doll regulator rolled_strip_base sim_card_set switch tape terminalblock "
    "toothbrush toy toy_brick transistor1 u_block usb usb_adaptor vcpill wooden_beads woodstick zipper"
)
_FOLDER = r"((?:(?:.*/)?realiad[_-]1024/)?)([^/]+)/(?:OK|NG)/.+"
_ANNOTATIONS = r"(?:.*/)?realiad_jsons/(?!.*_sv\.json|.*_fuiad_[\d.]+\.json)([^/]+)\.json"


@dataclass(frozen=True)
class _View:
    """One image of an annotation file; paths are relative to its prefix."""

    anomaly_class: str
    image_path: str
    mask_path: str | None


@dataclass(frozen=True)
class _Meta:
    prefix: str
    normal_class: str


@dataclass(frozen=True)
class _Annotations:
    """The keys read from one product's annotation file; others are ignored."""

    meta: _Meta
    train: list[_View]
    test: list[_View]


_SCHEMA = TypeAdapter(_Annotations)


@dataclass(frozen=True)
class _Product:
    """One product: its annotation file, and the folder that the products lie in."""

    tree: ReleaseTree
    name: str
    file: str
    place: str

    @property
    def home(self) -> str:
        return f"{self.place}{self.name}/"

    def rows(self) -> Iterator[Entry | Dropped]:
        content = self._read()
        listed: set[str] = set()
        for view in (*content.train, *content.test):
            row = self._row(view, content.meta)
            for file in row.files:
                if file in listed:
                    raise self.tree.error(self.file, f"{file} is listed twice; correct one of the entries")
                listed.add(file)
            yield row
        yield from self._unlisted(listed)

    def _read(self) -> _Annotations:
        raw = self.tree.read_json(self.file)
        try:
            return _SCHEMA.validate_python(raw)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "the file"
            raise self.tree.error(self.file, f"{key}: {first['msg']}; restore the file") from error

    def _row(self, view: _View, meta: _Meta) -> Entry | Dropped:
        image = self._locate(meta, view.image_path)
        if image not in self.tree:
            return Dropped(reasons.ORPHAN, image)
        if view.anomaly_class == meta.normal_class:
            return Dropped(NOT_VISIBLE if image.startswith(f"{self.home}NG/") else reasons.DEFECT_FREE, image)
        stem = image.rpartition(".")[0]
        masks = [f"{stem}.png", f"{stem}_mask.png"]
        if view.mask_path:
            masks.insert(0, self._locate(meta, view.mask_path))
        for mask in masks:
            if mask in self.tree:
                return Entry(image, self.name, (BinaryMask(mask, self._code(view), THRESHOLD),))
        return Dropped(reasons.NO_MASK, image)

    def _locate(self, meta: _Meta, path: str) -> str:
        file = self.tree.below(self.tree.below(self.place, meta.prefix, self.file), path, self.file)
        if not file.startswith(self.home):
            raise self.tree.error(self.file, f"{file} is outside the folder {self.home}; correct its path")
        return file

    def _code(self, view: _View) -> str:
        try:
            return to_name(view.anomaly_class)
        except ValueError as error:
            raise self.tree.error(
                self.file, f"anomaly_class of {view.image_path}: {error}; restore the file"
            ) from error

    def _unlisted(self, listed: set[str]) -> Iterator[Dropped]:
        """Images and masks of the product's folder that its annotation file does not name."""
        files = self.tree.files[bisect_left(self.tree.files, self.home) :]
        for file in takewhile(lambda name: name.startswith(self.home), files):
            stem, _, ending = file.rpartition(".")
            if ending == "jpg" and file not in listed:
                yield Dropped(reasons.NO_ANNOTATION, file)
            elif ending == "png" and file not in listed and not self._has_image(stem):
                yield Dropped(reasons.NO_IMAGE, file)

    def _has_image(self, stem: str) -> bool:
        return f"{stem}.jpg" in self.tree or f"{stem.removesuffix('_mask')}.jpg" in self.tree


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    place, products = _product_folders(tree)
    files = _annotation_files(tree)
    missing = sorted(products - files.keys())
    if missing:
        problem = f"no realiad_jsons/{missing[0]}.json tells its defects; fetch that file"
        raise tree.error(f"{place}{missing[0]}", problem)
    for name, file in files.items():
        yield from _Product(tree, name, file, place).rows()


def _product_folders(tree: ReleaseTree) -> tuple[str, set[str]]:
    """The folder that the products lie in, and the products."""
    places: set[str] = set()
    products: set[str] = set()
    for match in tree.matching(_FOLDER):
        places.add(match[1])
        products.add(match[2])
        if len(places) > 1:
            raise tree.error(match[0], "products lie in another folder too; keep one copy of the release")
    return next(iter(places), ""), products


def _annotation_files(tree: ReleaseTree) -> dict[str, str]:
    """Product -> its annotation file."""
    files: dict[str, str] = {}
    for match in tree.matching(_ANNOTATIONS):
        if match[1] in files:
            raise tree.error(match[0], f"{files[match[1]]} is of the same product; keep one of the two")
        files[match[1]] = match[0]
    return files


REAL_IAD = Source(
    title="Real-IAD",
    layout="realiad_1024/<product>/NG/<code>/S*/*.jpg, masks beside them, and realiad_jsons/<product>.json",
    published="realiad4ad.github.io/Real-IAD, on request; CC BY-NC-SA 4.0",
    rows=_rows,
    insa_name="RealIAD",
    domain="in",
    categories=frozenset(f"{product}_{code}" for product in PRODUCTS.split() for code in CODES),
)
