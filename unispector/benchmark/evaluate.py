"""Stage `evaluate`: judge models by AP on files of one's own, or all models on the whole benchmark."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from unispector.benchmark.gallery import Gallery, draw_gallery
from unispector.benchmark.judge import Trial, advance, judge, read_pair, scores_on, share_bar, warn_of_shared
from unispector.benchmark.plan import Evaluation, main_evaluations
from unispector.benchmark.prompt_spaces import measure_prompt_space
from unispector.benchmark.row import evaluation_row
from unispector.config import Config, EvaluateConfig
from unispector.data.combine import with_prompts
from unispector.data.defect_free import defect_free_for_tests
from unispector.evaluation.coco_metrics import SetMetrics, evaluate_overlaps
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.results import DrawnImage, EvaluationReport, EvaluationRow, ModelRecord
from unispector.inference.detector import UniSpector
from unispector.reporting.prompt_space import PromptSpaceRecord


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
        prompts_json: COCO file; all its instances are the prompts of their category.
        targets_json: COCO file with the ground truth; the same category names.
        images_root: folder the file names of both are relative to.
        config: batch size and number of detections; None = the defaults.
        roi: prompt with the instances' boxes or with their masks.

    Returns:
        Box and mask AP, AP50, AP75 in percent, in all, by class and by size.

    Raises:
        CheckpointError: the model cannot be loaded.
        DataError: a file or an image is unusable, or the categories of the two files do not match.
        PromptBankError: a category of the prompt file has no instance.
    """
    detector, settings = UniSpector.load(model_dir), config or EvaluateConfig()
    prompts, targets = read_pair(prompts_json, targets_json)
    warn_of_shared(prompts, targets)
    truth = GroundTruth(targets)
    bank = detector.encode_annotations(prompts, images_root, roi, settings.batch_size)
    with share_bar(1) as bar:
        bar.set_description(targets_json.stem)
        (found,) = judge(detector, [Trial(bank, truth)], images_root.joinpath, settings, advance(bar))
    return evaluate_overlaps(truth, found)


def evaluate_models(
    todo: Sequence[Evaluation], config: Config, reports: Path
) -> tuple[EvaluationReport, list[PromptSpaceRecord]]:
    """Judge models on data sets, seen and unseen classes, with every draw of prompts (InsA's protocol).

    Args:
        reports: folder below whose `pictures` images are drawn.

    Returns:
        All figures and what was drawn, and where each model places the prompts of unseen classes.

    Raises:
        CheckpointError: a model is missing or unusable.
        DataError: a file of the splits is missing, or a file or an image is unusable.
    """
    rows: list[EvaluationRow] = []
    pictures: list[DrawnImage] = []
    models: list[ModelRecord] = []
    spaces: list[PromptSpaceRecord] = []
    samples = _samples(todo, config.evaluate.pictures)
    with share_bar(sum(len(evaluation.tests) for evaluation in todo)) as bar:
        for directory in dict.fromkeys(evaluation.model for evaluation in todo):
            own = [evaluation for evaluation in todo if evaluation.model == directory]
            detector, (variant, seed) = UniSpector.load(directory), (own[0].variant, own[0].split_seed)
            models.append(ModelRecord(variant, seed, detector.fingerprint, detector.provenance))
            for evaluation in own:
                bar.set_description(f"{variant} seed {seed}, {evaluation.set_name}, {evaluation.subset}")
                outcomes = _evaluate(detector, evaluation, config, advance(bar))
                rows += [row for row, _ in outcomes]
                if evaluation in samples:
                    gallery = outcomes[0][1]
                    failures = config.evaluate.failures if evaluation.subset == "unseen" else 0
                    pictures += draw_gallery(gallery, samples[evaluation], failures, config.evaluate, reports)
            spaces.append(measure_prompt_space(detector, own, config))
    included = config.evaluate.include_prompts
    report = EvaluationReport(tuple(rows), tuple(pictures), tuple(models), included)
    return report, spaces


def _samples(todo: Sequence[Evaluation], pictures: int) -> dict[Evaluation, int]:
    """Random images of each evaluation that gets any: a set's are shared among its subsets."""
    shares = {}
    for evaluation in (mains := main_evaluations(todo)):
        of_set = [other for other in mains if other.set_name == evaluation.set_name]
        position = of_set.index(evaluation)
        shares[evaluation] = pictures // len(of_set) + (position < pictures % len(of_set))
    return shares


def _evaluate(
    detector: UniSpector, todo: Evaluation, config: Config, moved: Callable[[float], object]
) -> list[tuple[EvaluationRow, Gallery]]:
    """Each draw of prompts of one model on one set, and what its images are drawn from.

    Each image is encoded once for all draws.
    """
    settings = config.evaluate
    pairs = [read_pair(test.prompt, test.target) for test in todo.tests]
    if settings.include_prompts:
        pairs = [(prompts, with_prompts(targets, prompts)) for prompts, targets in pairs]
    roi = config.prompt.test_roi
    banks = [
        detector.encode_annotations(prompts, todo.images, roi, settings.batch_size) for prompts, _ in pairs
    ]
    trials = [Trial(bank, GroundTruth(targets)) for bank, (_, targets) in zip(banks, pairs, strict=True)]
    found = judge(detector, trials, todo.images.joinpath, settings, lambda share: moved(share * len(trials)))
    good = defect_free_for_tests(todo.dropped, settings.good_images)
    scores = scores_on(detector, banks, [todo.images / name for name in good], settings)
    outcomes = []
    for number, (test, (prompts, targets)) in enumerate(zip(todo.tests, pairs, strict=True)):
        good_scores = scores[number]
        row, boxes = evaluation_row(todo, test, trials[number].truth, found[number], good_scores, settings)
        gallery = Gallery(
            detector, banks[number], test, todo.images, prompts, targets, boxes, good, good_scores
        )
        outcomes.append((row, gallery))
    return outcomes
