"""Stage `train`, the driver's side: which models the benchmark needs, and each one's tracked job."""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from unispector.config import Config
from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import SplitTree
from unispector.errors import ConfigError, DataError
from unispector.ops.files import atomic_write_text, sha256_of_tree
from unispector.pipeline.fingerprint import read_fingerprints
from unispector.project.lineage import git_state
from unispector.project.paths import CHECKPOINTS, MAPS, MODELS, SPLITS, TRAINING_SUMMARY
from unispector.training.job import CHECKPOINT, MAPS_USED, TrainingJob, Variant
from unispector.training.jobs import TrainingReport
from unispector.training.runs import RUN_FILE

logger = logging.getLogger(__name__)

_CODE = ("config", "structures.py", "data", "losses", "modeling", "ops", "training")
_WITHOUT_EFFECT = {"seeds", "ablation", "ablation_seeds", "side_by_side", "retries", "timeout_hours"}


def plan(config: Config, root: Path = Path()) -> tuple[TrainingJob, ...]:
    """All trainings of the benchmark, long ones first.

    One `unispector` and one `untrained` model for each of `train.seeds`, and one of each row of
    `train.ablation` for each of `train.ablation_seeds`.

    Raises:
        ConfigError: a seed is no split seed, or an ablation seed is not trained.
        DataError: the stage `fingerprint` has not run.
    """
    root = root.resolve()
    seeds, ablation = config.train.seeds, config.train.ablation_seeds
    if strangers := set(seeds) - set(config.split.seeds):
        raise ConfigError(
            f"train.seeds: {min(strangers)} is not among split.seeds {list(config.split.seeds)}"
        )
    if strangers := set(ablation) - set(seeds):
        raise ConfigError(f"train.ablation_seeds: {min(strangers)} is not among train.seeds {list(seeds)}")
    fingerprints, code = read_fingerprints(root), _code_hash()
    pairs: list[tuple[Variant, int]] = [("unispector", seed) for seed in seeds]
    pairs += [(row, seed) for row in config.train.ablation for seed in ablation]
    pairs += [("untrained", seed) for seed in seeds]
    return tuple(_job(config, variant, seed, fingerprints[seed], code, root) for variant, seed in pairs)


def finish(jobs: Sequence[TrainingJob], reports: Sequence[TrainingReport], root: Path = Path()) -> None:
    """Write `reports/training.json` and drop the checkpoints, now that every model is saved.

    Of what is kept of backbones only that stays which one of these trainings used, so that another recipe
    may use it too; all of it if none did.

    What MLflow has not got yet stays; see `send_left`.
    """
    models = {job.name: asdict(report) for job, report in zip(jobs, reports, strict=True)}
    atomic_write_text(root / TRAINING_SUMMARY, json.dumps(models, indent=2) + "\n")
    used = {file.read_text() for job in jobs if (file := job.work_directory / MAPS_USED).exists()}
    for folder in (root / MAPS).glob("*") if used else ():
        if folder.name not in used:
            shutil.rmtree(folder)
    for job in jobs:
        if (job.work_directory / RUN_FILE).exists():
            (job.work_directory / CHECKPOINT).unlink(missing_ok=True)
        else:
            shutil.rmtree(job.work_directory, ignore_errors=True)


def _job(config: Config, variant: Variant, seed: int, fingerprint: str, code: str, root: Path) -> TrainingJob:
    own, train_file = config.variant(variant), SplitTree(root / SPLITS).training(seed)
    if own.model.prompt_encoder == "classes":
        classes = Annotations.read(train_file).class_names
        own = own.model_copy(update={"model": own.model.model_copy(update={"classes": classes})})
    parameters = own.model_dump_json(
        include={"model", "loss", "augment", "prompt", "train"},
        exclude={"prompt": {"test_roi"}, "train": _WITHOUT_EFFECT},
    )
    start = root / own.train.start if own.train.start else None
    try:
        start_hash = sha256_of_tree([start]) if start else ""
    except DataError as error:
        raise ConfigError(f"train.start: {error}") from error
    named = [root / network.weights_file for network in own.model.backbones if network.weights_file]
    weights_hash = sha256_of_tree(file for file in named if file.exists())
    parts = [variant, str(seed), parameters, fingerprint, start_hash, weights_hash, code]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return TrainingJob(
        variant=variant,
        seed=seed,
        config=own,
        key=key,
        train_file=train_file,
        root=root,
        image_root=root / config.data.root,
        start=start,
        model_directory=root / MODELS / variant / f"seed{seed}",
        map_directory=root / MAPS,
        work_directory=root / CHECKPOINTS / f"{variant}-seed{seed}-{key[:12]}",
        provenance={
            "data_sha256": fingerprint,
            "train_file_sha256": hashlib.sha256(train_file.read_bytes()).hexdigest(),
            **{f"git_{key}": value for key, value in git_state(root).items()},
        },
    )


def _code_hash() -> str:
    """Hash of the code that decides what a model becomes."""
    package = Path(__file__).parents[1]
    parts = [package / name for name in _CODE]
    return sha256_of_tree(
        file for part in parts for file in ([part] if part.is_file() else part.rglob("*.py"))
    )
