"""Stage `train`, one model: what a training process does from the annotation file to the saved model."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from unispector.config import Config, TrainConfig
from unispector.config.training import AblationRow, RivalName
from unispector.data.coco import Annotations
from unispector.data.dataset import InstanceDataset
from unispector.data.episodes import EpisodeSampler, SampleKey, episode_images
from unispector.data.loading import training_batches
from unispector.data.map_cache import MapCache
from unispector.data.transforms import Augmentation
from unispector.errors import CheckpointError, TrainingError
from unispector.inference.geometry import Geometry
from unispector.losses.criterion import Criterion, LossWeights
from unispector.modeling.backbones.backbone import Backbone
from unispector.modeling.build import build_model
from unispector.modeling.saved_model import load_model, save_model
from unispector.modeling.starting_weights import FILES, load_starting_weights, widen
from unispector.modeling.unispector import UniSpectorModel
from unispector.ops.files import atomic_write_text, sha256_of_tree
from unispector.structures import Batch
from unispector.training.checkpoint import Checkpointer
from unispector.training.images import FOLDER, TrainingImages
from unispector.training.loop import Callbacks, NonFiniteError, Recipe, fit
from unispector.training.maps import with_maps
from unispector.training.monitor import SeenPrompts
from unispector.training.optim import build_optimiser, linear_schedule
from unispector.training.ray_trainer import WorkerGroup

logger = logging.getLogger(__name__)

Variant = Literal["unispector", "untrained"] | AblationRow | RivalName
Report = Callable[[int, dict[str, float]], None]

CHECKPOINT = "checkpoint.safetensors"
"""Of a job's work directory."""

MAPS_USED = "maps.txt"
"""Of a job's work directory: name of the folder of its `map_directory` that the training uses, if any."""

CACHED = "speed/views_cached"
"""Figure: share of all views of all training images whose maps are kept."""

# What decides the maps of an augmented image beside parameters, data and weights.
_MAPS_CODE = (
    "data/dataset.py",
    "data/samples.py",
    "data/transforms.py",
    "ops/files.py",
    "modeling/backbones/*.py",
)


@dataclass(frozen=True)
class TrainingJob:
    """Everything one training depends on, and where it puts what it makes."""

    variant: Variant  # `unispector`, a row of its ablation, or `untrained` (the same start, no step)
    seed: int  # split seed; also of the start and of all that is random in training
    config: Config
    key: str  # hash of parameters, data and code; a checkpoint goes on only under its own key
    train_file: Path
    root: Path  # folder that files of weights in `config` are relative to
    image_root: Path
    # Directory of the model whose weights training starts from, or a file of weights, or None.
    start: Path | None
    model_directory: Path
    work_directory: Path  # where checkpoints and progress lie until the stage has ended
    map_directory: Path  # where what frozen backbones make of images is kept, in a folder per kind of it
    provenance: dict[str, str]

    @property
    def name(self) -> str:
        """Variant and seed, for people."""
        return f"{self.variant}-seed{self.seed}"


def train(job: TrainingJob, run_id: str, group: WorkerGroup, report: Report) -> str:
    """Train one model, going on from the job's checkpoint where there is one, and save it.

    Args:
        report: see `training.loop.Callbacks`.

    Returns:
        Fingerprint of the saved model; empty on all but the first process.

    Raises:
        DataError: the annotations or an image cannot be read.
        TrainingError: a loss is not finite.
        CheckpointError: the checkpoint is damaged, or cannot be written.
    """
    config, recipe = job.config, job.config.train
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    device = torch.device("cuda", group.local_rank) if torch.cuda.is_available() else torch.device("cpu")
    model = initial_model(job).to(device).train()
    annotations = Annotations.read(job.train_file)
    # Before a checkpoint is restored: maps go by what is the same at every start.
    cache = _map_cache(job, model.backbone, len(annotations.images)) if recipe.views else None
    if recipe.activation_checkpointing:
        model.checkpoint_activations()
    optimiser = _optimiser(model, recipe)
    checkpointer = Checkpointer(job.work_directory / CHECKPOINT, job.key)
    start = checkpointer.restore(model, optimiser)
    schedule = linear_schedule(optimiser, steps=recipe.steps, warmup=recipe.warmup_steps, start=start)

    def save(step: int) -> None:
        if group.rank == 0:
            checkpointer.save(step, model, optimiser)

    batches, keys = _batches(job, annotations, group, start)
    if cache is not None:
        batches = with_maps(batches, keys, cache, model.backbone, start)
    with _images_named(annotations, checkpointer):
        fit(
            _parallel(model, group),
            _criterion(config),
            batches,
            optimiser,
            schedule,
            _recipe(config, job.seed, device),
            Callbacks(_telling(report, cache), save, _drawing(job, annotations, model, group)),
            start=start,
        )
    save(recipe.steps)
    return save_job(job, model, run_id) if group.rank == 0 else ""


def initial_model(job: TrainingJob) -> UniSpectorModel:
    """The detector as training starts: `job.start`'s weights, over backbone weights and a draw.

    Raises:
        CheckpointError: `job.start` is neither a model nor a file of weights, or one of other sizes.
    """
    config, saved = job.config, None
    if job.start is not None and job.start.suffix not in FILES:
        saved = load_model(job.start)
        if not config.model.extends(saved.config.model):
            raise CheckpointError(
                f"train.start: {config.train.start} was made with another `model` section; use the same, or "
                "one with further backbones after its own"
            )
        if config.model == saved.config.model:
            return saved.model
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        model = build_model(config.model.below(job.root))
    if saved is not None:
        widen(model, saved.model)
    elif job.start is not None:
        report = load_starting_weights(model, job.start)
        logger.info("%s: %s", job.name, report.line(job.start.name))
    return model


def save_job(job: TrainingJob, model: UniSpectorModel, run_id: str) -> str:
    """Save the job's model with what produced it, and no half one beside it; returns its fingerprint."""
    for half in job.model_directory.parent.glob(f".{job.model_directory.name}.*"):
        shutil.rmtree(half)
    provenance = {
        "variant": job.variant,
        "split_seed": str(job.seed),
        "job": job.key,
        **({"mlflow_run_id": run_id} if run_id else {}),
        **job.provenance,
    }
    return save_model(job.model_directory, model, job.config, provenance)


def _drawing(
    job: TrainingJob, annotations: Annotations, model: UniSpectorModel, group: WorkerGroup
) -> Callable[[int, SeenPrompts], None]:
    """Return what draws a few images of a step; a training never fails for them."""
    pictures = TrainingImages(annotations, job.image_root, job.config, job.work_directory / FOLDER)

    def look(step: int, prompts: SeenPrompts) -> None:
        if group.rank == 0:
            try:
                pictures.draw(step, model, prompts)
            except OSError as error:
                logger.warning("%s: step %d is not drawn (%s); training continues", job.name, step, error)

    return look


@contextmanager
def _images_named(annotations: Annotations, checkpointer: Checkpointer) -> Iterator[None]:
    """Name the image files of a loss that is not finite, and the checkpoint to continue from."""
    try:
        yield
    except NonFiniteError as error:
        files = {image.id: image.file_name for image in annotations.images}
        last = checkpointer.last_step()
        kept = "there is no checkpoint yet" if last is None else f"step {last} is kept in {checkpointer.path}"
        raise TrainingError(
            f"step {error.step}: {error.term} is not finite, images "
            f"{', '.join(files[image_id] for image_id in error.image_ids)}; {kept}; "
            "lower train.learning_rate, or check these images and their annotations"
        ) from error


def _dataset(job: TrainingJob, annotations: Annotations) -> InstanceDataset:
    config = job.config
    return InstanceDataset(
        annotations,
        job.image_root,
        frame=Geometry.of(config.model),
        augment=Augmentation(**dict(config.augment)),
        box_share=config.prompt.box_share,
        box_slack=config.prompt.box_slack,
        seed=job.seed,
    )


def _sampler(job: TrainingJob, annotations: Annotations, group: WorkerGroup) -> EpisodeSampler:
    """Draws this process's slices of the steps."""
    config, images = job.config, episode_images(annotations)
    if config.train.defect_free and group.rank == 0 and not any(image.sound for image in images):
        logger.warning(
            "%s: no image of %s is without a defect, so batches go without one too; add some to a set, "
            "or set train.defect_free to 0",
            job.name,
            job.train_file.name,
        )
    return EpisodeSampler(
        images,
        batch_size=config.train.batch_size,
        images_per_class=config.train.images_per_class,
        defect_free=config.train.defect_free,
        views=config.train.views,
        seed=job.seed,
        rank=group.rank,
        world=group.size,
    )


def _batches(
    job: TrainingJob, annotations: Annotations, group: WorkerGroup, start: int
) -> tuple[Iterator[Batch], Iterator[list[SampleKey]]]:
    """This process's slices of the batches from step `start` on, and what their images are."""
    dataset, sampler, recipe = _dataset(job, annotations), _sampler(job, annotations, group), job.config.train
    batches = training_batches(dataset, sampler, start, recipe.steps, recipe.workers)
    return batches, (sampler.batch_at(step) for step in range(start, recipe.steps))


def _map_cache(job: TrainingJob, backbone: Backbone, images: int) -> MapCache:
    """The cache of all that the maps of this training's views depend on."""
    config, package = job.config, Path(__file__).parents[1]
    code = sorted(file for pattern in _MAPS_CODE for file in package.glob(pattern))
    parts = [
        job.provenance["data_sha256"],
        str(config.model.image_size),
        config.augment.model_dump_json(),
        str(job.seed),
        *(network.model_dump_json() for network in config.model.backbones),
        _frozen_hash(backbone),
        sha256_of_tree(code),
    ]
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    cache = MapCache(job.map_directory / name, images, config.train.views, backbone.map_shapes)
    atomic_write_text(job.work_directory / MAPS_USED, name)
    logger.info(
        "%s: %d views of %d images, of %.1f GiB, are kept in %s; %.0f %% are there",
        job.name,
        config.train.views,
        images,
        cache.size / 2**30,
        job.map_directory / name,
        100 * cache.share(),
    )
    return cache


def _frozen_hash(backbone: nn.Module) -> str:
    """Hash of the weights that no training changes, and of all buffers."""
    frozen = [(name, value) for name, value in backbone.named_parameters() if not value.requires_grad]
    digest = hashlib.sha256()
    for name, value in sorted([*frozen, *backbone.named_buffers()], key=lambda pair: pair[0]):
        digest.update(f"{name}\0".encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _telling(report: Report, cache: MapCache | None) -> Report:
    """`report`, and with each the share of views that are kept."""
    return report if cache is None else lambda step, figures: report(step, {**figures, CACHED: cache.share()})


def _optimiser(model: nn.Module, recipe: TrainConfig) -> AdamW:
    return build_optimiser(
        model,
        learning_rate=recipe.learning_rate,
        backbone_rate=recipe.backbone_rate,
        weight_decay=recipe.weight_decay,
    )


def _criterion(config: Config) -> Criterion:
    weights = config.loss.model_dump(exclude={"scale", "margin", "points"})
    return Criterion(
        LossWeights(**weights), scale=config.loss.scale, margin=config.loss.margin, points=config.loss.points
    )


def _recipe(config: Config, seed: int, device: torch.device) -> Recipe:
    train = config.train
    return Recipe(
        steps=train.steps,
        seed=seed,
        max_classes=config.prompt.max_classes,
        max_images=config.prompt.max_images,
        cross_image=config.prompt.cross_image,
        clip_norm=train.clip_norm,
        bf16=train.precision == "bf16" and _gains_from_bf16(device),
        log_every=train.log_every,
        save_every=train.checkpoint_every,
    )


def _gains_from_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies in bfloat16 itself; elsewhere it would only lose accuracy."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _parallel(model: nn.Module, group: WorkerGroup) -> nn.Module:
    """The model itself when this process trains alone."""
    if group.size == 1:
        return model
    return DistributedDataParallel(model, find_unused_parameters=True)
