"""The prompt space against known geometry, and its file and section."""

import itertools
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unispector.errors import DataError
from unispector.ops.drawing import class_colour
from unispector.reporting.charts import NAMED_CLASSES
from unispector.reporting.model import Report
from unispector.reporting.prompt_space import (
    PromptSpace,
    PromptSpaceRecord,
    angle_rows,
    prompt_space_section,
    read_records,
    records_json,
)
from unispector.reporting.render import html

NAMES = ("crack", "hole", "fray")


def test_orthogonal_clusters_are_90_degrees_apart_and_0_wide():
    embeddings = np.repeat(np.eye(3), [4, 2, 3], axis=0) * np.arange(1, 10)[:, None]
    space = PromptSpace.of(embeddings, [0] * 4 + [1] * 2 + [2] * 3, NAMES)
    assert space.within_degrees == pytest.approx(0, abs=1e-5)
    assert space.between_degrees == pytest.approx(90, abs=1e-5)
    assert sum(space.explained) == pytest.approx(1)
    assert (space.class_names, space.labels) == (NAMES, (0, 0, 0, 0, 1, 1, 2, 2, 2))


def test_angles_of_known_fans():
    def at(degrees, length=1.0):
        return [length * math.cos(math.radians(degrees)), length * math.sin(math.radians(degrees)), 0]

    # The first class's pairs are 10, 20 and 30 degrees apart, the second's pair 40; classes count alike.
    space = PromptSpace.of([at(0), at(10), at(30), at(100), at(140)], [0, 0, 0, 1, 1], NAMES)
    assert space.within_degrees == pytest.approx((20 + 40) / 2)
    # The mean is of the embeddings as they are: the longer one weighs more.
    space = PromptSpace.of([at(0, 3), at(90, 1), at(180, 0.1)], [0, 0, 1], NAMES)
    assert space.between_degrees == pytest.approx(180 - math.degrees(math.atan2(1, 3)))
    assert space.within_degrees == pytest.approx(90)


def test_one_instance_classes_have_no_angle_within():
    space = PromptSpace.of(np.eye(3), [2, 1, 0], NAMES)
    assert space.within_degrees is None
    assert space.between_degrees == pytest.approx(90)
    assert space.labels == (2, 1, 0)


def test_one_class_has_no_angle_between_and_absent_classes_are_left_out():
    space = PromptSpace.of(np.eye(2), [1, 1], NAMES)
    assert space.between_degrees is None
    assert space.within_degrees == pytest.approx(90)
    assert (space.class_names, space.labels) == (("hole",), (0, 0))


@pytest.mark.parametrize("embeddings", [[[3.0, 4.0]], [[3.0], [5.0]], [[1.0, 2.0, 2.0]] * 4])
def test_where_nothing_varies_all_points_are_one(embeddings):
    space = PromptSpace.of(embeddings, [0] * len(embeddings), NAMES)
    assert set(space.points) == {(0.0, 0.0)}
    assert space.explained == (0.0, 0.0)


def test_points_are_the_principal_components_of_unit_vectors():
    rng = np.random.default_rng(3)
    embeddings = rng.normal(size=(40, 8)) * [9, 5, 1, 1, 1, 1, 1, 1]
    space = PromptSpace.of(embeddings, [0] * 40, NAMES)
    unit = embeddings / np.linalg.norm(embeddings, axis=1)[:, None]
    values, vectors = np.linalg.eigh(np.cov(unit.T, bias=True))
    points = np.array(space.points)
    for place in (0, 1):
        expected = (unit - unit.mean(axis=0)) @ vectors[:, -1 - place]
        assert min(abs(points[:, place] - expected).max(), abs(points[:, place] + expected).max()) < 1e-9
        assert space.explained[place] == pytest.approx(values[-1 - place] / values.sum())


@pytest.mark.parametrize("seed", range(5))
def test_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    embeddings, labels = rng.normal(size=(30, 6)) * [5, 3, 1, 1, 1, 1], rng.integers(0, 3, 30)
    order = rng.permutation(30)
    one = PromptSpace.of(embeddings, labels, NAMES)
    other = PromptSpace.of(embeddings[order], labels[order], NAMES)
    assert np.array(other.points) == pytest.approx(np.array(one.points)[order], abs=1e-9)
    assert other.within_degrees == pytest.approx(one.within_degrees)
    assert other.between_degrees == pytest.approx(one.between_degrees)


@pytest.mark.parametrize("noise", [-1e-9, 0.0, 1e-9])
def test_rounding_does_not_turn_the_axis_where_entries_are_equally_large(noise):
    for order in itertools.permutations(range(4)):
        embeddings = np.array([[1.0, 0], [1, 0], [noise, 1], [0, 1]])[list(order)]
        x = np.array(PromptSpace.of(embeddings, [0] * 4, NAMES).points)[:, 0]
        assert x == pytest.approx(np.where(embeddings[:, 0] == 1, 1, -1) / math.sqrt(2))


@settings(deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 5)), elements=st.floats(-10, 10)).filter(
        lambda drawn: (np.linalg.norm(drawn, axis=1) > 1e-3).all()
    ),
    st.data(),
)
def test_angles_against_pair_by_pair_computation(embeddings, data):
    labels = data.draw(st.lists(st.integers(0, 2), min_size=len(embeddings), max_size=len(embeddings)))
    means = [embeddings[np.array(labels) == label].mean(axis=0) for label in sorted(set(labels))]
    if any(np.linalg.norm(mean) < 1e-3 for mean in means):
        return  # embeddings that cancel out have no mean direction

    def angle(a, b):
        return math.degrees(
            2
            * math.atan2(
                *[np.linalg.norm(a / np.linalg.norm(a) + s * b / np.linalg.norm(b)) for s in (-1, 1)]
            )
        )

    space = PromptSpace.of(embeddings, labels, NAMES)
    within = [
        np.mean(pairs)
        for label in set(labels)
        if (
            pairs := [
                angle(a, b) for a, b in itertools.combinations(embeddings[np.array(labels) == label], 2)
            ]
        )
    ]
    between = [angle(a, b) for a, b in itertools.combinations(means, 2)]
    assert space.within_degrees == (pytest.approx(np.mean(within), abs=1e-5) if within else None)
    assert space.between_degrees == (pytest.approx(np.mean(between), abs=1e-5) if between else None)
    assert 0 <= sum(space.explained) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        ([[1.0, 0], [0, 0]], [0, 1], "class hole: the embedding of instance 1 is zero"),
        ([[1.0, math.nan]], [2], "class fray: the embedding of instance 0"),
        ([[1.0, 0]], [0, 1], "labels"),
        ([1.0, 0], [0, 1], "embeddings"),
        (np.zeros((0, 4)), [], "embeddings"),
        ([[1.0, 0]], [3], "labels 3 to 3 for 3 class names"),
        ([[1.0, 0]], [-1], "labels"),
        ([[1.0, 0], [1, 0], [-1, 0]], [2, 0, 0], "class crack: its embeddings cancel out"),
    ],
)
def test_what_has_no_angle_is_refused_by_name(embeddings, labels, message):
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        PromptSpace.of(embeddings, labels, NAMES)
    assert "\n" not in str(caught.value)


def record(variant="unispector", data_set="tile", split_seed=42, names=NAMES, factor=1.0):
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(len(names)), 4)
    embeddings = np.ones(16) + factor * rng.normal(size=(len(names), 16))[labels] + rng.normal(size=16) / 10
    return PromptSpaceRecord(data_set, variant, split_seed, PromptSpace.of(embeddings, labels, names))


def test_records_survive_their_file(tmp_path):
    path = tmp_path / "prompt_space.json"
    lone = PromptSpaceRecord("Größe", "base", 82, PromptSpace.of([[1.0, 2.0]], [0], ["<a> \u2028"]))
    records = (record(), lone)
    path.write_text(records_json(records), encoding="utf-8")
    found = read_records(path)
    assert records_json(found) == path.read_text(encoding="utf-8")
    assert found[1] == lone
    assert found[0].space.labels == records[0].space.labels
    assert np.array(found[0].space.points) == pytest.approx(np.array(records[0].space.points), abs=5e-5)
    assert found[0].space.between_degrees == pytest.approx(records[0].space.between_degrees, abs=5e-4)


def changed(**changes):
    content = json.loads(records_json([record()]))
    content["prompt_spaces"][0]["space"] |= changes
    return json.dumps(content)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"rows": []}',
        '{"prompt_spaces": [3]}',
        changed(labels=[0]),
        changed(labels=[9] * 12),
        changed(points=[[1, 2, 3]]),
        changed(explained=1),
        changed(colour="red"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path, text):
    path = tmp_path / "prompt_space.json"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(f"{path}: not a record of prompt spaces")):
        read_records(path)


def test_absent_and_empty_files_are_named(tmp_path):
    path = tmp_path / "prompt_space.json"
    with pytest.raises(DataError, match="cannot be read"):
        read_records(path)
    path.write_text('{"prompt_spaces": []}')
    with pytest.raises(DataError, match="no prompt space in it"):
        read_records(path)


def page_of(records):
    """The section on a page, without the page's own navigation."""
    page = html(Report("a title", sections=(prompt_space_section(records),)))
    return page[page.index("<main>") :]


def test_section_puts_variants_beside_each_other_main_one_first():
    records = [record("base", factor=0.1), record("odd <i>"), record(), record("base", "steel")]
    source = page_of(records)
    assert source == page_of(records)
    assert re.findall(r'<svg[^>]*aria-label="([^"]*)"', source) == [
        "tile: UniSpector, split 42",
        "tile: Base, split 42",
        "tile: odd &lt;i&gt;, split 42",
        "steel: Base, split 42",
    ]
    assert source.count('class="cards') == 2
    ids = re.findall(r'\bid="([^"]*)"', source)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', source)) <= set(ids)
    rows = angle_rows(records)
    assert [row[:5] for row in rows][:2] == [
        ["tile", "42", "UniSpector", "12", "3"],
        ["tile", "42", "Base", "12", "3"],
    ]
    within, between = (
        f"{angle:.1f}°" for angle in vars(records[0].space).values() if isinstance(angle, float)
    )
    assert rows[1][5:] == [within, between]
    assert within in source


def ticks_of(source):
    return re.findall(r">(\W?[\d.]+)</text>", source)


def test_charts_of_a_row_have_one_scale_and_the_colours_of_the_pictures():
    wide, narrow = record(), record("base", factor=0.1)
    source = page_of([wide, narrow])
    first, second = source.split("<svg")[1:3]
    assert ticks_of(first) == ticks_of(second) == ticks_of(page_of([wide]))
    assert ticks_of(first) != ticks_of(page_of([narrow]))
    for place in range(3):
        colour = "#" + "".join(f"{channel:02x}" for channel in class_colour(place))
        assert colour in first
        assert colour in second


def test_many_classes_are_not_named():
    some, many = (tuple(f"class {n}" for n in range(count)) for count in (NAMED_CLASSES, NAMED_CLASSES + 1))
    assert ">class 3</text>" in page_of([record(names=some)])
    assert ">class 3</text>" not in page_of([record(names=many)])
