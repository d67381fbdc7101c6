"""Parameters of the data and their splits."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from unispector.config.section import Section
from unispector.names import folder_name_problem


class MiniConfig(Section):
    """The embedded default data, `insa-mini` (procedural, deterministic)."""

    seed: int = Field(42, description="seed of the whole generation")
    images_per_class: int = Field(
        24,
        ge=1,
        description="images of each class of the in-domain sets; of the cross-domain sets half of that",
    )
    defect_free_images: int = Field(
        8, ge=0, description="images without a defect, per set whose release has such images"
    )
    size: int = Field(
        256,
        ge=64,
        description="nominal height of an image in pixels; heights vary by 12 %, widths are 0.6 to 1.6 "
        "times that",
    )


class SetConfig(Section):
    """One data set of the benchmark."""

    source: Literal[
        "gc10",
        "magnetic_tile",
        "real_iad",
        "mvtec_ad",
        "three_cad",
        "vision",
        "visa",
        "coco",
        "voc",
        "yolo",
        "labelme",
        "label_studio",
        "cvat",
        "masks",
    ] = Field(description="reader of the raw layout, a key of `unispector.data.sources.SOURCES`")
    path: str = Field(description="raw folder of the set, below `data.root`")
    domain: Literal["in", "cross"] = Field(
        "in", description="`in` = trains with its seen classes, `cross` = test only"
    )
    unseen: tuple[str, ...] | None = Field(
        None,
        description="classes of an `in` set that are held out, by their names in its annotation file; [] "
        "= all of them train; null = drawn by the split seed (`split.unseen_fraction`)",
    )


_MINI_SETS = {
    f"mini-{folder}": SetConfig(source=source, path=f"insa-mini/{folder}", domain=domain)
    for folder, source, domain in (
        ("GC10", "gc10", "in"),
        ("MagneticTile", "magnetic_tile", "in"),
        ("RealIAD", "real_iad", "in"),
        ("MVTec", "mvtec_ad", "in"),
        ("3CAD", "three_cad", "cross"),
        ("VISION", "vision", "cross"),
        ("VisA", "visa", "cross"),
    )
}


def _named(sets: dict[str, SetConfig]) -> dict[str, SetConfig]:
    for name in sets:
        if problem := folder_name_problem(name):
            raise ValueError(f"the name {name[:80]!r} of a set {problem}; rename the set")
    return sets


class DataConfig(Section):
    """The folder of raw data and the sets of the benchmark."""

    root: Path = Field(Path("data/raw"), description="folder of all raw sets")
    sets: Annotated[dict[str, SetConfig], AfterValidator(_named)] = Field(
        _MINI_SETS,
        description="name: how to read it (source), where it lies below root (path), in = trains with "
        "its seen classes, cross = test only (domain)",
    )
    min_side: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="a component is dropped when its width or height is a smaller share of the image's "
        "(paper, appendix 1.1)",
    )
    workers: int = Field(0, ge=0, description="processes that read images; 0 = one per core")


class SplitConfig(Section):
    """Seen/unseen split, prompts and targets (paper appendix 1 and 1.2)."""

    seeds: tuple[int, ...] = Field(
        (42, 82, 777),
        min_length=1,
        description="split seeds; one model is trained per seed (paper, appendix 1: 42, 82, 777)",
    )
    prompt_seeds: tuple[int, ...] = Field(
        (42,),
        min_length=1,
        description="draws of prompts per split seed; [42, 82, 777] for the whole protocol",
    )
    unseen_fraction: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="of each in-domain set's classes, held out where the set does not name them; at "
        "least one class",
    )
    prompts_per_class: int = Field(5, ge=1, description="prompt images per class")
    tail_images: int = Field(
        10, ge=0, description="a class with at most this many images gets one prompt image"
    )
    seen_test_fraction: float = Field(
        0.15, ge=0, lt=1, description="of each seen class's images, kept from training to test on"
    )
    training_rule: Literal["clean", "naive"] = Field(
        "clean",
        description="an image that shows an unseen class never trains: `clean`; or does, with that class "
        "unlabelled: `naive`",
    )
    official: Path | None = Field(
        None,
        description="folder of InsA's official annotation files (with `in-domain` and `out-domain`), to "
        "use their splits in place of these; `data.sets` must bear InsA's names, and only "
        "the seeds and `training_rule` still count, as checks",
    )
