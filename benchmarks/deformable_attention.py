"""Ours against `grid_sample` per level, the form most detectors fall back to.

    python benchmarks/deformable_attention.py --image-size 256 --rounds 7

Both run in turn in every round, so that a busy machine slows them alike; printed are medians, the
ratio's median and its range over the rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from unispector.modeling.deformable_attention import deformable_sample

Levels = tuple[tuple[int, int], ...]


def grid_sample_form(values: Tensor, level_hw: Levels, locations: Tensor, weights: Tensor) -> Tensor:
    """The same sum by sampling each level and weighing the samples; shapes as `deformable_sample`."""
    batch, _, heads, depth = values.shape
    queries, points = locations.shape[1], locations.shape[4]
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    sampled = []
    for level, (part, hw) in enumerate(
        zip(values.split([h * w for h, w in level_hw], dim=1), level_hw, strict=True)
    ):
        maps = part.permute(0, 2, 3, 1).reshape(batch * heads, depth, *hw)
        sampled.append(functional.grid_sample(maps, grids[:, :, level], align_corners=False))
    shares = weights.transpose(1, 2).reshape(batch * heads, 1, queries, len(level_hw) * points)
    total = (torch.stack(sampled, dim=-2).flatten(-2) * shares).sum(-1)
    return total.view(batch, heads * depth, queries).transpose(1, 2)


def timed(
    form: Callable[..., Tensor], inputs: tuple[Tensor, Levels, Tensor, Tensor], *, backward: bool
) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    with torch.set_grad_enabled(backward):
        out = form(*inputs)
    if backward:
        out.sum().backward()
    return time.perf_counter() - began


def main() -> None:
    """Compare both forms with every token as a query, as in an encoder layer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image-size", type=int, default=736, help="side of the padded frame (default 736)")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--points", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    level_hw = tuple((-(-options.image_size // s),) * 2 for s in (8, 16, 32, 64))
    tokens, levels = sum(h * w for h, w in level_hw), len(level_hw)
    values = torch.randn(1, tokens, options.heads, options.width // options.heads, requires_grad=True)
    locations = torch.rand(1, tokens, options.heads, levels, options.points, 2, requires_grad=True)
    weights = torch.rand(1, tokens, options.heads, levels, options.points, requires_grad=True)
    inputs = (values, level_hw, locations, weights)
    difference = (deformable_sample(*inputs) - grid_sample_form(*inputs)).abs().max().item()
    print(f"{tokens} tokens, {options.threads} threads, largest difference {difference:.1e}")
    for backward in (False, True):
        pairs = [
            (
                timed(deformable_sample, inputs, backward=backward),
                timed(grid_sample_form, inputs, backward=backward),
            )
            for _ in range(options.rounds + 1)
        ][1:]  # the first round warms up
        ratios = [ours / theirs for ours, theirs in pairs]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        what = "forward + backward" if backward else "forward"
        print(
            f"{what:18}  ours {ours:.3f} s  grid_sample {theirs:.3f} s  "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
