"""Which systems there are, and what each needs, costs and may be used for.

Nothing of a system is imported before it is asked for: some have licences or packages of their own.
"""

from dataclasses import dataclass
from typing import Literal

from unispector.config import Roi

Learns = Literal["nothing", "seen", "good"]


@dataclass(frozen=True)
class System:
    """One row of the comparison."""

    name: str  # on the command line
    title: str  # in tables, with its source
    make: str  # import path; called with (weights, roi), it returns the detector
    rois: tuple[Roi, ...]  # what it can be prompted with; none = it is not prompted by an example
    learns: Learns  # trained by the benchmark on nothing, on the seen classes, or on a set's good images
    weights: str  # which files `--weights` takes; empty = none are needed
    code: str  # licence of the code that runs
    weights_licence: str  # of the weights as they are distributed; "-" = there are none
    extra: str = ""  # of this package, to be installed first; empty = none
    published: tuple[str, bool] = ("", False)  # its name in the paper's tables, and whether tuned there


SYSTEMS = (
    System(
        name="yolo-world",
        title="YOLO-World, prompted by class names",
        make="unispector.systems.yolo_world:YoloWorld",
        rois=(),
        learns="nothing",
        weights="yolov8m-worldv2.pt of ultralytics, and in `clip` beside it transformers' CLIP ViT-B/32",
        code="AGPL-3.0 (ultralytics)",
        weights_licence="AGPL-3.0; CLIP: MIT",
        extra="ultralytics",
        published=("YOLO-World", False),
    ),
    System(
        name="yoloe",
        title="YOLOE with visual prompts, as released",
        make="unispector.systems.ultralytics_yolo:YoloE",
        rois=("box",),
        learns="nothing",
        weights="yoloe-11m-seg.pt of ultralytics",
        code="AGPL-3.0 (ultralytics)",
        weights_licence="AGPL-3.0",
        extra="ultralytics",
        published=("YOLOE", False),
    ),
    System(
        name="yoloe-tuned",
        title="YOLOE with visual prompts, fine-tuned",
        make="unispector.systems.ultralytics_yolo:TunedYoloE",
        rois=("box",),
        learns="seen",
        weights="yoloe-11m-seg.pt of ultralytics to start from",
        code="AGPL-3.0 (ultralytics)",
        weights_licence="AGPL-3.0",
        extra="ultralytics",
        published=("YOLOE", True),
    ),
    System(
        name="yolo11-seg",
        title="YOLO11-seg, closed set: finds nothing unseen",
        make="unispector.systems.ultralytics_yolo:ClosedSetYolo",
        rois=(),
        learns="seen",
        weights="yolo11m-seg.pt of ultralytics to start from",
        code="AGPL-3.0 (ultralytics)",
        weights_licence="AGPL-3.0",
        extra="ultralytics",
    ),
    System(
        name="patchcore",
        title="PatchCore, which names no defect",
        make="unispector.systems.anomaly:PatchCore",
        rois=(),
        learns="good",
        weights="NAME=FILE, a timm network and its weights; tf_efficientnet_lite0=packaged needs no file",
        code="Apache-2.0 (anomalib)",
        weights_licence="Apache-2.0 (EfficientNet-Lite0); else the file's",
        extra="anomaly",
    ),
    System(
        name="efficientad",
        title="EfficientAD, which names no defect",
        make="unispector.systems.efficient_ad:EfficientAd",
        rois=(),
        learns="good",
        weights="pretrained_teacher_small.pth of anomalib, with pictures of anything in `penalty` beside it",
        code="Apache-2.0 (anomalib)",
        weights_licence="not stated",
        extra="anomaly",
    ),
    System(
        name="prototypes",
        title="nearest prototypes",
        make="unispector.systems.prototypes:PrototypeDetector",
        rois=("box", "mask"),
        learns="nothing",
        weights="",
        code="Apache-2.0",
        weights_licence="Apache-2.0 (EfficientNet-Lite0)",
    ),
)
"""All systems, in the order of the table."""

BY_NAME = {system.name: system for system in SYSTEMS}
