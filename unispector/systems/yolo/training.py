"""Fine-tuning of networks of ultralytics on the seen classes, by their own loss.

UniSpector (arXiv 2604.02905, appendix 3.4) trains what it compares with as it trains itself: all weights,
AdamW at 1e-4 with a weight decay of 0.05, flips and light changes, 20,000 steps of 48 images of InsA.
Decided here: 50 epochs of batches of 8, as a benchmark of hundreds of images needs no million of them; the
rate falls linearly to 0; the gradient is clipped at 10, ultralytics' value. The instances of a batch prompt
one another, as UniSpector's do. ultralytics' own trainer for visual prompts is not used: it learns the
classification alone, prompts an image with its own boxes, and downloads text embeddings.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unispector.config import AugmentConfig
from unispector.data.coco import Annotations
from unispector.data.dataset import InstanceDataset
from unispector.data.samples import Frame
from unispector.data.transforms import Augmentation
from unispector.errors import CheckpointError, TrainingError
from unispector.ops.boxes import cxcywh_to_xyxy
from unispector.ops.files import atomic_path
from unispector.project.progress import progress_bar
from unispector.structures import Sample

EPOCHS = 50
BATCH = 8
RATE, DECAY, CLIP = 1e-4, 0.05, 10.0
PROMPT_STRIDE, MASK_STRIDE = 8, 4  # pixels


def prompt_cells(boxes: Tensor, grid: int) -> Tensor:
    """Cells [n, grid, grid] of 0 and 1 that boxes [n, 4] xyxy in [0, 1] mark; at least one each."""
    x0, y0, x1, y1 = (boxes * grid).unbind(1)
    return (_covered(y0, y1, grid)[:, :, None] & _covered(x0, x1, grid)[:, None]).float()


def _covered(low: Tensor, high: Tensor, grid: int) -> Tensor:
    """[n, grid] cells whose first edge lies in the range, as ultralytics has it; else the middle's."""
    cells = torch.arange(grid, device=low.device)
    covered = (cells >= low[:, None]) & (cells < high[:, None])
    middle = ((low + high) / 2).floor().clamp(0, grid - 1)
    return torch.where(covered.any(1, keepdim=True), covered, cells == middle[:, None])


def train(network: Any, annotations: Annotations, images: Path, out: Path, side: int) -> None:
    """Train a network whose classes are those of the annotations, and write out/weights.pt.

    Raises:
        CheckpointError: the network has two heads (YOLO26), whose training is ultralytics' own affair.
        DataError: an image or a mask is unusable.
        TrainingError: the loss is not finite.
    """
    if getattr(network.model[-1], "one2one_cv2", None) is not None:
        raise CheckpointError("a network with two heads cannot be trained here; take YOLO11 or YOLOE-11")
    from ultralytics.cfg import get_cfg

    # Not the overlapping masks of a file, but one mask an instance.
    network.args = get_cfg(overrides={"overlap_mask": False})
    learning = [
        weight.requires_grad_(".dfl." not in name)  # whose weights are the numbers 0 to 15
        for name, weight in network.named_parameters()
    ]
    dataset = InstanceDataset(
        annotations,
        images,
        frame=Frame(side, bins=2, spectrum_empty="zero", spectrum_min_side=2),
        augment=Augmentation(**dict(AugmentConfig())),
        box_share=1.0,
        seed=0,
    )
    device = next(network.parameters()).device
    optimiser = torch.optim.AdamW([each for each in learning if each.requires_grad], RATE, weight_decay=DECAY)
    steps = EPOCHS * -(-len(dataset) // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)
    with _learning(network) as prompted, progress_bar("training", "step") as show:
        for step, samples in enumerate(_batches(dataset), start=1):
            batch, classes = _batch(samples, len(annotations.categories), prompted)
            network.criterion.nc = network.criterion.assigner.num_classes = classes
            loss = network({key: value.to(device) for key, value in batch.items()})[0].sum()
            if not loss.isfinite():
                raise TrainingError(f"step {step}: the loss is not finite; check the images and annotations")
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimiser.step()
            schedule.step()
            show(step, steps)
    with atomic_path(out / "weights.pt") as path:
        torch.save({"model": network}, path)


@contextmanager
def _learning(network: Any) -> Iterator[bool]:
    """Training mode, with prompts from the whole batch; yields whether the network takes prompts."""
    head = network.model[-1]
    prompted = hasattr(head, "savpe")
    network.criterion = network.init_criterion()
    if prompted:
        of_images = head.get_vpe
        head.get_vpe = lambda features, marks: _of_batch(of_images(features, marks), marks)
    network.train()
    try:
        yield prompted
    finally:
        if prompted:
            del head.get_vpe
        del network.criterion
        network.eval()


def _of_batch(embeddings: Tensor, marks: Tensor) -> Tensor:
    """One prompt a class for all images [B, K, D]: the mean over the images that show it, of unit length.

    `embeddings` [B, K, D] are of each image's own marks [B, K, h, w]; each class is marked in some image.
    """
    shown = marks.flatten(2).any(2)[..., None]
    return functional.normalize((embeddings * shown).sum(0), dim=-1).expand_as(embeddings)


def _batches(dataset: InstanceDataset) -> Iterator[list[Sample]]:
    """All images in another order each epoch."""
    for epoch in range(EPOCHS):
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(epoch))
        for indices in order.split(BATCH):
            yield [dataset.sample(int(index), epoch) for index in indices]


def _batch(samples: Sequence[Sample], classes: int, prompted: bool) -> tuple[dict[str, Tensor], int]:
    """What ultralytics' losses read, and the number of classes in it: those of the batch where it prompts."""
    targets = [sample.targets for sample in samples]
    labels = torch.cat([each.labels for each in targets])
    index = torch.arange(len(samples)).repeat_interleave(torch.tensor([len(each.labels) for each in targets]))
    boxes = torch.cat([each.boxes for each in targets])
    masks = torch.cat([each.masks for each in targets]).float()[:, None]
    batch = {"img": torch.stack([sample.image for sample in samples]).float() / 255}
    if prompted:
        present, labels = labels.unique(return_inverse=True)
        classes, grid = len(present), batch["img"].shape[-1] // PROMPT_STRIDE
        marks = torch.zeros(len(samples), classes, grid, grid)
        for image, label, cells in zip(index, labels, prompt_cells(cxcywh_to_xyxy(boxes), grid), strict=True):
            marks[image, label] = marks[image, label].maximum(cells)
        batch["visuals"] = marks
    return batch | {
        "batch_idx": index.float(),
        "cls": labels.float()[:, None],
        "bboxes": boxes,
        "masks": functional.avg_pool2d(masks, MASK_STRIDE)[:, 0],  # as shares, so that no thin one goes
    }, classes
