"""What is watched, against loops and pairs; and what a report gathers."""

import math
import time
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unispector.modeling.pixel_decoder import token_centres
from unispector.training.monitor import RECENT, Monitor, SeenPrompts, box_coverage, levels_used

LEVELS = ((1, 2), (2, 4), (5, 3))
TOKENS = 2 + 8 + 15


@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 6), st.integers(1, 5))
def test_coverage_and_levels_are_what_loops_count(seed: int, images: int, queries: int, boxes: int):
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(TOKENS, (images, queries), generator=generator)
    image_index = torch.randint(images, (boxes,), generator=generator).sort().values
    truth = torch.rand(boxes, 4, generator=generator) * torch.tensor([1, 1, 0.8, 0.8])
    cells = [(level, x, y) for level, (h, w) in enumerate(LEVELS) for y in range(h) for x in range(w)]
    covered = 0
    for image, (cx, cy, w, h) in zip(image_index.tolist(), truth.tolist(), strict=True):
        for token in indices[image].tolist():
            level, x, y = cells[token]
            height, width = LEVELS[level]
            if abs((x + 0.5) / width - cx) <= w / 2 and abs((y + 0.5) / height - cy) <= h / 2:
                covered += 1
                break
    chosen = token_centres(LEVELS, torch.device("cpu"))[indices]
    assert box_coverage(chosen, image_index, truth).item() == pytest.approx(covered / boxes)
    levels = [len({cells[token][0] for token in row}) for row in indices.tolist()]
    assert levels_used(indices, LEVELS).item() == pytest.approx(sum(levels) / images)


def test_a_box_holds_what_lies_on_its_edge_and_none_but_its_own_image_counts():
    box = torch.tensor([[0.5, 0.5, 0.5, 0.25]])
    for point, inside in (([0.75, 0.5], 1), ([0.5, 0.625], 1), ([0.76, 0.5], 0), ([0.5, 0.64], 0)):
        points = torch.tensor([[point, [0.9, 0.9]], [[0.5, 0.5]] * 2])
        assert box_coverage(points, torch.tensor([0]), box).item() == inside
        assert box_coverage(points, torch.tensor([1]), box).item() == 1
    assert box_coverage(points, torch.tensor([0, 1]), box.repeat(2, 1)).item() == 0.5
    assert box_coverage(points, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)).isnan()


@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(2, 5))
def test_angles_are_those_of_all_pairs(seed: int, count: int, size: int):
    rng = np.random.default_rng(seed)
    vectors, labels = rng.normal(size=(count, size)), rng.integers(5, 8, count)

    def angle(a: np.ndarray, b: np.ndarray) -> float:
        return math.degrees(math.acos(max(-1.0, min(1.0, a @ b / math.sqrt((a @ a) * (b @ b))))))

    groups = [vectors[labels == label] for label in sorted(set(labels))]
    within = [np.mean([angle(*pair) for pair in combinations(g, 2)]) for g in groups if len(g) > 1]
    between = [angle(*pair) for pair in combinations([g.mean(axis=0) for g in groups], 2)]
    expected = {"prompt/angle_within": within, "prompt/angle_between": between}
    found = SeenPrompts(vectors, labels).angles()
    assert found == pytest.approx({k: np.mean(v) for k, v in expected.items() if v}, abs=1e-4)


def test_a_collapsed_space_has_small_angles_and_a_dead_one_none():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 3)
    apart = np.repeat(np.eye(4), 3, axis=0) + rng.normal(size=(12, 4)) / 50
    collapsed = np.ones((12, 4)) + rng.normal(size=(12, 4)) / 50
    good, bad = SeenPrompts(apart, labels).angles(), SeenPrompts(collapsed, labels).angles()
    assert good["prompt/angle_between"] > 80
    assert bad["prompt/angle_between"] < 3
    assert good["prompt/angle_within"] < 5
    apart[4] = 0
    assert SeenPrompts(apart, labels).angles() == {}
    assert SeenPrompts(np.zeros((0, 4)), labels[:0]).angles() == {}


def step(monitor: Monitor, number: int, **figures: float) -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.0, float(number)]])
    values = {name: torch.tensor(value) for name, value in figures.items()}
    monitor.step(values, 3, embeddings, torch.tensor([number, number]))


def test_a_report_is_of_the_steps_since_the_last_one():
    monitor = Monitor(torch.device("cpu"))
    step(monitor, 1, loss=4.0, coverage=0.25)
    step(monitor, 2, loss=2.0)
    step(monitor, 3, loss=3.0, coverage=float("nan"))
    first = monitor.report()
    assert first["loss"] == 3
    assert "coverage" not in first  # one of its values is no number
    step(monitor, 4, loss=7.0, coverage=0.5)
    step(monitor, 5, loss=8.0)
    second = monitor.report()
    assert (second["loss"], second["coverage"]) == (7.5, 0.5)
    assert second["prompt/angle_within"] == pytest.approx(90)
    assert "prompt/angle_between" in second


def test_prompts_are_kept_for_a_few_steps_only():
    monitor = Monitor(torch.device("cpu"))
    assert len(monitor.recent().labels) == 0
    for number in range(1, RECENT + 6):
        step(monitor, number)
    labels = [number for number in range(6, RECENT + 6) for _ in range(2)]
    assert monitor.recent().labels.tolist() == labels
    monitor.report()
    assert monitor.recent().labels.tolist() == labels


def test_time_is_told_apart():
    monitor = Monitor(torch.device("cpu"))
    with monitor.waiting():
        time.sleep(0.15)
    time.sleep(0.05)
    with monitor.apart():
        time.sleep(0.3)
    step(monitor, 1)
    step(monitor, 2)
    figures = monitor.report()
    seconds = 2 * figures["speed/seconds_per_step"]
    assert seconds == pytest.approx(0.2, abs=0.09)  # not the 0.3 apart
    assert figures["speed/data_share"] * seconds == pytest.approx(0.15, abs=0.05)
    assert figures["speed/images_per_second"] == pytest.approx(6 / seconds)
    step(monitor, 3)
    assert monitor.report()["speed/data_share"] == 0
