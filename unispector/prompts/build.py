"""`unispector prompts build`: a COCO file of prompts becomes a prompt bank."""

from pathlib import Path
from typing import Literal

from unispector.data.coco import Annotations
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank


def build_prompts(
    annotations_file: Path,
    image_root: Path,
    model_directory: Path,
    output: Path,
    roi: Literal["box", "mask"] = "box",
) -> PromptBank:
    """Encode every instance of a COCO file and save one embedding per category.

    Args:
        annotations_file: COCO file; every category needs an instance.
        image_root: folder its file names are relative to.
        model_directory: the model that will detect with the bank.
        output: bank to write, atomically.
        roi: prompt with boxes or with instance masks.

    Raises:
        DataError: the annotations or an image cannot be used.
        CheckpointError: the model cannot be loaded.
        PromptBankError: a category has no instance.
    """
    annotations = Annotations.read(annotations_file)
    bank = UniSpector.load(model_directory).encode_annotations(annotations, image_root, roi)
    bank.save(output)
    return bank
