"""`unispector prompts build`: a COCO file of prompts becomes a prompt bank."""

from pathlib import Path
from typing import Literal

from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.inference.tiles import Tile
from unispector.prompts.marks import read_marks


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
    annotations = read_marks(annotations_file)
    detector = UniSpector.load(model_directory)
    bank = detector.encode_annotations(annotations, image_root, roi, tile=tile, bit_depth=bit_depth)
    bank.save(output)
    return bank
