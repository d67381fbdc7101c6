"""A training step at the paper's size: ours against Mask2Former with the same backbone (Swin-T).

    uv pip install --target FOLDER transformers
    python benchmarks/train_step.py --peer FOLDER --rounds 3

`transformers` is no dependency of this project and is not installed with it; FOLDER is looked at after
everything that is installed. Both train from random weights on the same image of 720 x 720 pixels with
the same four instances, with 300 queries and masks judged at 12,544 points. Ours is the preset `paper`:
it has a fourth level of tokens, a feed-forward twice as wide in its encoder, 100 denoising queries and
prompts on top.

Every run is a process of its own, so that its peak memory is its own, and in every round both run in turn,
so that a busy machine slows them alike. A run makes one step to warm up and measures the next. Printed are
medians of wall seconds and of CPU seconds (all threads; the fairer figure where others use the machine too),
and the ratio's median and range over the rounds.

With a GPU the step runs there, in bfloat16, on the largest batch that fits; printed are also images a second,
the share of the GPU's peak rate, and the hours that the paper's 20,000 steps of 48 images would take on it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from unispector.config import load_config
from unispector.losses.criterion import Criterion, LossWeights
from unispector.modeling.build import build_model
from unispector.ops.boxes import xyxy_to_cxcywh
from unispector.ops.masks import boxes_to_masks
from unispector.structures import Batch, Targets, VisualPrompts
from unispector.training.optim import build_optimiser
from unispector.training.prompts import in_batch_prompts

SIDE, PADDED, INSTANCES, CLASSES = 720, 736, 4, 3
STEPS, BATCH = 20_000, 48  # of the paper's training
PEAK_TFLOPS = {"A100": 312.0, "H100": 989.0, "H200": 989.0, "L40S": 362.0}  # dense bfloat16, by the makers
Forward = Callable[[], Tensor]


def draw_batch(images: int, device: torch.device) -> Batch:
    """Noise with boxes of 20 to 200 pixels, the same for both systems."""
    generator = torch.Generator().manual_seed(0)
    targets, regions = [], []
    for _ in range(images):
        corner = torch.rand(INSTANCES, 2, generator=generator) * 500
        size = torch.rand(INSTANCES, 2, generator=generator) * 180 + 20
        boxes = torch.cat((corner, corner + size), dim=1)
        masks = boxes_to_masks(boxes, PADDED)
        targets.append(Targets(torch.arange(INSTANCES) % CLASSES, xyxy_to_cxcywh(boxes / PADDED), masks))
        regions.append(masks)
    pixels = torch.randint(0, 256, (images, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    prompts = VisualPrompts(
        roi_masks=torch.cat(regions),
        image_index=torch.arange(images).repeat_interleave(INSTANCES),
        labels=torch.cat([target.labels for target in targets]),
        spectra=normalize(torch.rand(images * INSTANCES, 256, generator=generator), dim=1),
    )
    whole = Batch(pixels, tuple(targets), prompts, tuple(range(images)), ((SIDE, SIDE),) * images)
    return whole.to(device)


def ours(batch: Batch, checkpointing: bool, bf16: bool) -> tuple[torch.nn.Module, Forward]:
    """The detector of the preset `paper`, and its loss on the batch."""
    config = load_config(preset="paper")
    device = batch.images.device
    model = build_model(config.model).to(device).train()
    if checkpointing:
        model.checkpoint_activations()
    weights = config.loss.model_dump(exclude={"scale", "margin", "points"})
    criterion = Criterion(
        LossWeights(**weights), scale=config.loss.scale, margin=config.loss.margin, points=config.loss.points
    )

    def forward() -> Tensor:
        prompts = in_batch_prompts(batch, max_images=4, cross_image=config.prompt.cross_image)
        columns = prompts.columns
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            result = model(batch.images, batch.prompts, prompts.mixing, columns.targets)
        return criterion(
            result.output, columns.targets, result.embeddings, columns.prompt_labels, result.level_hw
        ).total

    return model, forward


def mask2former(batch: Batch, checkpointing: bool, bf16: bool) -> tuple[torch.nn.Module, Forward]:
    """Mask2Former of `transformers` with as many queries and points, and its loss on the batch."""
    try:
        from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
    except ImportError as error:
        sys.exit(f"no usable transformers ({error}); see --help for how to get it")
    backbone = SwinConfig(
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        drop_path_rate=0.3,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone, num_queries=300, train_num_points=12544, num_labels=CLASSES
    )
    device = batch.images.device
    model = Mask2FormerForUniversalSegmentation(config).to(device).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    masks = [target.masks[:, :SIDE, :SIDE].float() for target in batch.targets]
    labels = [target.labels for target in batch.targets]

    def forward() -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            pixels = batch.images.float() / 127.5 - 1
            loss: Tensor = model(pixel_values=pixels, mask_labels=masks, class_labels=labels).loss
        return loss

    return model, forward


SYSTEMS = {"ours": ours, "mask2former": mask2former}


def clock() -> tuple[float, float]:
    """Wall and CPU seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def peak_mib() -> float:
    """Peak memory so far: the GPU's where there is one, else this process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(options: argparse.Namespace) -> dict[str, float]:
    """One process: warm up, then time a step."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = draw_batch(options.images, device)
    model, forward = SYSTEMS[options.run](batch, options.checkpointing, options.bf16)
    optimiser = build_optimiser(model, learning_rate=1e-4, backbone_rate=0.1, weight_decay=0.05)
    flops = FlopCounterMode(display=False)
    with flops:
        forward().backward()
    optimiser.zero_grad(set_to_none=True)
    marks = [clock()]
    loss = forward()
    marks.append(clock())
    loss.backward()
    marks.append(clock())
    peak = peak_mib()
    optimiser.step()  # the first one, which also makes its state
    optimiser.step()
    began = clock()
    optimiser.step()
    marks.append(clock())
    seconds = {}
    for name, start, end in zip(
        ("forward", "backward", "optimiser"), (marks[0], marks[1], began), marks[1:], strict=True
    ):
        seconds |= {f"{name} wall": end[0] - start[0], f"{name} CPU": end[1] - start[1]}
    for kind in ("wall", "CPU"):
        seconds[f"step {kind}"] = seconds[f"forward {kind}"] + seconds[f"backward {kind}"]
    return {**seconds, "peak MiB": peak, "TFLOP": flops.get_total_flops() / 1e12}


def started(name: str, images: int, options: argparse.Namespace) -> dict[str, float] | None:
    """What a process of its own measures; None where the GPU's memory is too small."""
    arguments = ["--run", name, "--images", str(images), "--threads", str(options.threads)]
    arguments += ["--peer", str(options.peer)] if options.peer else []
    arguments += ["--checkpointing"] * options.checkpointing + ["--bf16"] * options.bf16
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False
    )
    if "OutOfMemoryError" in done.stderr:
        return None
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def largest_batch(name: str, options: argparse.Namespace) -> int:
    """The largest power of two of images that fits."""
    images = 1
    while images < BATCH and started(name, 2 * images, options):
        images *= 2
    return images


def print_gpu(name: str, images: int, measured: dict[str, float]) -> None:
    """Throughput, use of the GPU, and the length of the paper's training."""
    rate = images / (measured["step wall"] + measured["optimiser wall"])
    device = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAK_TFLOPS.items() if key in device), None)
    used = f"{measured['TFLOP'] / measured['step wall'] / peak:.0%} of peak" if peak else "peak rate unknown"
    print(
        f"{name} on {device}: {images} images a step, {rate:.1f} images/s, {used}, "
        f"{STEPS * BATCH / rate / 3600:.1f} h for {STEPS} steps of {BATCH} on one"
    )


def main() -> None:
    """Measure all rounds and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="folder that transformers was installed into")
    parser.add_argument("--only", choices=SYSTEMS, help="measure one system alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, help="images a step (default: 1; on a GPU what fits)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", action="store_true", help="autocast; always on a GPU")
    parser.add_argument("--checkpointing", action="store_true", help="compute activations twice")
    parser.add_argument("--run", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        sys.path.append(str(options.peer))
    if options.run:
        print(json.dumps(run(options)))
        return
    gpu = torch.cuda.is_available()
    options.bf16 = options.bf16 or gpu
    names = [options.only] if options.only else list(SYSTEMS)
    images = {name: options.images or (largest_batch(name, options) if gpu else 1) for name in names}
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        found = {name: started(name, images[name], options) for name in names}
        rounds.append({name: measured for name, measured in found.items() if measured})
        for name, measured in rounds[-1].items():
            figures = ", ".join(f"{key} {value:.2f}" for key, value in measured.items())
            print(f"round {number + 1} {name}: {figures}", flush=True)
    for name in names:
        middle = {key: statistics.median(r[name][key] for r in rounds) for key in rounds[0][name]}
        print(
            f"{name}, {images[name]} images, {options.threads} threads: forward and backward "
            f"{middle['step wall']:.2f} s ({middle['step CPU']:.2f} CPU s), optimiser "
            f"{middle['optimiser wall']:.2f} s, peak {middle['peak MiB']:.0f} MiB"
        )
        if gpu:
            print_gpu(name, images[name], middle)
    if len(names) == 2:
        for key in ("step wall", "step CPU", "peak MiB"):
            ratios = [
                r["ours"][key] / images["ours"] / (r["mask2former"][key] / images["mask2former"])
                for r in rounds
            ]
            print(
                f"ours / mask2former an image, {key}: "
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
