"""What was found in one image, and how it is written for other tools."""

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unispector.errors import DataError
from unispector.ops.drawing import Region, class_colour, draw_regions
from unispector.ops.images import ImageInput, as_pixels
from unispector.ops.rle import decode_rle
from unispector.ops.tool_rle import encode_brush, encode_mask_runs

if TYPE_CHECKING:
    import supervision

Json = dict[str, Any]
Points = npt.NDArray[np.float64]

Shape = Literal["mask", "polygon", "box"]
"""What a detection is written as."""
LABEL_STUDIO_TAGS = {"mask": "BrushLabels", "polygon": "PolygonLabels", "box": "RectangleLabels"}
FINER = 2  # times that a mask is enlarged so that its outline runs between pixel centres


@dataclass(frozen=True)
class Detections:
    """Detections in one image, in its original pixels, best first."""

    boxes_xyxy: Tensor  # [n, 4] float32 pixels, clipped to the image
    scores: Tensor  # [n] float32 in [0, 1], class score times mask quality
    labels: Tensor  # [n] int64 index into `class_names`
    masks_rle: tuple[dict[str, object], ...]  # n COCO RLEs (`{"size": [h, w], "counts": str}`)
    class_names: tuple[str, ...]  # names of the prompted classes
    image_hw: tuple[int, int]  # height and width of the image in pixels

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float | Sequence[float]) -> "Detections":
        """Only the detections whose score is at least `score`, or at least that of their class.

        Args:
            score: one for all, or C in the order of `class_names`.

        Raises:
            DataError: not as many scores as classes.
        """
        least: float | Tensor
        if isinstance(score, int | float) or np.ndim(score) == 0:
            least = float(score)  # type: ignore[arg-type]
        elif len(score) != len(self.class_names):
            raise DataError(f"{len(score)} scores for {len(self.class_names)} classes; give one for each")
        else:
            least = torch.tensor([float(each) for each in score], device=self.scores.device)[self.labels]
        keep = (self.scores >= least).nonzero().flatten()
        return Detections(
            boxes_xyxy=self.boxes_xyxy[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            masks_rle=tuple(self.masks_rle[i] for i in keep.tolist()),
            class_names=self.class_names,
            image_hw=self.image_hw,
        )

    def ranked(self, scores: Tensor) -> "Detections":
        """The same detections with other scores [n], best first; of equal ones the earlier first."""
        order = scores.argsort(descending=True, stable=True)
        return Detections(
            boxes_xyxy=self.boxes_xyxy[order],
            scores=scores[order],
            labels=self.labels[order],
            masks_rle=tuple(self.masks_rle[i] for i in order.tolist()),
            class_names=self.class_names,
            image_hw=self.image_hw,
        )

    def to_coco(self, image_id: int = 1, file_name: str = "", first_id: int = 1) -> Json:
        """A COCO file of this image: `images`, `categories`, and `annotations` that carry a `score`.

        Args:
            image_id: id of the image, from 1.
            file_name: its name in the file.
            first_id: id of the first annotation; several images in one file count on.
        """
        height, width = self.image_hw
        image = {"id": image_id, "file_name": file_name, "width": width, "height": height}
        annotations: list[Json] = []
        for row in range(len(self)):
            left, top, right, bottom = (round(value, 2) for value in self.boxes_xyxy[row].tolist())
            box_width, box_height = round(right - left, 2), round(bottom - top, 2)
            annotations.append(
                {
                    "id": first_id + row,
                    "image_id": image_id,
                    "category_id": int(self.labels[row]) + 1,
                    "bbox": [left, top, box_width, box_height],
                    "area": round(box_width * box_height, 2),
                    "segmentation": self.masks_rle[row],
                    "iscrowd": 0,
                    "score": round(float(self.scores[row]), 6),
                }
            )
        categories = [{"id": number, "name": name} for number, name in enumerate(self.class_names, start=1)]
        return {"images": [image], "categories": categories, "annotations": annotations}

    def to_labelme(self, file_name: str) -> Json:
        """LabelMe's file of this image: a mask a detection, with its `score`; a box where a mask is empty.

        Args:
            file_name: of the image, relative to the folder that the file is written to.
        """
        height, width = self.image_hw
        shapes = [
            {
                "label": self.class_names[int(self.labels[row])],
                **_labelme_region(decode_rle(rle), self.boxes_xyxy[row].tolist()),
                "group_id": None,
                "description": f"score {float(self.scores[row]):.3f}",
                "flags": {},
                "score": round(float(self.scores[row]), 6),
            }
            for row, rle in enumerate(self.masks_rle)
        ]
        return {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": file_name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }

    def to_yolo(self, segments: bool = True) -> str:
        """Lines of YOLO's label file: the class's number, and shares of the image's width and height.

        Args:
            segments: outlines of the masks, `class x y x y ...`, each a single polygon that goes around all
                parts and holes (even-odd); False = boxes, `class x-centre y-centre width height`.
        """
        height, width = self.image_hw
        lines = []
        for row, label in enumerate(self.labels.tolist()):
            left, top, right, bottom = self.boxes_xyxy[row].tolist()
            values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
            if segments:
                values = (
                    _outline(decode_rle(self.masks_rle[row]), (left, top, right, bottom)).ravel().tolist()
                )
            shares = (value / (height if i % 2 else width) for i, value in enumerate(values))
            lines.append(" ".join([str(label), *(f"{share:.9g}" for share in shares)]) + "\n")
        return "".join(lines)

    def to_label_studio(
        self,
        image: str,
        shape: Shape = "mask",
        *,
        data_key: str = "image",
        from_name: str = "label",
        to_name: str = "image",
        model_version: str = "unispector",
    ) -> Json:
        """A Label Studio task whose prediction is this image's detections, each with its score.

        An empty mask is written as the mask or the outline of its box.

        Args:
            image: address under which Label Studio has the image, such as `/data/local-files/?d=a.png`.
            shape: `mask` for <BrushLabels>, `polygon` for <PolygonLabels>, `box` for <RectangleLabels>.
            data_key: what the labelling configuration reads the image from, `$image`.
            from_name: name of that tag in the configuration.
            to_name: name of <Image> there.
        """
        height, width = self.image_hw
        kind = LABEL_STUDIO_TAGS[shape].lower()
        result = [
            {
                "id": f"u{row + 1}",
                "type": kind,
                "from_name": from_name,
                "to_name": to_name,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": round(float(self.scores[row]), 6),
                "value": {**self._label_studio_region(row, shape), kind: [self.class_names[label]]},
            }
            for row, label in enumerate(self.labels.tolist())
        ]
        best = max((round(float(score), 6) for score in self.scores), default=0.0)
        prediction = {"model_version": model_version, "score": best, "result": result}
        return {"data": {data_key: image}, "predictions": [prediction]}

    def _label_studio_region(self, row: int, shape: Shape) -> Json:
        """A region in per cent of the image's sides, or a brush."""
        height, width = self.image_hw
        if shape == "mask":
            return {"format": "rle", "rle": encode_brush(self._mask_or_box(row))}
        box = self.boxes_xyxy[row].tolist()
        if shape == "polygon":
            outline = _outline(decode_rle(self.masks_rle[row]), box) * 100 / (width, height)
            return {"points": outline.tolist(), "closed": True}
        left, top, right, bottom = box
        place = {"x": left / width, "y": top / height}
        size = {"width": (right - left) / width, "height": (bottom - top) / height}
        return {**{key: 100 * share for key, share in (place | size).items()}, "rotation": 0}

    def _mask_or_box(self, row: int) -> npt.NDArray[np.bool_]:
        """A detection's mask; where that is empty the pixels that its box touches."""
        mask = decode_rle(self.masks_rle[row])
        if not mask.any():
            left, top, right, bottom = self.boxes_xyxy[row].tolist()
            mask[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)] = True
        return mask

    def to_cvat(self, name: str, shape: Shape = "mask", number: int = 0) -> str:
        """The <image> of this image in an XML file of "CVAT for images 1.1"; `cvat_file` joins several.

        An empty mask is written as the mask or the outline of its box. The format has no scores.

        Args:
            name: of the image in CVAT's task.
            number: of the image in the file, from 0.
        """
        height, width = self.image_hw
        lines = [f'  <image id="{number}" name={quoteattr(name)} width="{width}" height="{height}">']
        for row, label in enumerate(self.labels.tolist()):
            common = f'label={quoteattr(self.class_names[label])} source="auto" occluded="0" z_order="0"'
            tag, place = self._cvat_region(row, shape)
            lines.append(f"    <{tag} {common} {place}></{tag}>")
        return "\n".join([*lines, "  </image>\n"])

    def _cvat_region(self, row: int, shape: Shape) -> tuple[str, str]:
        """The tag of a region, and the attributes that say where it is."""
        left, top, right, bottom = self.boxes_xyxy[row].tolist()
        if shape == "box":
            return "box", f'xtl="{left:.2f}" ytl="{top:.2f}" xbr="{right:.2f}" ybr="{bottom:.2f}"'
        if shape == "polygon":
            outline = _outline(decode_rle(self.masks_rle[row]), (left, top, right, bottom)).tolist()
            return "polygon", f'points="{";".join(f"{x:.2f},{y:.2f}" for x, y in outline)}"'
        mask = self._mask_or_box(row)
        rows, columns = _window(mask) or (slice(0, 1), slice(0, 1))
        runs = ", ".join(map(str, encode_mask_runs(mask[rows, columns])))
        size = f'width="{columns.stop - columns.start}" height="{rows.stop - rows.start}"'
        return "mask", f'rle="{runs}" left="{columns.start}" top="{rows.start}" {size}'

    def to_supervision(self) -> "supervision.Detections":
        """The same as `supervision.Detections`, with all masks unpacked: h x w bytes each.

        Raises:
            ModuleNotFoundError: the package supervision is not installed; the message names the extra.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            how = "supervision is not installed; it comes with pip install 'unispector[supervision]'"
            raise ModuleNotFoundError(how, name="supervision") from error
        labels = self.labels.cpu().numpy()
        masks = np.zeros((len(self), *self.image_hw), np.bool_)
        for row, rle in enumerate(self.masks_rle):
            masks[row] = decode_rle(rle)
        return supervision.Detections(
            xyxy=self.boxes_xyxy.cpu().numpy().reshape(-1, 4),
            mask=masks,
            confidence=self.scores.cpu().numpy(),
            class_id=labels,
            data={"class_name": np.array(self.class_names, dtype=np.str_)[labels]},
        )

    def plot(self, image: ImageInput, bit_depth: int = 16) -> npt.NDArray[np.uint8]:
        """The image with boxes, translucent masks, class names and scores of all detections.

        Args:
            image: the one that the detections were made on; see `ImageInput`.
            bit_depth: as of `as_pixels`.

        Returns:
            uint8 RGB; a small image is enlarged so that its shorter side has 512 pixels, a large one shrunk
            to 1280 on its longer side.

        Raises:
            DataError: the image is of another size, or cannot be used.
        """
        pixels = as_pixels(image, bit_depth)
        if tuple(self.image_hw) != pixels.shape[:2]:
            raise DataError(
                f"detections for an image of {self.image_hw} pixels (h, w) cannot be drawn on one of "
                f"{pixels.shape[:2]}; pass the image they were made on"
            )
        return draw_regions(pixels, self.regions())

    def regions(self) -> list[Region]:
        """Regions to draw, worst first, so that the best are drawn on top.

        Captions are class name and score; colours follow the index in `class_names`.
        """
        boxes, scores, labels = self.boxes_xyxy.tolist(), self.scores.tolist(), self.labels.tolist()
        return [
            Region(
                box_xyxy=tuple(boxes[i]),
                mask=self.masks_rle[i],
                caption=f"{self.class_names[labels[i]]} {scores[i]:.2f}",
                colour=class_colour(labels[i]),
            )
            for i in reversed(range(len(self)))
        ]


def cvat_file(images: Iterable[str]) -> str:
    """An XML file of "CVAT for images 1.1" with the images of `Detections.to_cvat`."""
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
    return f"{head}{''.join(images)}</annotations>\n"


def label_studio_config(class_names: Sequence[str], shape: Shape = "mask", name: str = "label") -> str:
    """A labelling configuration for a project that the tasks of `Detections.to_label_studio` suit."""
    tag = LABEL_STUDIO_TAGS[shape]
    labels = "".join(f"    <Label value={quoteattr(each)}/>\n" for each in class_names)
    image = '  <Image name="image" value="$image" zoom="true"/>\n'
    return f'<View>\n{image}  <{tag} name={quoteattr(name)} toName="image">\n{labels}  </{tag}>\n</View>\n'


def _labelme_region(mask: npt.NDArray[np.bool_], box_xyxy: Sequence[float]) -> Json:
    """LabelMe's points, type and mask, whose points are its first and last pixels."""
    window = _window(mask)
    if window is None:
        left, top, right, bottom = box_xyxy
        return {"points": [[left, top], [right, bottom]], "shape_type": "rectangle", "mask": None}
    rows, columns = window
    _, data = cv2.imencode(".png", mask[rows, columns].astype(np.uint8) * 255)
    points = [[float(columns.start), float(rows.start)], [columns.stop - 1.0, rows.stop - 1.0]]
    code = base64.b64encode(data.tobytes()).decode("ascii")
    return {"points": points, "shape_type": "mask", "mask": code}


def _window(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Rows and columns that hold all of a mask; None of an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _outline(mask: npt.NDArray[np.bool_], box_xyxy: Sequence[float]) -> Points:
    """One polygon [n, 2] in pixels around all that is marked; of an empty mask the box.

    It runs a quarter of a pixel inside the edges of pixels, so whoever fills it gets the mask back. Parts and
    holes are joined by lines that are gone along twice, which an even-odd rule ignores.
    """
    window = _window(mask)
    if window is None:
        left, top, right, bottom = box_xyxy
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    crop = mask[window].astype(np.uint8)
    finer = cv2.resize(crop, None, fx=FINER, fy=FINER, interpolation=cv2.INTER_NEAREST)
    rings, _ = cv2.findContours(finer, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    points: Points = _joined(ring[:, 0].astype(np.float64) for ring in rings)
    outline: Points = (points + 0.5) / FINER + np.array([window[1].start, window[0].start])
    return outline


def _joined(rings: Iterable[Points]) -> Points:
    """Closed rings as one polygon, which comes back to its start after each."""
    first, *others = rings
    closed = [first, *(np.concatenate([first[:1], ring, ring[:1]]) for ring in others)]
    return np.concatenate(closed)
