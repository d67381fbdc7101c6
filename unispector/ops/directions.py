"""Vectors as directions: the angles between those of classes, and the plane that shows most of them."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def unit_vectors(vectors: Floats) -> Floats:
    """[N, D] at length 1, none of them zero."""
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def class_means(vectors: Floats, labels: Labels) -> Floats:
    """Mean of each label's vectors [N, D] as they are, long ones weighing more: [C, D], labels ascending."""
    return np.stack([vectors[labels == label].mean(axis=0) for label in np.unique(labels)])


def angle_within(vectors: Floats, labels: Labels) -> float | None:
    """Mean angle of two vectors of a class in degrees, each class counting alike.

    Vectors are [N, D], none zero, `labels` [N] the class of each. Returns 0 to 180; None if every class has
    one vector.
    """
    unit = unit_vectors(vectors)
    groups = [unit[labels == label] for label in np.unique(labels)]
    angles = [_mean_angle(group) for group in groups if len(group) > 1]
    return float(np.mean(angles)) if angles else None


def angle_between(means: Floats) -> float | None:
    """Mean angle of two classes' means in degrees.

    The means are [C, D] of `class_means`, none zero. Returns 0 to 180; None for a single class.
    """
    return _mean_angle(unit_vectors(means)) if len(means) > 1 else None


def principal_plane(unit: Floats) -> tuple[Floats, tuple[float, float]]:
    """Centred points [N, 2] on the first two principal axes, and the share of the variance along each.

    An axis points to where its largest entry is positive; of entries equally large the first decides. `unit`
    are [N, D] unit vectors, N > 0.
    """
    centred = unit - unit.mean(axis=0)
    _, strengths, axes = np.linalg.svd(centred, full_matrices=False)
    largest = np.abs(axes).max(axis=1, keepdims=True)
    decides = np.argmax(np.abs(axes) > (1 - 1e-6) * largest, axis=1)
    axes *= np.sign(axes[np.arange(len(axes)), decides])[:, None]
    variances = strengths**2
    total = float(variances.sum())
    points = np.zeros((len(unit), 2))
    shares = np.zeros(2)
    if total > len(unit) * 1e-12:  # else all are one point, and the axes are noise
        points[:, : len(axes[:2])] = centred @ axes[:2].T
        shares[: len(axes[:2])] = variances[:2] / total
    return points, (float(shares[0]), float(shares[1]))


def _mean_angle(unit: Floats) -> float:
    """Mean angle in degrees over all pairs of [N, D] unit vectors, N > 1."""
    angles = np.degrees(np.arccos(np.clip(unit @ unit.T, -1, 1)))
    np.fill_diagonal(angles, 0)
    return float(angles.sum() / (len(unit) * (len(unit) - 1)))
