"""YOLOE with visual prompts, YOLO11-seg and YOLO-World, over the package ultralytics (AGPL-3.0).

YOLOE (arXiv 2503.07465) is prompted by boxes: its SAVPE turns the boxes of a class in an image into one
embedding of unit length; a class's prompt is their mean over its images, normalised again, as its
validation does.

Decided here, because the paper compared with leaves it open:

- Images are resized to a square of 736 pixels (UniSpector's 720 rounded to the stride 32), aspect not kept,
  so that all systems of the comparison see the same pixels.
- An anchor may show several classes (as in ultralytics' validation, not in its `predict`). Non-maximum
  suppression is by class at IoU 0.7, the default; 300 detections of at least 0.001 an image, as for AP.
- A box too small to cover the centre of a prompt cell (8 pixels) marks the cell that it lies in; without a
  cell, SAVPE would attend to the whole image.
- A network without masks gives filled boxes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from unispector.config import Roi
from unispector.data.coco import Annotations, ImageRecord
from unispector.data.transforms import resize_image
from unispector.detections import Detections
from unispector.ops.files import read_image
from unispector.ops.rle import encode_crop, encode_rle
from unispector.systems.detector import check_prompted
from unispector.systems.yolo.library import count_parameters, load_network, rebuilt
from unispector.systems.yolo.training import prompt_cells, train

LEAST_SCORE = 0.001
MOST = 300  # detections in one image
OVERLAP = 0.7  # IoU from which on the lower of two boxes of one class goes


class Yolo:
    """A network of ultralytics and what it finds; the base of the systems."""

    kind: ClassVar[str]  # its class in ultralytics.nn.tasks

    def __init__(self, weights: str, side: int = 736) -> None:
        """Load a network, on the GPU where there is one.

        Args:
            weights: a `.pt` of ultralytics, or a `.yaml` architecture with random weights.
            side: of the square input in pixels, a multiple of 32.

        Raises:
            CheckpointError: the weights cannot be read or are another kind of network's.
            ModuleNotFoundError: ultralytics is not installed.
        """
        self._network, self._side = load_network(weights, self.kind), side
        self.parameters = count_parameters(self._network)

    def _input(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """[1, 3, S, S] in [0, 1]."""
        square = torch.from_numpy(resize_image(pixels, self._side)).permute(2, 0, 1)[None]
        return square.to(next(self._network.parameters()).device).float() / 255

    @torch.inference_mode()
    def _find(self, path: Path, columns: Mapping[str, int], **prompts: Tensor) -> Detections:
        """What the network finds of these classes: name -> column of its scores."""
        from ultralytics.utils.nms import non_max_suppression

        pixels = read_image(path)
        outputs = self._network(self._input(pixels), **prompts)[0]
        scored, prototypes = outputs if isinstance(outputs, tuple) else (outputs, None)
        (rows,) = non_max_suppression(
            scored,
            LEAST_SCORE,
            OVERLAP,
            classes=list(columns.values()),
            multi_label=True,
            max_det=MOST,
            nc=self._network.model[-1].nc,
            max_time_img=3600,  # a slow machine must not find less
        )
        height, width = pixels.shape[:2]
        scale = rows.new_tensor([width, height, width, height]) / self._side
        boxes = (rows[:, :4] * scale).clamp(min=0).minimum(scale * self._side).cpu()
        label_of = {column: label for label, column in enumerate(columns.values())}
        logits = None
        if prototypes is not None:
            logits = torch.einsum("nc,chw->nhw", rows[:, 6:], prototypes[0]).cpu().numpy()
        return Detections(
            boxes_xyxy=boxes,
            scores=rows[:, 4].clamp(0, 1).cpu(),
            labels=torch.tensor([label_of[int(column)] for column in rows[:, 5]], dtype=torch.int64),
            masks_rle=tuple(_masks(boxes.numpy(), logits, height, width)),
            class_names=tuple(columns),
            image_hw=(height, width),
        )


class YoloE(Yolo):
    """YOLOE, prompted by boxes (SAVPE), as it was released."""

    kind = "YOLOESegModel"

    def __init__(self, weights: str, roi: Roi = "box", side: int = 736) -> None:  # noqa: ARG002
        """Load it; see `Yolo`. Boxes are the only `roi`: SAVPE was trained on no others."""
        super().__init__(weights, side)

    @torch.inference_mode()
    def encode_prompts(self, prompts: Annotations, images: Path) -> tuple[tuple[str, ...], Tensor]:
        """Names and unit embeddings [C, 512] of the classes.

        Raises:
            DataError: a class has no prompt, or an image is unreadable.
        """
        sums = torch.zeros(len(prompts.categories), self._network.model[-1].embed)
        for image in prompts.images:
            pixels = read_image(images / image.file_name)
            labels, marked = self._marked(prompts, image)
            if len(labels):
                marks = marked[None].to(next(self._network.parameters()).device)
                sums[labels] += self._network.get_visual_pe(self._input(pixels), marks)[0].cpu()
        check_prompted(prompts.class_names, sums.any(1).tolist())
        return prompts.class_names, functional.normalize(sums)

    def detect(self, images: Sequence[Path], prompts: tuple[tuple[str, ...], Tensor]) -> Iterator[Detections]:
        """All prompted classes, image by image."""
        names, embeddings = prompts
        self._network.set_classes(list(names), embeddings[None])
        visual = embeddings[None].to(next(self._network.parameters()).device)
        columns = {name: column for column, name in enumerate(names)}
        for path in images:
            yield self._find(path, columns, vpe=visual)

    def _marked(self, prompts: Annotations, image: ImageRecord) -> tuple[list[int], Tensor]:
        """Classes that an image shows, and the cells [k, S / 8, S / 8] that their boxes cover."""
        boxes: dict[int, list[Sequence[float]]] = {}
        for instance in prompts.instances_of(image.id):
            x, y, width, height = instance.bbox
            corners = (
                x / image.width,
                y / image.height,
                (x + width) / image.width,
                (y + height) / image.height,
            )
            boxes.setdefault(prompts.class_index[instance.category_id], []).append(corners)
        grid = self._side // 8
        masks = [prompt_cells(torch.tensor(each), grid).amax(0) for each in boxes.values()]
        return list(boxes), torch.stack(masks) if masks else torch.zeros(0, grid, grid)


class TunedYoloE(YoloE):
    """YOLOE, all of it trained on the seen classes with prompts from the batch."""

    def fit(self, annotations: Annotations, images: Path, out: Path) -> None:
        """Train it and keep it in out/weights.pt, which is a checkpoint that system yoloe reads."""
        self._network.set_classes(
            list(annotations.class_names),
            torch.zeros(1, len(annotations.categories), self._network.model[-1].embed),
        )
        train(self._network, annotations, images, out, self._side)


class ClosedSetYolo(Yolo):
    """YOLO11-seg: finds the classes it was trained on; of any other class it returns nothing."""

    kind = "SegmentationModel"

    def __init__(self, weights: str, side: int = 736) -> None:
        """Load it; see `Yolo`."""
        super().__init__(weights, side)
        self._known: tuple[tuple[str, Path], ...] = ()  # of each class: its name, an image that shows it

    def fit(self, annotations: Annotations, images: Path, out: Path) -> None:
        """Give it the seen classes, train it and keep it in out/weights.pt."""
        shown = {instance.category_id: instance.image_id for instance in annotations.instances}
        files = {image.id: images / image.file_name for image in annotations.images}
        taught = annotations.keep_categories(list(shown))
        names = dict(zip(sorted(taught.class_index), taught.class_names, strict=True))
        self._known = tuple((name, files[shown[id_]]) for id_, name in names.items())
        self._network = rebuilt(self._network, len(self._known))
        self._network.names = dict(enumerate(taught.class_names))
        self.parameters = count_parameters(self._network)
        train(self._network, taught, images, out, self._side)

    def encode_prompts(self, prompts: Annotations, images: Path) -> dict[str, int]:
        """Of the classes those that were trained: name -> column of the scores.

        The training file calls a class SET/CLASS and a set's own files call it CLASS; the folder of the
        images says which set it is.
        """
        return {
            name: column
            for name in prompts.class_names
            for column, (known, file) in enumerate(self._known)
            if known.partition("/")[2] == name and file.is_relative_to(images)
        }

    def detect(self, images: Sequence[Path], prompts: dict[str, int]) -> Iterator[Detections]:
        """The trained ones among the classes, image by image."""
        for path in images:
            yield self._find(path, prompts)


def _masks(
    boxes: npt.NDArray[np.float32], logits: npt.NDArray[np.float32] | None, height: int, width: int
) -> Iterator[dict[str, object]]:
    """Codes of n masks: in the box [n, 4], where logits [n, h, w] of the whole image are above 0."""
    for number, box in enumerate(boxes):
        left, top = np.floor(box[:2]).astype(int).clip(0, (width - 1, height - 1))
        right, bottom = np.maximum(np.ceil(box[2:]).astype(int), (left + 1, top + 1))
        crop = np.ones((bottom - top, right - left), dtype=np.bool_)
        if logits is not None:
            rows = _between(np.arange(top, bottom), logits.shape[1] / height, logits.shape[1])
            columns = _between(np.arange(left, right), logits.shape[2] / width, logits.shape[2])
            crop = rows @ logits[number] @ columns.T > 0
        if crop.any():
            yield encode_crop(crop, int(left), int(top), height, width)
        else:
            yield encode_rle(np.zeros((1, height, width), dtype=np.bool_))[0]


def _between(pixels: npt.NDArray[np.int64], scale: float, cells: int) -> npt.NDArray[np.float32]:
    """[pixels, cells] weights that interpolate linearly between the centres of cells."""
    place = ((pixels + 0.5) * scale - 0.5).clip(0, cells - 1)
    weights = 1 - np.abs(place[:, None] - np.arange(cells, dtype=np.float32))
    return np.asarray(weights.clip(0), dtype=np.float32)
