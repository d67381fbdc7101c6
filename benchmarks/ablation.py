"""What SSPE, CPE and PQS add on classes held out from training, with and without the similarity prior.

    unispector params use real      # or your own recipe: everything but the row is read from params.yaml
    dvc repro split                 # in a project that has the sets
    python benchmarks/ablation.py --out ablation --seeds 42 82 777

Trains every row (base, + SSPE, + CPE, + PQS) with every training seed, each in a process of its own, and
judges it on the classes that the split holds out: one class at a time, five prompt images marked by boxes,
`--targets` images, the same draw for all models. A model that is measured is not trained again, so that a
run that was killed goes on.

Printed are AP50 of boxes and masks, the mean over seeds, and what a row adds to the one above with the 95 %
t interval over the seeds. Printed besides, for why a part helps or not: how often the nearest embedding of
another prompt image is of the same class, the mean cosine of embeddings of a class and of different ones,
and the share of target boxes in whose middle half a query starts.
"""

import argparse
import hashlib
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn.functional import normalize
from tqdm import tqdm

from unispector.benchmark.measure import measure_detectors
from unispector.benchmark.one_class import MarkedSet, OneClassSettings, draw_classes
from unispector.config import Config, load_config
from unispector.config.training import ABLATION
from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import SplitTree
from unispector.inference.detector import UniSpector
from unispector.modeling.saved_model import load_model
from unispector.ops.files import atomic_write_json
from unispector.project.paths import SPLITS, annotation_file
from unispector.structures import QuerySelection
from unispector.systems.own import PromptedDetector
from unispector.training.job import TrainingJob, Variant, train
from unispector.training.ray_trainer import WorkerGroup

ROWS: tuple[Variant, ...] = (*ABLATION, "unispector")
FIGURES = ("boxes", "masks", "nearest", "within", "between", "started")


def recipe(row: str, prior: bool, steps: int) -> Config:
    """The project's parameters with one row's parts, with or without the prior, and so many steps."""
    config = load_config()
    likeness = config.model.similarity_prior.model_copy(update={"enabled": prior})
    model = config.model.model_copy(update={"similarity_prior": likeness})
    recipe = config.train.model_copy(update={"steps": steps, "start": None})
    return config.model_copy(update={"model": model, "train": recipe}).variant(row)


def job_of(config: Config, row: Variant, seed: int, split_seed: int, folder: Path) -> TrainingJob:
    """One row's training on the split's seen classes, in `folder`."""
    file = SplitTree(SPLITS).training(split_seed).resolve()
    data = hashlib.sha256(file.read_bytes()).hexdigest()
    return TrainingJob(
        variant=row,
        seed=seed,
        config=config,
        key=hashlib.sha256(f"{config.model_dump_json()}{seed}{data}".encode()).hexdigest(),
        train_file=file,
        root=Path().resolve(),
        image_root=Path(config.data.root).resolve(),
        start=None,
        model_directory=folder / "model",
        work_directory=folder,
        map_directory=folder / "maps",
        provenance={"data_sha256": data},
    )


def held_out(config: Config, split_seed: int) -> Iterator[MarkedSet]:
    """The unseen classes of every set, whole."""
    report = json.loads(SplitTree(SPLITS).report.read_text())
    for member in report["sets"]:
        if member["split_seed"] in (split_seed, None) and member["unseen"]:
            annotations = Annotations.read(annotation_file(member["name"]))
            ids = {record.id for record in annotations.categories if record.name in member["unseen"]}
            own = annotations.keep_categories(ids)
            shown = {instance.image_id for instance in own.instances}
            images = config.data.root / config.data.sets[member["name"]].path
            yield MarkedSet(member["name"], own.keep_images(shown), images)


def embeddings_alike(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """How well embeddings [N, D] of single images tell their classes [N]."""
    directions = normalize(embeddings, dim=1)
    cosine, same = directions @ directions.T, labels[:, None] == labels
    apart = ~torch.eye(len(labels), dtype=torch.bool)
    nearest = cosine.masked_fill(~apart, -torch.inf).argmax(1)
    return {
        "nearest": 100 * (labels[nearest] == labels).float().mean().item(),
        "within": cosine[same & apart].mean().item(),
        "between": cosine[~same].mean().item(),
    }


def started_share(reference: Tensor, boxes: Tensor) -> list[bool]:
    """Return whether the middle half of each box [N, 4] (cxcywh, 0..1) has a query of [Q, 4] box logits."""
    offset = (reference.sigmoid()[:, None, :2] - boxes[:, :2]).abs()
    inside: list[bool] = (offset <= boxes[:, 2:] / 4).all(-1).any(0).tolist()
    return inside


def measured(folder: Path, config: Config, split_seed: int, settings: OneClassSettings) -> dict[str, float]:
    """All figures of a trained model."""
    saved = load_model(folder, "cpu")
    detector, selections = UniSpector(saved), list[QuerySelection]()
    select: nn.Module = saved.model.query_selection
    boxes, masks, embeddings, started = list[float](), list[float](), list[Tensor](), list[bool]()
    labels, classes = list[int](), itertools.count()
    for marked in held_out(config, split_seed):
        report = measure_detectors({"model": PromptedDetector(detector, "box")}, marked, settings)
        boxes += [row.box_ap50 for row in report.detectors[0].rows]
        masks += [row.mask_ap50 for row in report.detectors[0].rows if row.mask_ap50 is not None]
        for draw in draw_classes(marked, settings)[0]:
            label = next(classes)
            bank = detector.encode_annotations(draw.prompts, marked.images)
            for image in draw.prompts.images:
                own = draw.prompts.keep_images({image.id})
                embeddings.append(detector.encode_annotations(own, marked.images).embeddings)
                labels.append(label)
            paths = [marked.images / image.file_name for image in draw.targets.images]
            selections.clear()
            with select.register_forward_hook(lambda _module, _inputs, result: selections.append(result)):
                list(detector.stream(paths, bank, batch_size=1))
            for image, selection in zip(draw.targets.images, selections, strict=True):
                own = draw.targets.keep_images({image.id})
                sides = torch.tensor([image.width, image.height] * 2)
                x_y_w_h = torch.tensor([instance.bbox for instance in own.instances]) / sides
                truth = torch.cat((x_y_w_h[:, :2] + x_y_w_h[:, 2:] / 2, x_y_w_h[:, 2:]), dim=1)
                started += started_share(selection.reference[0], truth)
    return {
        "boxes": statistics.mean(boxes),
        "masks": statistics.mean(masks),
        "classes": len(boxes),
        **embeddings_alike(torch.cat(embeddings), torch.tensor(labels)),
        "started": 100 * statistics.mean(started),
    }


def run(options: argparse.Namespace) -> None:
    """One process: train a row with a seed, go on from its checkpoint if there is one, and measure it."""
    prior, name, seed = options.run.split(":")
    row = next(row for row in ROWS if row == name)
    folder = options.out / options.run.replace(":", "-")
    steps = options.steps_with_prior if prior == "on" else options.steps
    config = recipe(row, prior == "on", steps)
    job = job_of(config, row, int(seed), options.split_seed, folder)
    folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=steps, desc=options.run, unit="step", mininterval=10)

    def advance(step: int, _figures: dict[str, float]) -> None:
        bar.update(step - bar.n)

    train(job, "", WorkerGroup(), advance)
    settings = OneClassSettings(prompt_seeds=(1,), targets=options.targets)
    figures = measured(job.model_directory, config, options.split_seed, settings)
    atomic_write_json(folder / "figures.json", figures)


def started(name: str, options: argparse.Namespace) -> dict[str, float]:
    """The figures of a row and seed, by a process of its own where they are not there yet."""
    file: Path = options.out / name.replace(":", "-") / "figures.json"
    if not file.exists():
        values = {
            key: value for key, value in vars(options).items() if key not in ("run", "seeds", "at_once")
        }
        pairs = ((f"--{key.replace('_', '-')}", str(value)) for key, value in values.items())
        command = [sys.executable, __file__, "--run", name, *itertools.chain.from_iterable(pairs)]
        if subprocess.run(command, check=False).returncode:  # noqa: S603
            raise SystemExit(f"{name} failed, see above; run again to go on")
    found: dict[str, float] = json.loads(file.read_text())
    return found


def interval(values: list[float]) -> str:
    """Mean and half width of the 95 % t interval."""
    if len(values) < 2:
        return f"{statistics.mean(values):+.1f}"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):+.1f} ± {half:.1f}"


def print_table(found: dict[str, dict[str, float]], seeds: list[int]) -> None:
    """All figures, and what each row adds to the one above."""
    for prior in ("off", "on"):
        print(f"\nsimilarity prior {prior}")
        for above, row in zip((None, *ROWS), ROWS, strict=False):
            own = [found[f"{prior}:{row}:{seed}"] for seed in seeds]
            line = ", ".join(
                f"{key} {statistics.mean(figures[key] for figures in own):.2f}" for key in FIGURES
            )
            single = ", ".join(f"{figures['boxes']:.1f} / {figures['masks']:.1f}" for figures in own)
            print(f"{row}: {single}; mean: {line}")
            if above is not None:
                base = [found[f"{prior}:{above}:{seed}"] for seed in seeds]
                gains = {
                    key: [a[key] - b[key] for a, b in zip(own, base, strict=True)]
                    for key in ("boxes", "masks")
                }
                print("  adds " + ", ".join(f"{key} {interval(gain)}" for key, gain in gains.items()))


def main() -> None:
    """Train and measure what is missing, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of models and figures")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 82, 777], help="training seeds")
    parser.add_argument("--split-seed", type=int, default=42)
    parser.add_argument("--steps", type=int, default=300, help="without the prior")
    parser.add_argument("--steps-with-prior", type=int, default=100)
    parser.add_argument("--targets", type=int, default=16, help="images a class")
    parser.add_argument("--at-once", type=int, default=2, help="trainings side by side")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.resolve()
    if options.run:
        run(options)
        return
    names = [":".join(map(str, job)) for job in itertools.product(("on", "off"), ROWS, options.seeds)]
    with ThreadPoolExecutor(options.at_once) as pool:
        found = dict(zip(names, pool.map(lambda name: started(name, options), names), strict=True))
    print_table(found, options.seeds)


if __name__ == "__main__":
    main()
