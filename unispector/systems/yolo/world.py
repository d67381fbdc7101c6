"""YOLO-World, prompted by the names of the classes, over ultralytics (AGPL-3.0) and transformers.

YOLO-World (arXiv 2401.17270) matches image features with CLIP's embedding of a text. ultralytics would
download CLIP; here transformers reads it from a folder `clip` beside the weights, so nothing is downloaded.
The text is the class's name with spaces for underscores, without a template. The networks that ultralytics
distributes have boxes only: the filled box is the mask.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unispector.data.coco import Annotations
from unispector.detections import Detections
from unispector.errors import CheckpointError, in_one_line
from unispector.systems.hub import read_model
from unispector.systems.yolo.detectors import Yolo

LONGEST = 77  # tokens of a name, as CLIP was trained


class YoloWorld(Yolo):
    """YOLO-World as it was released."""

    kind = "WorldModel"

    def __init__(self, weights: str, side: int = 736) -> None:
        """Load the network and, from the folder `clip` beside it, the text encoder; see `Yolo`.

        Raises:
            CheckpointError: one of the two cannot be read.
            ModuleNotFoundError: ultralytics or transformers is not installed.
        """
        super().__init__(weights, side)
        self._tokenizer, self._text = _text_encoder(Path(weights).with_name("clip"))
        self.parameters += sum(weight.numel() for weight in self._text.parameters())

    @torch.inference_mode()
    def encode_prompts(self, prompts: Annotations, images: Path) -> tuple[tuple[str, ...], Tensor]:  # noqa: ARG002
        """Names and unit embeddings [C, 512] of the classes; no image is looked at."""
        texts = [name.replace("_", " ") for name in prompts.class_names]
        tokens = self._tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return prompts.class_names, functional.normalize(self._text(**tokens).text_embeds, dim=-1)

    def detect(self, images: Sequence[Path], prompts: tuple[tuple[str, ...], Tensor]) -> Iterator[Detections]:
        """All named classes, image by image."""
        names, embeddings = prompts
        self._network.model[-1].nc = len(names)
        texts = embeddings[None].to(next(self._network.parameters()).device)
        columns = {name: column for column, name in enumerate(names)}
        for path in images:
            yield self._find(path, columns, txt_feats=texts)


def _text_encoder(folder: Path) -> tuple[Any, Any]:
    """CLIP's tokenizer and text encoder."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    try:
        encoder = read_model(CLIPTextModelWithProjection, folder)
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=LONGEST), encoder
    except Exception as error:  # a damaged file makes transformers stumble in ways it does not name
        raise CheckpointError(
            f"{folder}: no text encoder for YOLO-World ({in_one_line(error)}); put config.json, "
            "model.safetensors, vocab.json and merges.txt of CLIP ViT-B/32 there"
        ) from error
