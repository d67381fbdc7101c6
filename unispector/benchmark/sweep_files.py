"""The robustness sweeps on annotated images of one's own."""

from pathlib import Path

from unispector.benchmark.judge import read_pair, share_bar, warn_of_shared
from unispector.benchmark.sweep import SweepTask, passes, sweep_pair, sweep_row
from unispector.config import EvaluateConfig, SweepConfig
from unispector.evaluation.sweeps import SweepReport
from unispector.inference.detector import UniSpector
from unispector.ops.files import atomic_write_text
from unispector.reporting.model import Report
from unispector.reporting.render import html
from unispector.reporting.sweep_section import robustness_section

SEED = 42
"""Of all chance in a sweep of one's own files."""
PAPER = SweepConfig(
    blur=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    box_iou=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    box_trials=10,
    counts=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
    count_trials=3,
    severities=(1, 2, 3, 4, 5),
)
"""The paper's levels (section 4.1), and all severities of changed targets, which it does not have."""


def sweep_files(
    model_dir: Path,
    prompts_json: Path,
    targets_json: Path,
    images_root: Path,
    out: Path,
    config: SweepConfig | None = None,
) -> SweepReport:
    """Measure how a model bears changed prompts and changed targets; write `sweep.json` and `index.html`.

    Args:
        prompts_json: COCO file; all its instances are prompts of their category.
        targets_json: COCO file with the ground truth; the same category names.
        images_root: folder the file names of both are relative to.
        config: the levels; None = `PAPER`.

    Raises:
        CheckpointError: the model cannot be loaded.
        DataError: a file or an image is unusable, or the categories of the two files do not match.
    """
    detector, levels = UniSpector.load(model_dir), config or PAPER
    prompts, targets = read_pair(prompts_json, targets_json)
    warn_of_shared(prompts, targets)
    task = SweepTask(detector, prompts, targets, images_root, SEED, levels, EvaluateConfig())
    with share_bar(passes(levels)) as bar:
        bar.set_description(targets_json.stem)
        points = sweep_pair(task, bar)
    report = SweepReport(tuple(sweep_row(point, targets_json.stem, SEED, SEED) for point in points))
    content = Report(
        title=f"Robustness on {targets_json.stem}",
        lead="AP50 in percent of one model, with prompts and targets changed a step at a time.",
        facts=(f"model {detector.fingerprint[:12]}", f"{len(targets.images)} targets"),
        sections=(robustness_section(report),),
    )
    atomic_write_text(out / "sweep.json", report.as_json())
    atomic_write_text(out / "index.html", html(content))
    return report
