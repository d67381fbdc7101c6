"""Stage `evaluate`: judge models by AP on files of one's own, or all models on the whole benchmark."""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Never

from unispector.config import Config, EvaluateConfig
from unispector.data.coco import Annotations, InstanceRecord
from unispector.data.protocol.split_tree import SplitTree, TestPair
from unispector.errors import CheckpointError, DataError
from unispector.evaluation.coco_metrics import SetMetrics, evaluate_detections
from unispector.evaluation.results import (
    FIGURES,
    MAIN_VARIANT,
    EvaluationReport,
    EvaluationRow,
    PictureRecord,
    Subset,
    figure_of,
)
from unispector.inference.detector import UniSpector
from unispector.ops.files import atomic_write_text
from unispector.stages.evaluation_pictures import Shown, draw_pictures
from unispector.structures import Detections
from unispector.tracking.run import TrackingStore

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)

RUN_KEY = "mlflow_run_id"
"""Key of a model's provenance under which its training run is named."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation to be made.

    Attributes:
        variant, split_seed: which model.
        model: its directory.
        test: prompts and targets.
        images: folder the file names of both are relative to.
    """

    variant: str
    split_seed: int
    model: Path
    test: TestPair
    images: Path

    @property
    def subset(self) -> Subset:
        """A cross-domain set counts as unseen: training knew none of its classes."""
        return "seen" if self.test.part == "seen" else "unseen"


@dataclass(frozen=True)
class _Judged:
    """What one evaluation found, with the annotations it was judged on."""

    metrics: SetMetrics
    prompts: Annotations
    targets: Annotations
    detections: dict[int, Detections]


def evaluate_files(
    model_dir: Path,
    prompts_json: Path,
    targets_json: Path,
    images_root: Path,
    *,
    config: EvaluateConfig | None = None,
    roi: Literal["box", "mask"] = "box",
) -> SetMetrics:
    """Average precision of a model on any COCO files.

    Args:
        model_dir: a saved model.
        prompts_json: COCO file; all its instances are the prompts of their category.
        targets_json: COCO file with the ground truth; the same category names.
        images_root: folder the file names of both are relative to.
        config: batch size and number of detections; None = the defaults.
        roi: prompt with the instances' boxes or with their masks.

    Returns:
        Box and mask AP, AP50, AP75 in percent, in all and by class.

    Raises:
        CheckpointError: the model cannot be loaded.
        DataError: a file or an image is unusable, or the categories of the two files do not match.
        PromptBankError: a category of the prompt file has no instance.
    """
    detector = _load(model_dir)
    test = TestPair(targets_json.stem, "unseen", None, 0, prompts_json, targets_json)
    with _progress_bar(1) as bar:
        bar.set_description(targets_json.stem)
        return _judge(detector, test, images_root, config or EvaluateConfig(), roi, _advance(bar)).metrics


def evaluate_all(
    config: Config,
    models_root: Path,
    splits_root: Path,
    out: Path,
    tracking: TrackingStore | None,
) -> EvaluationReport:
    """Judge every model on every data set, seen and unseen, with every prompt seed.

    Models are `<models_root>/<variant>/seed<S>`: `unispector` for all split seeds, `base` for the
    ablation's seeds, `untrained` where it exists. Writes `evaluation.json` (all rows), `pictures/`
    and, last, `metrics.json` (means and spreads) to `out`, and adds the figures and the pictures to
    the MLflow runs that trained the models.

    Args:
        config: all parameters.
        models_root: folder of the model directories.
        splits_root: tree of prompt and target files the split stage wrote.
        out: folder of the reports.
        tracking: where the training runs are; None = they are left alone.

    Raises:
        CheckpointError: a model is missing or unusable.
        DataError: a file of the splits is missing, or a file or an image is unusable.
    """
    plan = _plan(config, _models(config, models_root), SplitTree(splits_root))
    shutil.rmtree(out / "pictures", ignore_errors=True)
    (out / "pictures").mkdir(parents=True)
    rows: list[EvaluationRow] = []
    pictures: list[PictureRecord] = []
    with _progress_bar(len(plan)) as bar:
        for directory in dict.fromkeys(todo.model for todo in plan):
            detector = _load(directory)
            own_rows: list[EvaluationRow] = []
            own_pictures: list[PictureRecord] = []
            for todo in (todo for todo in plan if todo.model == directory):
                bar.set_description(
                    f"{todo.variant} seed {todo.split_seed}, {todo.test.set_name}, {todo.subset}"
                )
                judged = _judge(
                    detector, todo.test, todo.images, config.evaluate, config.prompt.test_roi, _advance(bar)
                )
                own_rows.append(_row(todo, judged.metrics))
                if count := _pictures_wanted(todo, plan, config.evaluate.pictures):
                    shown = Shown(judged.prompts, judged.targets, judged.detections, todo.images)
                    own_pictures += draw_pictures(shown, todo.test, count, config.evaluate.picture_score, out)
            _track(tracking, detector.provenance, own_rows, [out / picture.file for picture in own_pictures])
            rows += own_rows
            pictures += own_pictures
    report = EvaluationReport(tuple(rows), tuple(pictures))
    atomic_write_text(out / "evaluation.json", report.evaluation_json())
    atomic_write_text(out / "metrics.json", report.metrics_json())
    return report


def _models(config: Config, root: Path) -> list[tuple[str, int, Path]]:
    """Variant, split seed and directory of every model to judge."""
    required = {MAIN_VARIANT: config.train.seeds, "base": config.train.ablation_seeds}
    models = [
        (variant, seed, root / variant / f"seed{seed}")
        for variant, seeds in required.items()
        for seed in seeds
    ]
    for _, _, directory in models:
        if not directory.is_dir():
            raise CheckpointError(f"{directory}: no such model; run the train stage first")
    untrained = [("untrained", seed, root / "untrained" / f"seed{seed}") for seed in config.train.seeds]
    return models + [model for model in untrained if model[2].is_dir()]


def _plan(config: Config, models: Sequence[tuple[str, int, Path]], splits: SplitTree) -> list[Evaluation]:
    """All evaluations in order; seen classes only where the split found enough images to test on."""
    plan = []
    for variant, split_seed, model in models:
        for name, data_set in config.data.sets.items():
            for test in _tests(splits, name, data_set.domain, split_seed, config.split.prompt_seeds):
                if test.part == "seen" and not test.target.is_file():
                    continue
                for file in (test.prompt, test.target):
                    if not file.is_file():
                        raise DataError(f"{file}: no such file; run the split stage again")
                plan.append(Evaluation(variant, split_seed, model, test, config.data.root / data_set.path))
    return plan


def _tests(
    splits: SplitTree, name: str, domain: str, split_seed: int, prompt_seeds: Sequence[int]
) -> Iterator[TestPair]:
    for prompt_seed in prompt_seeds:
        if domain == "in":
            yield splits.in_domain(name, "unseen", split_seed, prompt_seed)
            yield splits.in_domain(name, "seen", split_seed, prompt_seed)
        else:
            yield splits.cross_domain(name, prompt_seed)


def _pictures_wanted(todo: Evaluation, plan: Sequence[Evaluation], pictures: int) -> int:
    """Pictures to draw: of the main variant's first evaluations only, shared among a set's subsets."""
    of_set = [e for e in plan if e.variant == MAIN_VARIANT and e.test.set_name == todo.test.set_name]
    subsets = dict.fromkeys(e.subset for e in of_set)
    firsts = [next(e for e in of_set if e.subset == subset) for subset in subsets]
    if todo not in firsts:
        return 0
    position = firsts.index(todo)
    return pictures // len(firsts) + (position < pictures % len(firsts))


def _load(directory: Path) -> UniSpector:
    import torch

    return UniSpector.load(directory, device="cuda" if torch.cuda.is_available() else "cpu")


def _judge(
    detector: UniSpector,
    test: TestPair,
    images: Path,
    config: EvaluateConfig,
    roi: Literal["box", "mask"],
    advance: Callable[[float], object],
) -> _Judged:
    """Prompt, detect and judge; `advance` gets shares of the work that add up to 1."""
    prompts, targets = Annotations.read(test.prompt), Annotations.read(test.target)
    missing = {_name(targets, instance) for instance in targets.instances} - set(prompts.class_names)
    if missing:
        raise DataError(
            f"{test.prompt}: no prompt for class {min(missing)!r}, which {test.target.name} has; "
            "add one, or take the class out of the targets"
        )
    bank = detector.encode_annotations(prompts, images, roi, config.batch_size)
    files = (images / image.file_name for image in targets.images)
    detections: dict[int, Detections] = {}
    stream = detector.stream(files, bank, config.batch_size, config.detections)
    for image, found in zip(targets.images, stream, strict=True):
        detections[image.id] = found
        advance(1 / len(targets.images))
    return _Judged(evaluate_detections(targets, detections), prompts, targets, detections)


def _name(annotations: Annotations, instance: InstanceRecord) -> str:
    return annotations.class_names[annotations.class_index[instance.category_id]]


def _row(todo: Evaluation, metrics: SetMetrics) -> EvaluationRow:
    return EvaluationRow(
        variant=todo.variant,
        data_set=todo.test.set_name,
        subset=todo.subset,
        split_seed=todo.split_seed,
        prompt_seed=todo.test.prompt_seed,
        metrics=metrics,
    )


def _progress_bar(evaluations: int) -> "tqdm[Never]":
    from tqdm import tqdm

    return tqdm(
        total=evaluations,
        bar_format="{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        mininterval=0.2 if sys.stderr.isatty() else 60,
    )


def _advance(bar: "tqdm[Never]") -> Callable[[float], object]:
    """Moves the bar by shares of an evaluation; their sum may round to a little more than the total."""
    total = float(bar.total or 0)
    return lambda share: bar.update(min(share, total - bar.n))


def _track(
    tracking: TrackingStore | None,
    provenance: Mapping[str, str],
    rows: Sequence[EvaluationRow],
    pictures: Sequence[Path],
) -> None:
    """Add a model's figures and pictures to the run that trained it."""
    run_id = provenance.get(RUN_KEY)
    if tracking is None or run_id is None:
        return
    if not tracking.has_run(run_id):
        logger.warning(
            "run %s is not in %s; its model's evaluation is in the reports only", run_id, tracking.root
        )
        return
    run = tracking.existing(run_id)
    report = EvaluationReport(tuple(rows), ())
    run.metrics(
        {
            f"{summary.subset}/{summary.data_set}/{figure}": spread.mean
            for summary in report.summaries(rows[0].variant)
            for figure, spread in summary.figures.items()
        }
    )
    run.table("evaluation/rows", [_flat_row(row) for row in rows])
    for picture in pictures:
        run.artifact(picture, "pictures")


def _flat_row(row: EvaluationRow) -> dict[str, object]:
    figures = {figure: round(figure_of(row.metrics, figure), 2) for figure in FIGURES}
    return {"data_set": row.data_set, "subset": row.subset, "prompt_seed": row.prompt_seed, **figures}
