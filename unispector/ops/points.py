"""Masks judged on sampled points instead of on every pixel (as PointRend does)."""

import torch
from torch import Tensor
from torch.nn import functional

OVERSAMPLING = 3
UNCERTAIN_SHARE = 0.75


def random_points(points: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Uniform random points.

    The generator may be on any device; the points shall lie on `device`. Returns [R, 2] float32 (x, y) in [0,
    1).
    """
    return torch.rand(points, 2, generator=generator, device=generator.device).to(device)


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps at points; outside of a map is 0.

    Maps are [n, h, w] float, points [n, R, 2], or [R, 2] shared by all maps: (x, y), 0 and 1 being the map's
    outer edges. Returns [n, R] values.
    """
    # Shared points are expanded only here: the grid is then never written out n times.
    grid = (2 * points - 1).to(maps.dtype).unsqueeze(-3).expand(len(maps), 1, -1, 2)
    values = functional.grid_sample(
        maps[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return values[:, 0, 0]


@torch.no_grad()
def uncertain_points(logits: Tensor, points: int, generator: torch.Generator) -> Tensor:
    """Points that lie mostly where a mask is undecided.

    Three times as many uniform points are drawn, the same for all masks. Each mask keeps those whose sampled
    logit is nearest to 0 for 75 % of its points; the rest is uniform. The uncertainty is taken from sampled
    logits, not sampled from a map of uncertainties: that would call the middle between a sure yes and a sure
    no sure. Logits are [n, h, w]; R `points` are drawn per mask. Returns [n, R, 2] (x, y) in [0, 1).
    """
    uncertain = int(UNCERTAIN_SHARE * points)
    candidates = random_points(OVERSAMPLING * points, generator, logits.device)
    uniform = random_points(points - uncertain, generator, logits.device)
    doubt = sample_points(logits, candidates).abs()
    nearest = doubt.topk(uncertain, dim=1, largest=False, sorted=False).indices
    return torch.cat([candidates[nearest], uniform.expand(len(logits), -1, -1)], dim=1)
