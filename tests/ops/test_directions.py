"""Angles of fans whose geometry is known; evaluation's and training's tests compare with all pairs."""

import math

import numpy as np
import pytest

from unispector.ops.directions import angle_between, angle_within, class_means, principal_plane, unit_vectors


def fan(*degrees: float) -> np.ndarray:
    return np.array([[math.cos(math.radians(d)), math.sin(math.radians(d)), 0.0] for d in degrees])


def test_a_vectors_length_plays_no_part_but_in_its_class_mean():
    vectors = fan(0, 10, 30, 100, 140) * np.array([[1], [2], [0.5], [3], [1]])
    labels = np.array([7, 7, 7, 2, 2])
    assert angle_within(vectors, labels) == pytest.approx(((10 + 20 + 30) / 3 + 40) / 2)
    means = class_means(fan(0, 90, 180) * np.array([[3], [1], [1]]), np.array([5, 5, 6]))
    assert means == pytest.approx(np.array([[1.5, 0.5, 0], [-1, 0, 0]]))
    assert angle_between(means) == pytest.approx(180 - math.degrees(math.atan2(1, 3)))


def test_single_vectors_have_no_angle():
    assert angle_within(np.eye(3), np.array([0, 1, 2])) is None
    assert angle_between(np.ones((1, 3))) is None


def test_the_plane_of_a_flat_fan_loses_nothing():
    unit = unit_vectors(fan(0, 40, 100, 170) * 5)
    assert np.linalg.norm(unit, axis=1) == pytest.approx(1)
    points, shares = principal_plane(unit)
    assert sum(shares) == pytest.approx(1)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    assert distances == pytest.approx(np.linalg.norm(unit[:, None] - unit, axis=2))
