"""Figures of a set against the pixels and records themselves."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.protocol.splits import SplitRules, draw_prompts
from unispector.data.sources import Source
from unispector.data.sources.rows import Box, Entry
from unispector.data.sources.tree import ReleaseTree
from unispector.data.statistics import PromptRules, Quantiles, Statistics, prompt_ratio, set_statistics
from unispector.data.survey import read_survey, survey_set
from unispector.errors import DataError

RULES = PromptRules(prompts_per_class=5, tail_images=10)
SIZES = ((40, 30), (64, 48), (50, 80))


def rows(tree: ReleaseTree) -> Iterator[Entry]:
    yield from (Entry(match[0], "", (Box("a", (2, 3, 10, 4)),)) for match in tree.matching(r".*\.png"))


def annotations_of(labels: list[set[int]], sizes: list[tuple[int, int]] | None = None) -> Annotations:
    """Images of given classes; class n has n + 1 boxes on an image."""
    sizes = sizes or [(40, 30)] * len(labels)
    images = [ImageRecord(n, f"{n}.png", *size) for n, size in enumerate(sizes, start=1)]
    shown = [
        (n, label) for n, found in enumerate(labels, start=1) for label in found for _ in range(label + 1)
    ]
    instances = [
        InstanceRecord(number, image, label, (2.0, 3.0, 10.0, 4.0), 40.0, None)
        for number, (image, label) in enumerate(shown, start=1)
    ]
    categories = [CategoryRecord(n, "abc"[n], "") for n in sorted(set().union(*labels))]
    return Annotations(tuple(images), tuple(instances), tuple(categories))


@pytest.fixture
def three(tmp_path: Path) -> tuple[Annotations, Path, np.ndarray]:
    """Annotations, survey file and all pixels [n, 3] of three colour images."""
    rng = np.random.default_rng(1)
    pixels = []
    for n, (width, height) in enumerate(SIZES, start=1):
        image = rng.integers(20 * n, 60 + 60 * n, (height, width, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{n}.png")
        pixels.append(cv2.cvtColor(image, cv2.COLOR_RGB2HSV).reshape(-1, 3))
    annotations = annotations_of([{0}, {0, 1}, {1}], list(SIZES))
    source = Source("boxes", "*.png", "made here", rows)
    out = tmp_path / "set.parquet"
    survey_set(annotations, source, tmp_path, out, min_side=0.0)
    return annotations, out, np.concatenate(pixels)


def test_colour_is_that_of_all_pixels_together(three: tuple[Annotations, Path, np.ndarray]) -> None:
    annotations, survey, pixels = three
    colour = set_statistics("set", annotations, read_survey(survey), RULES).colour
    found = [(item.mean, item.deviation) for item in (colour.hue, colour.saturation, colour.value)]
    expected = list(zip(pixels.mean(axis=0), pixels.std(axis=0), strict=True))
    assert np.allclose(found, expected, rtol=1e-9)
    assert len({round(mean, 3) for mean, _ in found}) == 3


def test_counts_and_sizes(three: tuple[Annotations, Path, np.ndarray]) -> None:
    annotations, survey, _ = three
    found = set_statistics("set", annotations, read_survey(survey), RULES)
    assert (found.name, found.images, found.instances) == ("set", 3, 6)
    assert found.width == Quantiles(40, 45, 50, 57, 64)
    assert (found.height.minimum, found.height.median, found.height.maximum) == (30, 48, 80)
    assert found.instances_per_image == Quantiles(1, 1.5, 2, 2.5, 3)
    shares = [40 / 1200] + [40 / 3072] * 3 + [40 / 4000] * 2
    assert np.allclose(list(vars(found.instance_size).values()), np.quantile(shares, (0, 0.25, 0.5, 0.75, 1)))
    assert [(item.name, item.images, item.instances) for item in found.classes] == [("a", 2, 2), ("b", 2, 4)]


@pytest.mark.parametrize(
    ("images", "fixed", "adaptive"),
    [(2, 1.0, 1.0), (6, 5.0, 1 / 5), (10, 1.0, 1 / 9), (11, 5 / 6, 5 / 6), (105, 0.05, 0.05)],
)
def test_ratios_of_a_class_are_those_of_its_draws(images: int, fixed: float, adaptive: float) -> None:
    annotations = annotations_of([{0}] * images)
    found = set_statistics("set", annotations, survey_of(annotations), RULES).classes[0]
    assert (found.fixed_ratio, found.adaptive_ratio) == pytest.approx((fixed, adaptive))
    for tail, ratio in ((RULES.tail_images, adaptive), (0, fixed)):
        rules = SplitRules(0.25, RULES.prompts_per_class, tail, 0.1)
        draw = draw_prompts("set", annotations, ["a"], rules, seed=1)
        assert len(draw.prompt.images) / len(draw.target.images) == pytest.approx(ratio)


def test_only_images_of_one_class_can_be_prompts() -> None:
    assert prompt_ratio(images=20, pure=2, prompts=5) == 2 / 18
    assert prompt_ratio(images=20, pure=0, prompts=5) == 0
    assert prompt_ratio(images=1, pure=1, prompts=5) == 0
    annotations = annotations_of([{0}] * 3 + [{0, 1}] * 12 + [{1}])
    first, second = set_statistics("set", annotations, survey_of(annotations), RULES).classes
    assert (first.images, first.fixed_ratio, first.adaptive_ratio) == (15, 3 / 12, 3 / 12)
    assert (second.images, second.fixed_ratio, second.adaptive_ratio) == (13, 1 / 12, 1 / 12)


def survey_of(annotations: Annotations):
    import pandas as pd

    sums = {f"{channel}_{kind}": 5.0 for channel in "hsv" for kind in ("sum", "squares")}
    row = {"width": 40, "height": 30, "pixels": 1200, "problem": "", **sums}
    return pd.DataFrame([{"file_name": image.file_name, **row} for image in annotations.images])


def test_refuses_a_survey_of_other_images_or_with_damage() -> None:
    annotations = annotations_of([{0}] * 3)
    survey = survey_of(annotations)
    with pytest.raises(DataError, match="set: the survey is of other images"):
        set_statistics("set", annotations, survey.iloc[:2], RULES)
    survey.loc[1, "problem"] = "2.png: not a readable image"
    with pytest.raises(DataError, match=r"set: 2\.png: not a readable image"):
        set_statistics("set", annotations, survey, RULES)


def test_statistics_survive_their_file(tmp_path: Path) -> None:
    annotations = annotations_of([{0}, {0, 1}, {1}])
    found = Statistics(RULES, (set_statistics("ä", annotations, survey_of(annotations), RULES),))
    path = tmp_path / "statistics.json"
    with pytest.raises(DataError, match=r"statistics\.json: cannot be read .* run the statistics stage"):
        Statistics.read(path)
    found.write(path)
    assert Statistics.read(path) == found
    for text in ("", "{}", '{"rules": 3, "sets": []}'):
        path.write_text(text)
        with pytest.raises(DataError, match="not the statistics of sets"):
            Statistics.read(path)
