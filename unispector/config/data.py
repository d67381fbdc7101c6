"""Parameters of the data and their splits."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from unispector.config.section import Section


class MiniConfig(Section):
    """The embedded default data, `insa-mini` (procedural, deterministic).

    Attributes:
        seed: seed of the whole generation.
        images_per_class: images of each class of the in-domain sets; cross-domain sets have half of that.
        defect_free_images: images without any defect, in each set whose release has such images.
        size: nominal height of an image in pixels; heights vary by 12 %, widths are 0.6 to 1.6 times that.
    """

    seed: int = 42
    images_per_class: int = Field(default=24, ge=1)
    defect_free_images: int = Field(default=8, ge=0)
    size: int = Field(default=256, ge=64)


class SetConfig(Section):
    """One data set of the benchmark.

    Attributes:
        source: which reader understands the raw layout (a key of `unispector.data.sources.SOURCES`).
        path: raw folder of the set, relative to `data.root`.
        domain: `in` takes part in training with its seen classes, `cross` is only tested on.
        unseen: classes of an `in` set that are held out, by their names in its annotation file; none = all
            of them train; None = drawn by the split seed, see `SplitConfig.unseen_fraction`.
    """

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
        "masks",
    ]
    path: str
    domain: Literal["in", "cross"] = "in"
    unseen: tuple[str, ...] | None = None


class DataConfig(Section):
    """Where raw data lie and which sets make the benchmark.

    Attributes:
        root: folder of all raw sets.
        sets: set name -> its source, path and domain.
        min_side: a component is dropped when its width or its height is under this share of the
            image's (paper appendix 1.1).
        workers: processes that read images; 0 = one per core.
    """

    root: Path = Path("data/raw")
    sets: dict[str, SetConfig]
    min_side: float = Field(default=0.01, ge=0, lt=1)
    workers: int = Field(default=0, ge=0)


class SplitConfig(Section):
    """Seen/unseen split, prompts and targets (paper appendix 1 and 1.2).

    Attributes:
        seeds: split seeds; one model is trained per seed.
        prompt_seeds: seeds of the prompt draw, per split seed.
        unseen_fraction: share of each in-domain set's categories held out (at least one), where the set
            does not name them.
        prompts_per_class: prompt images per class.
        tail_images: a class with at most this many images gets one prompt image.
        seen_test_fraction: share of each seen class's images kept from training, to test on.
        training_rule: `clean` = an image that shows an unseen class never trains; `naive` = it trains
            with its seen instances, its unseen ones unlabelled.
        official: folder of the official annotation release (the one with `in-domain` and `out-domain`)
            to take the splits from, or None to make them. All but the seeds and `training_rule`, which
            the files are checked against, is then without effect, and `data.sets` must bear InsA's names.
    """

    seeds: tuple[int, ...] = Field(default=(42, 82, 777), min_length=1)
    prompt_seeds: tuple[int, ...] = Field(default=(42, 82, 777), min_length=1)
    unseen_fraction: float = Field(default=0.25, gt=0, lt=1)
    prompts_per_class: int = Field(default=5, ge=1)
    tail_images: int = Field(default=10, ge=0)
    seen_test_fraction: float = Field(default=0.15, ge=0, lt=1)
    training_rule: Literal["clean", "naive"] = "clean"
    official: Path | None = None
