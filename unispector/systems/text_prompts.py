"""GroundingDINO (arXiv 2303.05499) of transformers: classes are looked for by their names, in plain words.

The prompts' images are not looked at. As in the authors' evaluation on COCO (`demo/test_ap_on_coco.py` of
IDEA-Research/GroundingDINO): all names in one text, a full stop after each; a box's score for a class is the
mean of its scores for the class's tokens; the best `MOST` pairs of box and class count, without suppression.

Decided here: underscores of a name become spaces; a set with more names than the text encoder takes is looked
for in several texts. The model gives boxes alone; a mask is the filled box, so that its figures on masks say
how far boxes go.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unispector.data.coco import Annotations
from unispector.data.transforms import ImageArray
from unispector.detections import Detections
from unispector.errors import CheckpointError, DataError, in_one_line
from unispector.ops.boxes import cxcywh_to_xyxy
from unispector.ops.files import read_image
from unispector.ops.rle import encode_crop
from unispector.systems.hub import checkpoint_folder, read_model
from unispector.systems.sam import normalised, resized

SHORTER, LONGER = 800, 1333  # pixels that an image's shorter side gets, and its longer one at most
MARKS = [101, 1029, 1012, 102]  # ids that end a name: of a text's begin, ?, full stop, and its end
MOST = 300  # detections of an image


@dataclass(frozen=True)
class Text:
    """Some classes' names as the text encoder reads them."""

    tokens: Tensor  # [1, t] ids
    spans: dict[int, tuple[int, int]]  # class -> its first token and the one after its last


@dataclass(frozen=True)
class Wanted:
    """The classes that are looked for."""

    names: tuple[str, ...]
    texts: tuple[Text, ...]  # each class is in one of them


class GroundingDino:
    """GroundingDINO, prompted by the names of classes."""

    def __init__(self, weights: str, shorter: int = SHORTER, longer: int = LONGER) -> None:
        """Load a checkpoint of transformers' GroundingDinoForObjectDetection with its tokenizer.

        Args:
            weights: folder, or name in the local cache of the hub.
            shorter: pixels that an image's shorter side gets.
            longer: pixels that its longer side gets at most.

        Raises:
            CheckpointError: there is none, it lacks tensors, or is of another model.
        """
        from transformers import AutoTokenizer, GroundingDinoForObjectDetection

        folder = checkpoint_folder(weights)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = read_model(GroundingDinoForObjectDetection, folder).to(self._device)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # a damaged file makes transformers stumble in ways it does not name
            raise CheckpointError(
                f"{folder}: no tokenizer ({in_one_line(error)}); name the whole checkpoint"
            ) from error
        if [*self._tokenizer("?.").input_ids] != MARKS:  # transformers makes an empty one of nothing
            raise CheckpointError(f"{folder}: no tokenizer of BERT's words; name the whole checkpoint")
        self._shorter, self._longer = shorter, longer
        self.parameters = sum(weight.numel() for weight in self._model.parameters())

    def encode_prompts(self, prompts: Annotations, images: Path) -> Wanted:  # noqa: ARG002 not looked at
        """The names of the prompts' classes as texts.

        Raises:
            DataError: a name has no word, or more than the text encoder takes.
        """
        begin, _, stop, end = MARKS
        room = int(self._model.config.max_text_len) - 2
        texts: list[tuple[list[int], dict[int, tuple[int, int]]]] = [([], {})]
        for label, name in enumerate(prompts.class_names):
            words = [token for token in self._ids(name.replace("_", " ")) if token not in MARKS]
            if not 0 < len(words) < room:
                raise DataError(f"class name {name!r}: {len(words)} tokens; give it a name of a few words")
            if len(texts[-1][0]) + len(words) + 1 > room:
                texts.append(([], {}))
            tokens, spans = texts[-1]
            first = len(tokens) + 1  # after the token that begins a text
            spans[label] = first, first + len(words)
            tokens += [*words, stop]
        made = (Text(torch.tensor([[begin, *tokens, end]]), spans) for tokens, spans in texts)
        return Wanted(prompts.class_names, tuple(made))

    @torch.no_grad()
    def detect(self, images: Sequence[Path], prompts: Wanted) -> Iterator[Detections]:
        """The best boxes of all classes, image by image."""
        for path in images:
            pixels = read_image(path)
            frame = self._frame(pixels).to(self._device)
            boxes, scores, labels = [], [], []
            for text in prompts.texts:
                tokens = text.tokens.to(self._device)
                answer = self._model(
                    pixel_values=frame,
                    input_ids=tokens,
                    token_type_ids=torch.zeros_like(tokens),
                    attention_mask=torch.ones_like(tokens),
                    pixel_mask=torch.ones_like(frame[:, 0], dtype=torch.int64),
                )
                likely = answer.logits[0].sigmoid()
                for label, (first, last) in text.spans.items():
                    boxes.append(answer.pred_boxes[0])
                    scores.append(likely[:, first:last].mean(1))
                    labels.append(torch.full_like(scores[-1], label, dtype=torch.int64))
            found = torch.cat(boxes).cpu(), torch.cat(scores).cpu(), torch.cat(labels).cpu()
            yield _best(*found, prompts.names, (pixels.shape[0], pixels.shape[1]))

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text.lower(), add_special_tokens=False).input_ids)

    def _frame(self, pixels: ImageArray) -> Tensor:
        """[1, 3, h, w] the image as the model takes it, its aspect kept."""
        height, width = pixels.shape[:2]
        scale = min(self._shorter / min(height, width), self._longer / max(height, width))
        return normalised(resized(pixels, max(round(height * scale), 1), max(round(width * scale), 1)))


def _best(
    boxes: Tensor, scores: Tensor, labels: Tensor, names: tuple[str, ...], image_hw: tuple[int, int]
) -> Detections:
    """The best `MOST` of boxes [n, 4] (cx, cy, w, h, shares of the image) that hold a pixel, best first."""
    height, width = image_hw
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    corners = (cxcywh_to_xyxy(boxes) * limits).clamp(min=torch.zeros(4), max=limits)
    kept = torch.argsort(scores, descending=True, stable=True)[:MOST]
    whole = torch.cat([corners[:, :2].floor(), corners[:, 2:].ceil()], dim=1).long()
    kept = kept[((whole[kept, 2:] - whole[kept, :2]) > 0).all(1)]
    codes = [
        encode_crop(np.ones((bottom - top, right - left), dtype=np.bool_), left, top, height, width)
        for left, top, right, bottom in whole[kept].tolist()
    ]
    return Detections(corners[kept], scores[kept], labels[kept], tuple(codes), names, image_hw)
