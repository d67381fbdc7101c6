"""Denoising queries (DN-DETR, MaskDINO): jittered ground truth the decoder must restore."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unispector.ops.boxes import inverse_sigmoid
from unispector.ops.collectives import counts_of_ranks, uniform_rows
from unispector.structures import Targets


@dataclass(frozen=True)
class DenoisingQueries:
    """Groups of one jittered copy of every instance."""

    reference: Tensor  # [B, G * n_max, 4] box logits; slot g * n_max + t holds instance t in group g
    real: Tensor  # [B, G * n_max] bool, False where an image has fewer than n_max instances
    groups: int  # G


def denoising_queries(targets: Sequence[Targets], *, limit: int, box_noise: float) -> DenoisingQueries | None:
    """Jitter the ground truth.

    Centres move by up to `box_noise` half sizes, sizes change by up to the share `box_noise`.

    Args:
        targets: of B images.
        limit: queries an image at most (one group at least).
        box_noise: 0 = exact boxes.

    Returns:
        The queries, as many on every rank, or None when `limit` is 0 or no image of any rank has an instance.
    """
    if limit == 0 or not targets:
        return None
    device = targets[0].boxes.device
    most = max(counts_of_ranks(max(len(t) for t in targets), device))
    if most == 0:
        return None
    groups = max(limit // most, 1)
    boxes = torch.zeros(len(targets), most, 4, device=device)
    real = torch.zeros(len(targets), most, dtype=torch.bool, device=device)
    for i, target in enumerate(targets):
        boxes[i, : len(target)] = target.boxes
        real[i, : len(target)] = True
    boxes, real = boxes.repeat(1, groups, 1), real.repeat(1, groups)
    size = boxes[..., 2:]
    shift = (2 * uniform_rows(boxes) - 1) * box_noise * torch.cat((size / 2, size), dim=-1)
    reference = inverse_sigmoid((boxes + shift).clamp(0, 1))
    return DenoisingQueries(reference=reference.where(real[..., None], 0.0), real=real, groups=groups)


def attention_mask(
    denoising: DenoisingQueries | None,
    queries: int,
    prompts: int,
    *,
    prompt_visible: bool,
    batch: int,
    device: torch.device,
) -> Tensor:
    """Return the attention mask of `[denoising | object queries | prompts]`: True where attention is blocked.

    A denoising group sees itself and the object queries, never another group; object queries see
    each other; a prompt sees only itself, so that classes do not change one another. With
    `prompt_visible`, all queries see the prompts.

    Args:
        denoising: None without denoising queries.
        queries: object queries Q.
        prompts: prompt tokens C.
        prompt_visible: let queries attend to prompts.
        batch: B.
        device: where the mask lives.

    Returns:
        [B, L, L] bool, rows attend to columns, True = blocked; the diagonal is never blocked.
    """
    noisy = 0 if denoising is None else denoising.real.shape[1]
    length = noisy + queries + prompts
    group = torch.arange(noisy, device=device) // max(noisy // denoising.groups, 1) if denoising else None
    blocked = torch.zeros(length, length, dtype=torch.bool, device=device)
    if group is not None:
        blocked[:noisy, :noisy] = group[:, None] != group[None]
        blocked[noisy:, :noisy] = True
    blocked[noisy + queries :, :] = True
    if not prompt_visible:
        blocked[: noisy + queries, noisy + queries :] = True
    masks = blocked.expand(batch, length, length).clone()
    if denoising is not None:
        masks[:, :, :noisy] |= ~denoising.real[:, None]
    masks.diagonal(dim1=1, dim2=2).fill_(False)
    return masks
