"""Each system runs on Magnetic Tile by its command, with tiny weights, and has its row on the page.

On the drawn set of that layout, and on a few files of the real one where the environment names its folder:
MAGNETIC_TILE=/path/to/magnetic_tile pytest tests/systems/test_every_system.py
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import yaml
from safetensors.torch import save_file

from tiny import save_tiny, tiny_config, tiny_network
from tiny_sam import save_sam
from tiny_systems import (
    loud_yolo,
    save_closed,
    save_grounding_dino,
    save_resnet,
    save_teacher,
    save_yolo_world,
    tiny_yolo,
)
from unispector.cli import main
from unispector.config import (
    Config,
    DataConfig,
    EvaluateConfig,
    MiniConfig,
    SetConfig,
    SplitConfig,
    SweepConfig,
)
from unispector.data.coco import Annotations
from unispector.data.mini import generate_mini
from unispector.data.protocol.split_tree import SplitTree
from unispector.evaluation.results import EvaluationReport, figure_of
from unispector.evaluation.system_record import SystemRecord
from unispector.pipeline.convert import convert
from unispector.pipeline.split import split
from unispector.pipeline.survey import survey
from unispector.project.paths import SPLITS, SYSTEMS_PAGE
from unispector.reporting.systems import NOT_MEASURED
from unispector.systems import efficient_ad, persam
from unispector.systems.anomaly import PatchCore
from unispector.systems.catalogue import SYSTEMS
from unispector.systems.text_prompts import GroundingDino
from unispector.systems.vrp_sam import VrpSam
from unispector.systems.yolo import training
from unispector.systems.yolo.detectors import Yolo

NEEDED = {"systems": "transformers", "ultralytics": "ultralytics", "anomaly": "anomalib"}
FILES = 12  # of each class of the real set; an image and its mask are two


def drawn(raw):
    config = MiniConfig(images_per_class=6, defect_free_images=5, size=96)
    generate_mini(config, raw / "all", lambda done, of: None)
    (raw / "all" / "MagneticTile").rename(raw / "tile")


def real(raw):
    given = os.environ.get("MAGNETIC_TILE", "")
    if not given:
        pytest.skip("the real set is not at hand: MAGNETIC_TILE names no folder")
    for folder in sorted(path for path in Path(given).glob("MT_*/Imgs")):
        (raw / "tile" / folder.relative_to(given)).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:FILES]:
            shutil.copy(file, raw / "tile" / file.relative_to(given))


@pytest.fixture(scope="module", params=[drawn, real], ids=["drawn", "real"])
def project(request, tmp_path_factory):
    """A project whose only set has the layout of Magnetic Tile, split."""
    root = tmp_path_factory.mktemp("every")
    (root / "data/raw").mkdir(parents=True)
    request.param(root / "data/raw")
    config = Config(
        data=DataConfig(sets={"tile": SetConfig(source="magnetic_tile", path="tile", domain="in")}),
        split=SplitConfig(seeds=(42,), prompt_seeds=(42,), prompts_per_class=2, seen_test_fraction=0.5),
        evaluate=EvaluateConfig(pictures=2, good_images=2, resamples=0, detections=20),
        sweep=SweepConfig(sets=()),
    )
    convert(config, "tile", root)
    survey(config, "tile", root)
    split(config, root)
    (root / "params.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return root


def weights_of(name, folder, project):
    """What `--weights` takes, at its smallest; empty where the system needs none."""
    if name in ("unispector", "dinov", "trex2"):
        config = tiny_config() if name == "unispector" else tiny_config().as_rival(name)
        return str(save_tiny(folder, tiny_network(config, 3), config))
    if name == "maskdino":
        classes = Annotations.read(SplitTree(project / SPLITS).training(42)).class_names
        sets = {"tile": SetConfig(source="magnetic_tile", path="tile", domain="in")}
        save_closed(folder, classes, sets)
        return str(folder)
    if name == "insid3":
        save_file(timm.create_model("test_vit", num_classes=0).state_dict(), folder / "vit.safetensors")
        return f"test_vit={folder / 'vit.safetensors'}"
    if name in ("persam", "persam-f"):
        return str(save_sam(folder))
    if name == "vrp-sam":
        (folder / "resnet").mkdir()
        return f"{save_sam(folder / 'sam')},{save_resnet(folder / 'resnet')}"
    makers = {
        "grounding-dino": lambda: save_grounding_dino(folder),
        "yolo11-seg": lambda: loud_yolo(tiny_yolo("yolo11n-seg.yaml", folder), "SegmentationModel", folder),
        "yolo-world": lambda: save_yolo_world(folder),
        "patchcore": lambda: "tf_efficientnet_lite0=packaged",
        "efficientad": lambda: save_teacher(folder),
    }
    if name in ("yoloe", "yoloe-tuned"):
        return loud_yolo(tiny_yolo("yoloe-11n-seg.yaml", folder), "YOLOESegModel", folder)
    return str(makers[name]()) if name in makers else ""


@pytest.fixture
def short_lessons(monkeypatch):
    """Each system learns next to nothing, and looks at small images."""
    monkeypatch.setattr(training, "EPOCHS", 1)
    monkeypatch.setattr(persam, "STEPS", 2)
    monkeypatch.setattr(efficient_ad, "STEPS", 2)
    monkeypatch.setattr(PatchCore, "side", 256)
    for kind, changes in (
        (VrpSam, {"side": 64, "epochs": 1}),
        (GroundingDino, {"shorter": 64}),
        (Yolo, {"side": 64}),
    ):
        smaller(kind, changes, monkeypatch)


def smaller(kind, changes, monkeypatch):
    """Make a class with other values than its defaults."""
    made = kind.__init__

    def make(self, *given, **options):
        given = given[:1]  # the weights: what follows are defaults that a subclass passes on
        made(self, *given, **options | changes)

    monkeypatch.setattr(kind, "__init__", make)


@pytest.mark.parametrize("name", [system.name for system in SYSTEMS])
@pytest.mark.usefixtures("short_lessons")
def test_it_runs_by_its_command_and_has_a_row(name, project, tmp_path, monkeypatch, capsys):
    (system,) = [one for one in SYSTEMS if one.name == name]
    if not find_spec(NEEDED.get(system.extra, "torch")):
        pytest.skip(f"the extra {system.extra} is not installed")
    monkeypatch.chdir(project)
    weights = weights_of(name, tmp_path, project)
    out = Path("reports/benchmark") / name
    options = ["--weights", weights] if weights else []
    done = main(["benchmark", name, *options, "--sets", "tile", "--out", str(out)])
    assert done == 0, capsys.readouterr().err
    report = EvaluationReport.read(out / "evaluation.json")
    assert {(row.data_set, row.subset) for row in report.rows} == {("tile", "unseen"), ("tile", "seen")}
    assert all(0 <= figure_of(row.metrics, "bbox.AP50") <= 100 for row in report.rows)
    record = SystemRecord.read(out / "system.json")
    assert (record.system, record.roi) == (name, system.rois[0] if system.rois else "")
    assert record.seconds > 0
    assert record.peak_mib < 4096
    assert len(record.samples) == 2
    (line,) = [line for line in SYSTEMS_PAGE.read_text().splitlines() if line.startswith(f"| {system.title}")]
    assert NOT_MEASURED not in line
