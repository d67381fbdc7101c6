"""Which systems there are, and what each needs, costs and may be used for.

Nothing of a system is imported before it is asked for: some have licences or packages of their own.
"""

from dataclasses import dataclass
from typing import Literal

from unispector.config import Roi

Learns = Literal["nothing", "before", "seen", "good"]


@dataclass(frozen=True)
class System:
    """One row of the comparison."""

    name: str  # on the command line
    title: str  # in tables, with its source
    make: str  # import path; called with (weights, roi), it returns the detector
    rois: tuple[Roi, ...]  # what it can be prompted with; none = it is not prompted by an example
    # Trained by the benchmark on the seen classes or on a set's good images; or before, by the stage train.
    learns: Learns
    weights: str  # what `--weights` takes; empty = nothing
    code: str  # licence of the code that runs
    weights_licence: str  # of the weights as they are distributed; "-" = there are none
    weights_needed: bool = True  # or it has some of its own, if it takes any
    extra: str = ""  # of this package, to be installed first; empty = none
    published: tuple[str, bool] = ("", False)  # its name in the paper's tables, and whether tuned there


SYSTEMS = (
    System(
        name="unispector",
        title="UniSpector",
        make="unispector.systems.own:unispector",
        rois=("box", "mask"),
        learns="before",
        weights="`fast`, `accurate`, or a folder of a trained model",
        code="Apache-2.0",
        weights_licence="packaged: Apache-2.0, trained on what their README.md says; trained here: yours",
        published=("UniSpector", True),
    ),
    System(
        name="maskdino",
        title="MaskDINO, closed set",
        make="unispector.systems.own:ClosedSetDetector",
        rois=(),
        learns="before",
        weights="a folder that `train.ablation: [maskdino]` made; it knows its seen classes alone",
        code="Apache-2.0 (this project's)",
        weights_licence="-",
    ),
    System(
        name="yolo11-seg",
        title="YOLO11-seg, closed set: finds nothing unseen",
        make="unispector.systems.yolo.detectors:ClosedSetYolo",
        rois=(),
        learns="seen",
        weights="yolo11m-seg.pt of ultralytics to start from",
        code="AGPL-3.0 (ultralytics)",
        weights_licence="AGPL-3.0",
        extra="ultralytics",
    ),
    System(
        name="grounding-dino",
        title="GroundingDINO (arXiv 2303.05499), by the classes' names; masks are filled boxes",
        make="unispector.systems.text_prompts:GroundingDino",
        rois=(),
        learns="nothing",
        weights="folder or cached hub name of transformers' GroundingDINO, such as IDEA-Research/"
        "grounding-dino-tiny",
        code="Apache-2.0",
        weights_licence="Apache-2.0",
        extra="systems",
        published=("GroundingDINO", False),
    ),
    System(
        name="yolo-world",
        title="YOLO-World, prompted by class names",
        make="unispector.systems.yolo.world:YoloWorld",
        rois=(),
        learns="nothing",
        weights="yolov8m-worldv2.pt of ultralytics, and in `clip` beside it transformers' CLIP ViT-B/32",
        code="AGPL-3.0 (ultralytics)",
        weights_licence="AGPL-3.0; CLIP: MIT",
        extra="ultralytics",
        published=("YOLO-World", False),
    ),
    System(
        name="dinov",
        title="DINOv",
        make="unispector.systems.own:dinov",
        rois=("box", "mask"),
        learns="before",
        weights="published checkpoint (model_swinT.pth), or a folder that `train.ablation: [dinov]` made",
        code="Apache-2.0 (this project's)",
        weights_licence="not stated",
        published=("DINOv", False),
    ),
    System(
        name="trex2",
        title="T-Rex2, visual prompts",
        make="unispector.systems.own:trex2",
        rois=("box",),
        learns="before",
        weights="a folder that `train.ablation: [trex2]` made; no weights of it are published",
        code="Apache-2.0 (this project's)",
        weights_licence="-",
        published=("T-Rex2", True),
    ),
    System(
        name="yoloe",
        title="YOLOE with visual prompts, as released",
        make="unispector.systems.yolo.detectors:YoloE",
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
        make="unispector.systems.yolo.detectors:TunedYoloE",
        rois=("box",),
        learns="seen",
        weights="yoloe-11m-seg.pt of ultralytics to start from",
        code="AGPL-3.0 (ultralytics)",
        weights_licence="AGPL-3.0",
        extra="ultralytics",
        published=("YOLOE", True),
    ),
    System(
        name="persam",
        title="PerSAM (arXiv 2305.03048)",
        make="unispector.systems.persam:PerSam",
        rois=("box", "mask"),
        learns="nothing",
        weights="folder or cached hub name of transformers' SAM, such as facebook/sam-vit-huge",
        code="Apache-2.0",
        weights_licence="Apache-2.0 (SAM)",
        extra="systems",
        published=("PerSAM", False),
    ),
    System(
        name="persam-f",
        title="PerSAM-F (arXiv 2305.03048)",
        make="unispector.systems.persam:PerSamF",
        rois=("box", "mask"),
        learns="seen",
        weights="SAM[,TUNED]: as of persam, and persam-f.safetensors of an earlier run",
        code="Apache-2.0",
        weights_licence="Apache-2.0 (SAM)",
        extra="systems",
        published=("PerSAM-F", True),
    ),
    System(
        name="vrp-sam",
        title="VRP-SAM (arXiv 2402.17726)",
        make="unispector.systems.vrp_sam:VrpSam",
        rois=("box", "mask"),
        learns="seen",
        weights="SAM,RESNET[,ENCODER]: as of persam, the same of timm's ResNet, such as "
        "timm/resnet50.a1_in1k, and vrp-sam.safetensors of an earlier run",
        code="Apache-2.0",
        weights_licence="Apache-2.0 (SAM, timm's ResNet-50)",
        extra="systems",
        published=("VRP-SAM", True),
    ),
    System(
        name="insid3",
        title="INSID3",
        make="unispector.systems.insid3:Insid3Detector",
        rois=("box", "mask"),
        learns="nothing",
        weights="NAME=FILE, timm's name of another vision transformer and its weights, or NAME=hub; "
        "left out, the packaged DINOv2-S is taken",
        code="Apache-2.0 (this project's)",
        weights_licence="Apache-2.0 (DINOv2), MIT (its package); DINOv3: DINOv3 License",
        weights_needed=False,
        extra="accurate",
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
