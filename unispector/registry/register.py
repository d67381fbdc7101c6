"""Stage `register`: the newly trained models become versions of the registry, one of them its challenger."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from unispector.config import Config
from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import SplitTree
from unispector.errors import RegistryError
from unispector.evaluation.results import (
    MAIN_VARIANT,
    SUBSETS,
    UNTRAINED,
    EvaluationReport,
    Summary,
    mean_over_sets,
)
from unispector.modeling.saved_model import CONFIG, WEIGHTS, SavedModel, load_model
from unispector.ops.files import atomic_write_json, atomic_write_text
from unispector.project.lineage import UNKNOWN, dvc_hash
from unispector.project.paths import EVALUATION, MODELS, SPLITS
from unispector.registry.decisions import RETIRED
from unispector.reporting.model import Column, Report, Section, Table, Text
from unispector.reporting.render import markdown
from unispector.tracking.registry import CHALLENGER, CHAMPION, KEY, PACKAGE, ModelRegistry, ModelVersion
from unispector.tracking.run import TrackingStore

LINEAGE, CARD = "lineage.json", "README.md"
TRAINING = "training"
"""Tag, equal for the models of all seeds of one training."""
REPLICATE = "replicate"
"""State of a version that is compared and not served."""

_AP50 = {"bbox.AP50": "bbox_AP50", "segm.AP50": "segm_AP50"}


@dataclass(frozen=True)
class Lineage:
    """The origin and figures of a registered model; `lineage.json` beside its weights."""

    trained_classes: tuple[str, ...]  # names of the categories of its training file
    data: str  # DVC's hash of the splits
    commit: str  # of the code that trained it, 40 hex digits
    dirty: str  # whether that code had changes, `true` or `false`; all three are `unknown` where nobody knows
    split_seed: int  # of the split it was trained on
    seeds: tuple[int, ...]
    training_run: str  # MLflow's id; empty where training was not recorded
    # `unseen_bbox_AP50`, `unseen_segm_AP50`, `seen_...`: percent, mean over the sets; `untrained_unseen_...`
    # and so on of the untrained model, on the same prompts and targets.
    metrics: dict[str, float]
    # For each set of unseen classes with defect-free images, the lowest score at which there are no more than
    # `evaluate.alarm_rate` false alarms an image, mean over the draws of prompts.
    thresholds: dict[str, float]

    @property
    def alarm_threshold(self) -> float | None:
        """Mean of `thresholds` over the sets; None without any."""
        return float(np.mean(list(self.thresholds.values()))) if self.thresholds else None


def read_lineage(directory: Path) -> Lineage:
    """The lineage in the folder of a registered model (`ModelRegistry.model_directory`).

    Raises:
        RegistryError: it is absent or damaged.
    """
    path = directory / LINEAGE
    try:
        lineage = TypeAdapter(Lineage).validate_json(path.read_bytes(), strict=True, extra="forbid")
        if not all(0 <= figure <= 100 for figure in lineage.metrics.values()):
            raise ValueError("a figure that is no percentage")
        return lineage
    except (OSError, ValueError) as error:
        raise RegistryError(f"{path}: not the lineage of a registered model; register it again") from error


def register_challenger(config: Config, root: Path, store: TrackingStore, key: str) -> ModelVersion:
    """Register the models of all `train.seeds` with their evaluation; the first seed's becomes challenger.

    The alias is set once the registered model was loaded and has predicted, in a process that has only its
    own copy of the code. The other seeds' versions have the state `replicate`: they say how much of a gain
    is luck. What of a training is registered already is not registered again; what is missing is done. A
    version that was challenger before retires.

    Args:
        key: the same for the same training.

    Returns:
        The version of the first seed.

    Raises:
        CheckpointError: a model is absent or damaged.
        DataError: `reports/evaluation.json` or a training file is absent or damaged.
        RegistryError: models, evaluation and data do not belong together, the registered model does not
            work, or the store cannot be used.
    """
    registry = ModelRegistry(store)
    first, *others = config.train.seeds
    # The first seed last, so that the newest version is the one that may be served.
    tags = {seed: {KEY: f"{key} seed {seed}", TRAINING: key, "state": REPLICATE} for seed in others}
    tags[first] = {KEY: key, TRAINING: key, "state": CHALLENGER}
    missing = [seed for seed, own in tags.items() if registry.with_tag(KEY, own[KEY]) is None]
    # All are read before one is registered: models that do not belong together leave nothing behind.
    for trained in [_trained(config, root, seed) for seed in missing]:
        _register(registry, trained, tags[trained.lineage.split_seed])
    version = registry.with_tag(KEY, key)
    if version is None:
        raise RegistryError(
            f"{registry.place}: version {key[:12]} was deleted while it was registered; try again"
        )
    if {CHALLENGER, CHAMPION} & {*version.aliases} or version.tags.get("state") != CHALLENGER:
        return version
    from unispector.registry.registered_model import try_registered_model

    try_registered_model(registry.mlflow_directory(version.number))
    before = registry.find(CHALLENGER)
    if before is not None:
        registry.tag(before.number, {"state": RETIRED})
    registry.set_alias(CHALLENGER, version.number)
    return registry.version(version.number)


def models_of_training(registry: ModelRegistry, version: ModelVersion) -> dict[int, ModelVersion]:
    """The versions of the training that a version is of, by split seed, that version first.

    A version from before all seeds were registered stands alone.

    Raises:
        RegistryError: the lineage of a version is absent or damaged.
    """
    training = version.tags.get(TRAINING)
    others = [each for each in registry.versions() if training and each.tags.get(TRAINING) == training]
    found: dict[int, ModelVersion] = {}
    for each in (version, *others):
        found.setdefault(read_lineage(registry.model_directory(each.number)).split_seed, each)
    return found


def save_package(directory: Path, lineage: Lineage, card: str, folder: Path) -> None:
    """Write a trained model as an MLflow model that needs nothing of this project.

    Args:
        lineage, card: go along as `lineage.json` and `README.md`.
        folder: to be made, for `ModelRegistry.register`.
    """
    from unispector.registry.registered_model import save_registered_model

    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / PACKAGE
        package.mkdir()
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(directory / name, package / name)
        atomic_write_json(package / LINEAGE, asdict(lineage))
        atomic_write_text(package / CARD, card)
        save_registered_model(folder, package, {"commit": lineage.commit, "data": lineage.data})


@dataclass(frozen=True)
class _Trained:
    """A model that the pipeline has trained and evaluated."""

    directory: Path
    fingerprint: str
    lineage: Lineage
    card: str


def _trained(config: Config, root: Path, seed: int) -> _Trained:
    directory = root / MODELS / MAIN_VARIANT / f"seed{seed}"
    saved = load_model(directory)
    evaluation = _own_rows(EvaluationReport.read(root / EVALUATION), saved, seed, root / EVALUATION)
    lineage = _lineage(config, root, saved, seed, evaluation)
    card = model_card(saved, lineage, evaluation.summaries(MAIN_VARIANT))
    return _Trained(directory, saved.fingerprint, lineage, card)


def _register(registry: ModelRegistry, trained: _Trained, tags: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        save_package(trained.directory, trained.lineage, trained.card, folder)
        known = version_tags(trained.lineage, trained.fingerprint)
        registry.register(folder, trained.lineage.training_run, {**known, **tags})


def version_tags(lineage: Lineage, fingerprint: str) -> dict[str, str]:
    """Return the registry tags of a new version."""
    threshold = lineage.alarm_threshold
    return {
        "state": CHALLENGER,
        "fingerprint": fingerprint,
        "training_run": lineage.training_run,
        "data.dvc": lineage.data,
        "git.commit": lineage.commit,
        "git.dirty": lineage.dirty,
        "split_seed": str(lineage.split_seed),
        "seeds": ", ".join(map(str, lineage.seeds)),
        **{name: f"{value:.4f}" for name, value in lineage.metrics.items()},
        **({} if threshold is None else {"alarm_threshold": f"{threshold:.6f}"}),
    }


def _own_rows(report: EvaluationReport, saved: SavedModel, seed: int, path: Path) -> EvaluationReport:
    """Return the report's rows of this model, and of the untrained one of its seed."""
    judged = [(model.variant, model.split_seed, model.fingerprint) for model in report.models]
    if (MAIN_VARIANT, seed, saved.fingerprint) not in judged:
        raise RegistryError(
            f"{path}: has no evaluation of {MAIN_VARIANT}/seed{seed} as it is now; run the stage evaluate"
        )
    kept = (MAIN_VARIANT, UNTRAINED)
    rows = tuple(row for row in report.rows if row.variant in kept and row.split_seed == seed)
    return EvaluationReport(rows, (), report.models, report.prompts_judged)


def _lineage(
    config: Config, root: Path, saved: SavedModel, seed: int, evaluation: EvaluationReport
) -> Lineage:
    training = SplitTree(root / SPLITS).training(seed)
    classes = Annotations.read(training).class_names
    known = saved.provenance.get("train_file_sha256")
    if known is not None and hashlib.sha256(training.read_bytes()).hexdigest() != known:
        raise RegistryError(f"{training}: has changed since the model was trained; run `dvc repro` first")
    untrained = _means(evaluation.summaries(UNTRAINED))
    return Lineage(
        trained_classes=tuple(classes),
        data=dvc_hash(root, SPLITS.as_posix()),
        commit=saved.provenance.get("git_commit", UNKNOWN),
        dirty=saved.provenance.get("git_dirty", UNKNOWN),
        split_seed=seed,
        seeds=tuple(config.train.seeds),
        training_run=saved.provenance.get("mlflow_run_id", ""),
        metrics={
            **dict(_means(evaluation.summaries(MAIN_VARIANT))),
            **{f"{UNTRAINED}_{name}": value for name, value in untrained},
        },
        thresholds=_thresholds(evaluation),
    )


def _means(summaries: tuple[Summary, ...]) -> Iterator[tuple[str, float]]:
    for subset in SUBSETS:
        for figure, name in _AP50.items():
            value = mean_over_sets(summaries, subset, figure)
            if value is not None:
                yield f"{subset}_{name}", value


def _thresholds(evaluation: EvaluationReport) -> dict[str, float]:
    by_set: dict[str, list[float]] = {}
    for row in evaluation.rows:
        if (row.variant, row.subset) == (MAIN_VARIANT, "unseen") and row.alarms is not None:
            by_set.setdefault(row.data_set, []).append(row.alarms.threshold)
    return {name: float(np.mean(values)) for name, values in by_set.items()}


def model_card(saved: SavedModel, lineage: Lineage, summaries: tuple[Summary, ...]) -> str:
    """The model card as Markdown, from what was measured."""
    model = saved.config.model
    backbones = " + ".join(backbone.name for backbone in model.backbones)
    facts = {
        "network": f"UniSpector at {model.image_size} x {model.image_size}, {backbones}",
        "prompts": "marked images of a defect (boxes or masks), or a prompt bank; no class is built in",
        "fingerprint": saved.fingerprint,
        "trained on": (
            f"split {lineage.split_seed}, data {lineage.data}, {len(lineage.trained_classes)} classes"
        ),
        "steps": str(saved.config.train.steps),
        "code": f"{lineage.commit}{' with changes' if lineage.dirty == 'true' else ''}",
        "training run": lineage.training_run or "not recorded",
        "licence": "Apache-2.0",
    }
    rows = []
    for summary in summaries:
        threshold = lineage.thresholds.get(summary.data_set) if summary.subset == "unseen" else None
        means = (summary.figures[figure].mean for figure in _AP50)
        shown = "" if threshold is None else threshold
        rows.append((summary.data_set, SUBSETS[summary.subset], *means, shown))
    reached = (
        "AP50 in percent, mean over the draws of prompts. The threshold is the lowest score with at most "
        f"{saved.config.evaluate.alarm_rate:g} false alarms per defect-free image."
    )
    limits = (
        "Scores rank detections and are no probabilities; they depend on the prompts. Look at images of "
        "your own before you choose a threshold."
    )
    figures = Table.of(("set", "classes"), ("boxes", "masks", Column("threshold", 3)), rows)
    card = Report(
        "UniSpector, a registered model",
        "Show it marked images of a defect; it finds that defect, boxed and masked, on other images.",
        sections=(
            Section("", (Table.of(("", ""), (), facts.items()),)),
            Section("What it reaches", (Text(reached), figures)),
            Section("Limits", (Text(limits),)),
            Section("Classes it was trained on", (Text(", ".join(lineage.trained_classes)),)),
        ),
    )
    return markdown(card)
