"""`unispector prompts build`: a COCO file of prompts becomes a prompt bank."""

import logging
from pathlib import Path
from typing import Literal

from unispector.data.coco import Annotations
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.inference.tiles import Tile

logger = logging.getLogger(__name__)


def build_prompts(
    annotations_file: Path,
    image_root: Path,
    model_directory: Path,
    output: Path,
    roi: Literal["box", "mask"] = "box",
    tile: Tile = "auto",
    bit_depth: int = 16,
) -> PromptBank:
    """Encode every instance of a COCO file and save one embedding per category; groups are told and left out.

    Args:
        tile: as of `UniSpector.encode`.
        bit_depth: as of `UniSpector.encode`.

    Raises:
        DataError: the annotations or an image cannot be used.
        CheckpointError: the model cannot be loaded.
        PromptBankError: a category has no instance.
    """
    annotations = Annotations.read(annotations_file)
    groups = sum(instance.iscrowd for instance in annotations.instances)
    if groups:
        logger.warning(
            "%s: %d of %d marks are groups (iscrowd) and left out; if each is one instance, as CVAT's masks "
            "are, run `unispector convert coco` on the folder",
            *(annotations_file, groups, len(annotations.instances)),
        )
    detector = UniSpector.load(model_directory)
    bank = detector.encode_annotations(annotations, image_root, roi, tile=tile, bit_depth=bit_depth)
    bank.save(output)
    return bank
