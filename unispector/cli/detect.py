"""`unispector detect`: find the prompted defects on images."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unispector.cli.parts import Bank, BitDepth, Device, MinScore, Model, TileOption, option_order, tile_side
from unispector.errors import DataError
from unispector.names import shown

if TYPE_CHECKING:
    from unispector.inference.detect import DetectionReport
    from unispector.inference.detector import Prompt, UniSpector
    from unispector.inference.prompt_bank import PromptBank

DETECT_HELP = """Find the prompted defects on images.

\b
One marked image:
  unispector detect photos/ --prompt bad.png --box 120,80,40,24 --out found
Two defects, one of them marked twice:
  unispector detect photos/ --out found \\
    --prompt a.png --box 120,80,40,24 --label crack \\
    --prompt a.png --box 300,12,25,60 --label crack \\
    --prompt b.png --box 64,64,20,20  --label hole
A defect, and a look-alike that is none (a false alarm of an earlier run):
  unispector detect photos/ --out found --prompt a.png --box 120,80,40,24 --not c.png --box 9,14,30,30
A mask image, a pattern, every tenth frame of a video, a camera:
  unispector detect "line3/**/*.png" --prompt bad.png --mask bad_mask.png --out found
  unispector detect clip.mp4 --bank bank.safetensors --frame-step 10 --out found
  unispector detect camera:0 --bank data/prompts --frames 100 --out found
Holes of 30 pixels on images of 100 megapixels, marked on a small part of one:
  unispector detect scans/ --out found --prompt part.png --box 64,64,30,30 --tile 448

Writes one drawn image per target to OUT/pictures, and OUT/detections.json: a COCO file whose
annotations carry boxes, masks and scores. A finding counts from 0.05 on, of a calibrated bank from its
class's threshold on (`unispector prompts calibrate`); --min-score decides otherwise.
Images that an earlier run drew into OUT are removed. Subfolders of a folder are not searched.
An image that cannot be read is named and skipped; the exit code is 1 then. docs/detect.md has more."""


TargetsArgument = Annotated[
    list[str],
    typer.Argument(
        help='Images, folders of images, patterns ("line3/*.png"), videos, camera:0.', metavar="TARGET"
    ),
]
Out = Annotated[Path, typer.Option(file_okay=False, help="Folder to write detections.json and pictures/ to.")]
Prompts = Annotated[list[Path] | None, typer.Option(help="Image that shows the defect; repeat for more.")]
Rejected = Annotated[
    list[Path] | None,
    typer.Option("--not", help="Image that shows what is not the defect; findings like it score lower."),
]
Boxes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="X,Y,W,H",
        help="Left, top, width, height in pixels; the n-th belongs to the n-th --prompt or --not.",
    ),
]
Masks = Annotated[
    list[Path] | None,
    typer.Option(help="Instead of --box: image that marks one defect, not black and not transparent."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(help="Name of the defect: one for all prompts, or one for each --prompt and --not."),
]
Frames = Annotated[int | None, typer.Option(min=1, help="Stop a video or camera after so many images.")]


def detect(
    context: typer.Context,
    targets: TargetsArgument,
    out: Out,
    model: Model = "fast",
    prompt: Prompts = None,
    rejected: Rejected = None,
    box: Boxes = None,
    mask: Masks = None,
    label: Labels = None,
    bank: Bank = None,
    min_score: MinScore = None,
    tile: TileOption = "auto",
    bit_depth: BitDepth = None,
    frame_step: Annotated[int, typer.Option(min=1, help="Look at every n-th frame of a video.")] = 1,
    frames: Frames = None,
    device: Device = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=256, help="Images looked at together; fewer of large ones.")
    ] = 8,
) -> None:
    """Find the prompted defects on images."""
    from unispector.tracking.model_reference import find_model

    directory = find_model(model)
    side = tile_side(tile)
    kinds = [name == "rejected" for name in option_order(context) if name in ("prompt", "rejected")]
    images = {False: iter(prompt or []), True: iter(rejected or [])}
    in_order = [next(images[kind]) for kind in kinds]
    marked = _Marked(in_order, kinds, box or [], mask or [], label or [])
    marked.check(bank)

    from unispector.inference.detect import detect as run
    from unispector.inference.detector import UniSpector
    from unispector.inference.targets import Targets, passed_over

    found = Targets.find(targets, frame_step, frames)
    for line in passed_over(targets):
        _tell(line)
    detector = UniSpector.load(directory, device)
    if bank is not None:
        prompts = _stored(bank, detector, bit_depth)
        prompts = prompts if side == "auto" else prompts.tiled(side)
    else:
        prompts = detector.encode(marked.prompts(negative=False), batch_size, bit_depth or 16, tile=side)
    prompts = detector.with_negatives(prompts, marked.prompts(negative=True), batch_size)
    report = run(detector, prompts, found, out, min_score=min_score, batch_size=batch_size, tell=_tell)
    for line in _summary(report, _least(prompts, min_score)):
        typer.echo(line)
    if report.unread:
        _tell(f"error: {report.unread} of {report.images + report.unread} images could not be read")
        raise typer.Exit(1)


def _tell(line: str) -> None:
    typer.echo(shown(" ".join(line.split())), err=True)


def _stored(bank: Path, detector: "UniSpector", bit_depth: int | None) -> "PromptBank":
    """The prompts of a bank's file or of a store, for targets of a bit depth; None = that of the prompts."""
    from unispector.prompts.bank import find_bank

    prompts = find_bank(bank, detector)
    if bit_depth in (None, prompts.bit_depth):
        return prompts
    _tell(
        f"{bank}: its 16-bit prompts were read with {prompts.bit_depth} bits, the targets are "
        f"with {bit_depth}; unless the prompts are 8-bit images, encode them again"
    )
    return replace(prompts, bit_depth=bit_depth)


def _summary(report: "DetectionReport", least: str) -> Iterable[str]:
    """Lines that say what was found, and of what nothing was drawn."""
    yield (
        f"{_count(report.images, 'image')}, {_count(report.detections, 'detection')}, "
        f"{report.drawn} drawn ({least}): {report.output / 'detections.json'}"
    )
    if len(report.classes) > 1:
        for each in report.classes:
            best = "no detection" if each.highest is None else f"best score {each.highest:.3f}"
            yield f"  {each.name}: {_count(each.detections, 'detection')}, {each.drawn} drawn, {best}"
    if not report.drawn and report.highest is not None:
        yield (
            f"the highest score is {report.highest:.3f}; look at it with --min-score "
            f"{math.floor(1000 * report.highest) / 1000:g}, and if it is no defect, mark more images of one"
        )


def _least(prompts: "PromptBank", min_score: float | None) -> str:
    """From which score on findings were drawn."""
    calibrated = any(not calibration.as_found for calibration in prompts.calibrations)
    told = ", calibrated" if calibrated else ""
    least = set(prompts.thresholds) if min_score is None else {min_score}
    if len(least) == 1:
        return f"score >= {least.pop():.3g}{told}"
    own = zip(prompts.class_names, prompts.thresholds, strict=True)
    return ", ".join(f"{name} from {threshold:.3g}" for name, threshold in own) + told


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class _Marked:
    """What the command line marks."""

    images: list[Path]  # of --prompt and --not, in the order given
    negative: list[bool]  # which of them are of --not
    boxes: list[str]
    masks: list[Path]
    labels: list[str]

    def check(self, bank: Path | None) -> None:
        """Refuse marks that do not belong together, in one line."""
        nothing = self == _Marked([], [], [], [], [])
        if bank is not None and not nothing and not (self.images and all(self.negative)):
            raise DataError(
                "--bank already holds the prompts; leave out --prompt, --box, --mask and --label, or mark "
                "what is not the defect with --not"
            )
        if bank is None and all(self.negative):
            raise DataError("nothing to look for; give --prompt and --box, or --bank")
        if self.boxes and self.masks:
            raise DataError("--box and --mask at once; mark all images with boxes, or all with masks")
        marks, kind = (self.masks, "--mask") if self.masks else (self.boxes, "--box")
        options = "--prompt" if not any(self.negative) else "--prompt and --not"
        if len(marks) != len(self.images):
            raise DataError(
                f"{len(self.images)} {options} but {len(marks)} {kind}; give each one {kind} "
                "(repeat both to mark an image twice)"
            )
        if len(self.labels) not in (0, 1, len(self.images)):
            raise DataError(
                f"{len(self.images)} {options} but {len(self.labels)} --label; give one for all, or one each"
            )

        names = self.labels * len(self.images) if len(self.labels) == 1 else self.labels
        if ("*", False) in zip(names, self.negative, strict=False):
            raise DataError("--label '*' stands for all classes, of what is not the defect; name the defect")

    def prompts(self, *, negative: bool) -> "list[Prompt]":
        """The prompts, or the marks of what is not the defect: without a label, of no class."""
        from unispector.inference.detector import ALL, Prompt
        from unispector.ops.files import read_mask

        labels = self.labels
        if len(labels) != len(self.images):
            labels = [ALL if is_not else (*labels, "defect")[0] for is_not in self.negative]
        found = []
        for number, (image, is_not) in enumerate(zip(self.images, self.negative, strict=True)):
            if is_not == negative and self.masks:
                mask = read_mask(self.masks[number]) > 0
                found.append(Prompt(image, masks=mask, label=labels[number]))
            elif is_not == negative:
                found.append(Prompt(image, [_box(self.boxes[number])], label=labels[number]))
        return found


def _box(text: str) -> tuple[float, ...]:
    try:
        left, top, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(f"--box {text}: four numbers are needed, X,Y,W,H in pixels") from error
    return left, top, width, height
