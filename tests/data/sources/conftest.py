"""Sound releases in every layout, and copies of them to be damaged."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from releases import convert, refused
from source_layouts import LAYOUTS, PAINTED, Layout
from unispector.config import MiniConfig
from unispector.data.mini import generate_mini
from unispector.data.sources import SOURCES
from unispector.data.survey import read_survey, survey_set

Row = tuple[str, str, int]


@dataclass(frozen=True)
class Result:
    """What a conversion gave: instances and problem by image, the dropped files, the report's counts."""

    images: dict[str, list[Any]]
    problems: dict[str, str]
    rows: Counter[Row]
    counts: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Case:
    """A copy of a sound release, to be damaged; `sound` is what the original gives."""

    source: str
    raw: Path
    out: Path
    sound: Result

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.source]

    @property
    def image(self) -> str:
        return min(self.raw.glob(self.layout.image)).relative_to(self.raw).as_posix()

    def mask(self, image: str) -> str:
        return self.layout.mask.format(stem=Path(image).stem, folder=Path(image).parent.as_posix())

    def notes(self, image: str) -> str:
        return self.layout.notes.format(stem=Path(image).stem)

    def of_its_class(self, image: str) -> tuple[str, ...]:
        """The images that show the class of an image's first instance."""
        category = self.sound.images[image][0][0]
        return tuple(name for name, of in self.sound.images.items() if category in {mark[0] for mark in of})

    def without_image(self, image: str) -> list[Row]:
        """The rows that are told when an image is gone."""
        rows = [("mask without its image", self.mask(image), 0)] if self.mask(image) else []
        if "{stem}" in self.layout.notes:
            rows.append(("annotation without its image", self.notes(image), len(self.sound.images[image])))
        elif self.notes(image):
            marks = 0 if rows else len(self.sound.images[image])
            rows.append(("annotation without its image", image, marks))
        return rows

    def convert(self) -> Result:
        return converted(self.source, self.raw, self.out)

    def counted(self, *rows: Row, lost: tuple[str, ...] = ()) -> None:
        """Convert: `rows` are told besides, the images `lost` are gone, and nothing else has changed."""
        result = self.convert()
        assert result.rows - self.sound.rows == Counter(rows)
        assert not self.sound.rows - result.rows
        for reason in {*result.counts, *self.sound.counts}:
            before, after = (found.counts.get(reason, (0, 0)) for found in (self.sound, result))
            told = [row[2] for row in rows if row[0] == reason]
            assert after == (before[0] + len(told), before[1] + sum(told)), reason
        assert result.images == {name: of for name, of in self.sound.images.items() if name not in lost}
        assert set(result.problems.values()) == {""}

    def refused(self, message: str) -> None:
        refused(self.source, self.raw, message)


def converted(source: str, raw: Path, out: Path) -> Result:
    """Conversion and survey."""
    found = convert(source, raw, out, min_side=0)
    survey_set(found.annotations, SOURCES[source], raw, out / "set.parquet", min_side=0)
    survey = read_survey(out / "set.parquet")
    assert not survey["mask_difference"].any()
    return Result(
        images={
            file: [(name, mark.bbox, mark.segmentation) for name, mark in marks]
            for file, marks in found.marks.items()
        },
        problems=dict(zip(survey["file_name"], survey["problem"], strict=True)),
        rows=Counter(found.told),
        counts=found.dropped,
    )


@pytest.fixture(scope="session")
def sound_releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Result]]:
    """Layout -> a sound release, and what its conversion gives."""
    root = tmp_path_factory.mktemp("sound")
    generate_mini(MiniConfig(images_per_class=1, defect_free_images=2, size=64), root / "mini", workers=1)
    releases = {}
    for source, layout in LAYOUTS.items():
        folder = root / "mini" / SOURCES[source].insa_name
        if layout.write is not None:
            folder = root / "own" / source
            layout.write(folder, PAINTED)
        releases[source] = folder, converted(source, folder, root / "out" / source)
    return releases


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The folder of a release in the making."""
    return tmp_path / "raw"


@pytest.fixture
def case_of(sound_releases: dict[str, tuple[Path, Result]], tmp_path: Path) -> Callable[[str], Case]:
    """Copies the sound release of a layout."""

    def copy(source: str) -> Case:
        folder, result = sound_releases[source]
        return Case(source, shutil.copytree(folder, tmp_path / "raw"), tmp_path / "out", result)

    return copy
