"""Radial frequency features of image regions (paper appendix 2, Algorithm 1)."""

from dataclasses import dataclass
from threading import Lock
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from cachetools import LRUCache, cached
from torch import Tensor

from unispector.ops.masks import integer_boxes

EmptyBins = Literal["interp", "zero"]

HELD_BYTES = 64_000_000
"""Of rings of crop sizes that are kept: they take as long to find as the rest of a spectrum."""


@dataclass(frozen=True)
class _Rings:
    """Bin of every coefficient of a real FFT and how many full-FFT coefficients each bin has."""

    bins: npt.NDArray[np.uint16]
    counts: npt.NDArray[np.float64]

    @property
    def size(self) -> int:
        return self.bins.nbytes + self.counts.nbytes


@cached(LRUCache(HELD_BYTES, getsizeof=lambda rings: rings.size), lock=Lock())
def _rings(h: int, w: int, bins: int) -> _Rings:
    y = np.fft.fftfreq(h, 1 / h)[:, None]
    x = np.arange(w // 2 + 1)[None]
    radius = np.sqrt(y**2 + x**2)
    index = np.minimum(radius / max(radius.max(), 1.0) * bins, bins - 1).astype(np.uint16).ravel()
    counts = np.bincount(index, weights=_multiplicity(h, w).ravel(), minlength=bins)
    return _Rings(index, counts.astype(np.float64))


def _multiplicity(h: int, w: int) -> npt.NDArray[np.float32]:
    """Count a real FFT's coefficients in the full one: columns 0 and w/2 once, others twice."""
    columns = np.full(w // 2 + 1, 2, dtype=np.float32)
    columns[0] = 1
    if w % 2 == 0:
        columns[-1] = 1
    return np.broadcast_to(columns, (h, w // 2 + 1))


def radial_spectrum(grey: Tensor | npt.NDArray[np.float32], bins: int, empty: EmptyBins = "interp") -> Tensor:
    """Mean FFT magnitude in rings of equal width about the zero frequency, L2-normalised.

    Paper appendix 2, Algorithm 1, lines 3 to 9. Ring j of J holds the coefficients whose distance to the zero
    frequency, as a share of the largest, lies in [j / J, (j + 1) / J), the last ring's edge included. A small
    crop leaves rings without any coefficient: `zero` keeps them 0 (literal), which tells the crop's size;
    `interp` fills them linearly from their neighbours, the mean grey (zero frequency) not being one: below
    the first other filled ring they take that ring's value. `grey` are [h, w] values in [0, 1], on the CPU.
    Returns [J] float32, not negative, L2 norm 1 (all 0 for an all-black crop).
    """
    pixels = torch.as_tensor(grey, dtype=torch.float32)
    h, w = pixels.shape
    rings = _rings(h, w, bins)
    magnitude = torch.fft.rfft2(pixels).abs().numpy() * _multiplicity(h, w)
    means = np.bincount(rings.bins, weights=magnitude.ravel(), minlength=bins) / np.maximum(rings.counts, 1)
    filled = np.flatnonzero(rings.counts[1:]) + 1
    if empty == "interp" and len(filled):
        means[1:] = np.interp(np.arange(1, bins), filled, means[filled])
    norm = max(float(np.linalg.norm(means)), 1e-12)
    return torch.from_numpy((means / norm).astype(np.float32))


def crop_spectra(
    image: Tensor, boxes_xyxy_px: Tensor, bins: int, empty: EmptyBins = "interp", min_side: int = 16
) -> Tensor:
    """Radial spectrum of the crop at every box (paper appendix 2, Algorithm 1).

    Grey is 0.299 R + 0.587 G + 0.114 B. A crop is the whole pixels its box touches, grown evenly to at least
    `min_side` (the image's side, where that is smaller) and moved into the image where it would leave it.

    The image is [3, S, S] uint8 RGB as the network sees it before normalisation, on the CPU, boxes are [K, 4]
    in its pixels; `bins` and `empty` as of `radial_spectrum`. Returns [K, J] float32.
    """
    if len(boxes_xyxy_px) == 0:
        return torch.zeros(0, bins)
    grey = torch.einsum("chw,c->hw", image.float(), torch.tensor([0.299, 0.587, 0.114]) / 255).numpy()
    crops = _crop_boxes(boxes_xyxy_px, image.shape[-1], min_side)
    return torch.stack([radial_spectrum(grey[y0:y1, x0:x1], bins, empty) for x0, y0, x1, y1 in crops])


def _crop_boxes(boxes_xyxy_px: Tensor, size: int, min_side: int) -> list[list[int]]:
    """Integer crops; growth is the same on both sides, so that a flipped image has flipped crops."""
    whole = integer_boxes(boxes_xyxy_px, size)
    low, high = whole[:, :2], whole[:, 2:]
    margin = (min_side - (high - low) + 1).clamp(min=0) // 2
    side = (high - low + 2 * margin).clamp(max=size)
    low = torch.minimum((low - margin).clamp(min=0), size - side)
    corners: list[list[int]] = torch.cat([low, low + side], dim=1).tolist()
    return corners
