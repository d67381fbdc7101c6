"""The command line: one verb per thing a user does; all logic is in `stages`.

Heavy packages load inside the verbs, so that `unispector --help` answers at once.
"""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unispector.environment import show_messages, work_offline
from unispector.errors import DataError, UniSpectorError

if TYPE_CHECKING:
    from unispector.config import Config
    from unispector.inference.detector import Prompt

REPORTS = Path("reports")

# "\b" keeps the lines of a paragraph of help as they are.
_HELP = """Show one marked picture of a defect; find that defect on every other picture.

\b
  unispector detect photos/ --prompt bad.png --box 120,80,40,24 --model MODEL --out found
  unispector prompts build --annotations prompts.json --images photos --model MODEL --out bank.safetensors
  unispector detect photos/ --bank bank.safetensors --model MODEL --out found

MODEL is a model's folder (`make repro` leaves them in artifacts/models/) or an MLflow run id.
`unispector VERB --help` explains a verb."""

_DETECT_HELP = """Find the prompted defects on pictures.

\b
One marked picture:
  unispector detect photos/ --prompt bad.png --box 120,80,40,24 --model MODEL --out found
Two defects, one of them marked twice:
  unispector detect photos/ --model MODEL --out found \\
    --prompt a.png --box 120,80,40,24 --label crack \\
    --prompt a.png --box 300,12,25,60 --label crack \\
    --prompt b.png --box 64,64,20,20  --label hole

Writes one drawn picture per target to OUT/pictures, and OUT/detections.json: a COCO file whose
annotations carry boxes, masks and scores (those of at least 0.05)."""

_BUILD_HELP = """Encode prompts once and keep them; the pictures are not needed any more.

\b
  unispector prompts build --annotations prompts.json --images photos --model MODEL --out bank.safetensors
  unispector detect line3/ --bank bank.safetensors --model MODEL --out found

A bank works only with the model that made it."""

_EVALUATE_HELP = """Measure AP of boxes and masks on annotated pictures of your own.

\b
  unispector evaluate --prompts prompts.json --targets targets.json --images photos \\
    --model MODEL --out metrics.json

Both files are COCO and name the same categories; no picture should be in both. AP is in percent, by
class and in all. `unispector report --show` prints the figures of `make repro`."""

_ADD_HELP = """Add a raw release to the pipeline: under data/raw, in DVC's care and in params.yaml.

\b
  unispector data add magnetic_tile /path/to/the/release
  make repro

A release of magnetic_tile has MT_<Defect>/Imgs/*.jpg, each with its mask of the same name, *.png. It
is copied; what is done already is not done again."""


def _group(help_text: str) -> typer.Typer:
    return typer.Typer(
        help=help_text, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )


app = _group(_HELP)
prompts_app = _group("Make prompt banks.")
data_app = _group("Bring raw data.")
stage_app = _group("One stage of the pipeline on its own; `dvc repro` runs them in order.")
app.add_typer(prompts_app, name="prompts")
app.add_typer(data_app, name="data")
app.add_typer(stage_app, name="stage")


class Roi(StrEnum):
    """What of an annotated instance is the prompt."""

    BOX = "box"
    MASK = "mask"


Model = Annotated[
    str,
    typer.Option(help="Folder with model.safetensors and config.json, or an MLflow run id.", metavar="MODEL"),
]
Images = Annotated[Path, typer.Option(help="Folder that the annotations' file names are relative to.")]
RoiOption = Annotated[Roi, typer.Option(help="Prompt with the boxes or with the masks.")]


@app.command(help=_DETECT_HELP)
def detect(
    targets: Annotated[
        list[Path], typer.Argument(help="Pictures, or folders of pictures.", metavar="TARGET")
    ],
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder to write detections.json and pictures/ to.")],
    prompt: Annotated[
        list[Path] | None, typer.Option(help="Picture that shows the defect; repeat for more.")
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Left, top, width, height in pixels; the n-th belongs to the n-th --prompt.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Name of the defect: one for all prompts, or one per --prompt.")
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(help="Instead of --prompt: a bank made by `prompts build`.")
    ] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Lowest score that is drawn.")] = 0.15,
) -> None:
    """Find the prompted defects on pictures."""
    from unispector.stages.model_reference import find_model

    directory = find_model(model)
    marked = _prompts(prompt or [], box or [], label or [], bank)

    from unispector.stages.detect import detect as run

    report = run(directory, targets, marked, out, min_score=min_score)
    typer.echo(
        f"{report.images} pictures, {report.detections} detections, "
        f"{report.drawn} drawn (score >= {min_score:g}): {report.output / 'detections.json'}"
    )


def _prompts(
    images: Sequence[Path], boxes: Sequence[str], labels: Sequence[str], bank: Path | None
) -> "list[Prompt] | Path":
    """The prompts of the command line; each box belongs to the prompt at its position."""
    if bank is not None:
        if images or boxes or labels:
            raise DataError("--bank already holds the prompts; leave out --prompt, --box and --label")
        return bank
    if not images:
        raise DataError("nothing to look for; give --prompt and --box, or --bank")
    if len(boxes) != len(images):
        raise DataError(
            f"{len(images)} --prompt but {len(boxes)} --box; give each --prompt one --box "
            "(repeat both to mark a picture twice)"
        )
    if len(labels) not in (0, 1, len(images)):
        raise DataError(f"{len(images)} --prompt but {len(labels)} --label; give one for all, or one each")
    names = list(labels) if len(labels) == len(images) else [*labels, "defect"][:1] * len(images)

    from unispector.inference.detector import Prompt

    marks = zip(images, map(_box, boxes), names, strict=True)
    return [Prompt(image, [box], label=name) for image, box, name in marks]


def _box(text: str) -> tuple[float, ...]:
    try:
        left, top, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(f"--box {text}: four numbers are needed, X,Y,W,H in pixels") from error
    return left, top, width, height


@prompts_app.command("build", help=_BUILD_HELP)
def prompts_build(
    annotations: Annotated[
        Path, typer.Option(help="COCO file; all its instances are prompts of their category.")
    ],
    images: Images,
    model: Model,
    out: Annotated[Path, typer.Option(help="Bank to write, e.g. bank.safetensors.")],
    roi: RoiOption = Roi.BOX,
) -> None:
    """Encode prompts once and keep them."""
    from unispector.stages.model_reference import find_model
    from unispector.stages.prompts import build_prompts

    bank = build_prompts(annotations, images, find_model(model), out, roi.value)
    counts = zip(bank.class_names, bank.counts, strict=True)
    typer.echo(f"{out}: {', '.join(f'{name} ({count})' for name, count in counts)}")


@app.command(help=_EVALUATE_HELP)
def evaluate(
    prompts: Annotated[
        Path, typer.Option(help="COCO file; all its instances are prompts of their category.")
    ],
    targets: Annotated[Path, typer.Option(help="COCO file with the ground truth to find.")],
    images: Images,
    model: Model,
    out: Annotated[Path, typer.Option(help="JSON file to write the figures to.")],
    roi: RoiOption = Roi.BOX,
) -> None:
    """Measure AP of boxes and masks on annotated pictures."""
    import json

    from unispector.ops.files import atomic_write_text
    from unispector.stages.evaluate import evaluate_files
    from unispector.stages.model_reference import find_model

    metrics = evaluate_files(find_model(model), prompts, targets, images, roi=roi.value)
    atomic_write_text(out, json.dumps(metrics.as_dict(), indent=1) + "\n")
    typer.echo(f"AP50 boxes {metrics.bbox.AP50:.1f}, masks {metrics.segm.AP50:.1f}: {out}")


@data_app.command("add", help=_ADD_HELP)
def data_add(
    name: Annotated[str, typer.Argument(help="Kind of release, such as magnetic_tile.")],
    folder: Annotated[Path, typer.Argument(help="The release's folder; it is only read.")],
) -> None:
    """Add a raw release to the pipeline."""
    from unispector.stages.add import add

    report = add(name, folder)
    typer.echo(f"{report.set_name}: {report.images} images in {report.folder}; `make repro` takes them in")


SetName = Annotated[str, typer.Argument(help="A key of data.sets in params.yaml.")]


@stage_app.command("generate")
def stage_generate() -> None:
    """Make the embedded data, insa-mini."""
    from unispector.stages.generate import generate

    report = generate(_params())
    typer.echo(f"insa-mini: {sum(report.images.values())} images, {report.image_bytes / 1e6:.1f} MB")


@stage_app.command("convert")
def stage_convert(name: SetName) -> None:
    """Turn a raw set into an InsA file."""
    from unispector.stages.convert import convert

    report = convert(_params(), name)
    kept = sum(report.instances_kept.values())
    typer.echo(f"{name}: {report.images_kept} of {report.images_read} images, {kept} instances")


@stage_app.command("validate")
def stage_validate(name: SetName) -> None:
    """Check an InsA file; stops the pipeline when an expectation fails."""
    from unispector.stages.validate import validate

    typer.echo(validate(_params(), name).summary())


@stage_app.command("split")
def stage_split() -> None:
    """Choose seen and unseen classes, prompts and targets."""
    from unispector.stages.split import split

    for part in split(_params()).sets:
        seed = "" if part.split_seed is None else f", split seed {part.split_seed}"
        typer.echo(
            f"{part.name}{seed}: {len(part.seen)} seen and {len(part.unseen)} unseen classes, "
            f"{part.training_images} training images"
        )


@stage_app.command("fingerprint")
def stage_fingerprint() -> None:
    """Hash what training reads."""
    from unispector.stages.fingerprint import fingerprint

    for seed, digest in fingerprint(_params()).items():
        typer.echo(f"split seed {seed}: {digest[:12]}")


@stage_app.command("evaluate")
def stage_evaluate() -> None:
    """Judge every trained model on every set."""
    from unispector.stages.evaluate import evaluate_all
    from unispector.stages.paths import MODELS, SPLITS, TRACKING
    from unispector.tracking.run import TrackingStore

    report = evaluate_all(_params(), MODELS, SPLITS, REPORTS, TrackingStore(TRACKING))
    typer.echo(f"{len(report.rows)} evaluations: {REPORTS / 'metrics.json'}")


@stage_app.command("report")
def stage_report() -> None:
    """Write the evaluation as a page to read."""
    typer.echo(_write_report())


@app.command()
def report(
    show: Annotated[bool, typer.Option("--show", help="Only print the table of what is there.")] = False,
) -> None:
    """Write reports/index.html and print the table of the last `make repro`."""
    from unispector.stages.paths import TRACKING
    from unispector.stages.report import show as show_report
    from unispector.tracking.run import TrackingStore

    if not show:
        _write_report()
    show_report(REPORTS, TrackingStore(TRACKING))


def _write_report() -> str:
    from unispector.stages.paths import TRACKING
    from unispector.stages.report import report as write
    from unispector.tracking.run import TrackingStore

    return str(write(REPORTS, TrackingStore(TRACKING)).page)


def _params() -> "Config":
    """`params.yaml` of the working folder."""
    from unispector.config import load_config

    return load_config()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    A mistake of the user's is one line on stderr, never a traceback.

    Args:
        arguments: without the program's name; None = this process's own, whose tools are set offline.

    Returns:
        Exit code: 0 done, 1 a file, parameter or model cannot be used, 2 wrong usage, 130 interrupted.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        work_offline(Path())
        show_messages()
    try:
        code = app(args=list(arguments) or ["--help"], prog_name="unispector", standalone_mode=False)
    except UniSpectorError as error:
        return _fail(str(error), 1)
    except typer.TyperException as error:
        return _fail(error.format_message(), error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}", 1)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
