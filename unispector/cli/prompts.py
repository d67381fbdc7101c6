"""`unispector prompts`: banks of single models, and the prompts in production."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unispector.cli.parts import (
    BitDepth,
    Images,
    Model,
    PromptsFile,
    Roi,
    RoiOption,
    TileOption,
    group,
    params,
    tile_side,
)
from unispector.errors import DataError
from unispector.project.paths import CHAMPION_MODEL, PROMPT_STORE

if TYPE_CHECKING:
    from unispector.prompts.store import PromptSet, PromptStore

_BUILD_HELP = """Encode prompts once and keep them; the images are not needed any more.

\b
  unispector prompts build --annotations prompts.json --images photos --out bank.safetensors
  unispector detect line3/ --bank bank.safetensors --out found

A bank works only with the model that made it."""

_ENROLL_HELP = """Teach a new defect from a folder of marked images, without training, if it passes checks.

\b
  unispector prompts enroll masks new-defect/ --label "deep scratch"

The checks are those of `unispector prompts doctor`: each image is looked at with prompts from the others. If
enough marks are found with a score from which `detect` draws them, and are not mistaken for a class that is
enrolled already, the images become a new version of the prompts in production; otherwise nothing changes.
Where the images have masks, these prompt unless boxes surely find more. Either way
reports/enroll/LABEL/report.md says what was found on which image, and what to drop, to mend and to add. The
limits are under `enroll` in params.yaml. Exit code 1: refused."""

_DOCTOR_HELP = """Say which marked images to keep, to mend and to add, before you search with them.

\b
  unispector prompts doctor --annotations prompts.json --images photos --out checkup
  unispector prompts doctor data/prompts --out checkup     (the prompts in production)

Each image is looked at with prompts from the others of its class: which of its marks are found, what AP50
is with and without it, what it finds alone, how much shifted boxes and a blurred image cost it, whether
another class scores higher. Advice is given only where a difference is larger than chance explains:

\b
  drop it            without it more is found on the other images
  look at the mark   the others do not find it, and it finds few of theirs: a wrong mark, or a rare kind
  mark two more      none of the others finds it
  mark tighter       a small part of the mark is found in its place
  prompt with masks  the marks have some, and boxes do not surely find more (or the other way round)
  enough             what two more images would bring

OUT gets doctor.md, doctor.json, a chart of AP50 over the number of images, and a drawing of each image to
mend. Ten images of a class take one to three minutes on two free cores; --quick takes a third of it and
leaves out the shifted boxes, the blurred images and the chart."""

_CALIBRATE_HELP = """Choose from which score on a finding counts, for a false-alarm budget that can be proved.

\b
  unispector prompts calibrate bank.safetensors --annotations prompts.json --images photos \\
    --good good-parts/ --budget 1/20
  unispector prompts calibrate data/prompts --good good-parts/ --budget 1/200 --model accurate

Good images, independent of one another, say how high a score nothing reaches; each marked image is looked
at with prompts from the others. The threshold of each class is the lowest that is proved to keep the budget
with the confidence: 59 good images prove 1/20 with 95 %, 299 prove 1/100, 598 prove 1/200. With fewer the
claim is refused and nothing changes. Scores are moved so that of findings of 0.8 about 80 % are right on
these images. `detect`, the service and `inspect` use both from then on."""

prompts_app = group("Make prompt banks; enrol new defects; go back.")

Store = Annotated[Path, typer.Option(help="Folder of the prompts in production.")]
MarkedImages = Annotated[
    Path | None, typer.Option(help="Folder that the annotations' file names are relative to.")
]
By = Annotated[str | None, typer.Option(help="Who changes them; without it, the system's user.")]


@prompts_app.command("build", help=_BUILD_HELP)
def prompts_build(
    annotations: PromptsFile,
    images: Images,
    out: Annotated[Path, typer.Option(dir_okay=False, help="Bank to write, e.g. bank.safetensors.")],
    model: Model = "fast",
    roi: RoiOption = Roi.BOX,
    tile: TileOption = "auto",
    bit_depth: BitDepth = None,
) -> None:
    """Encode prompts once and keep them."""
    side = tile_side(tile)
    from unispector.prompts.build import build_prompts
    from unispector.tracking.model_reference import find_model

    bank = build_prompts(annotations, images, find_model(model), out, roi.value, side, bit_depth or 16)
    classes = [
        f"{name} ({count}{f', in tiles of {side} pixels' if side else ''})"
        for name, count, side in zip(bank.class_names, bank.counts, bank.tiles, strict=True)
    ]
    typer.echo(f"{out}: {', '.join(classes)}")


@prompts_app.command("doctor", help=_DOCTOR_HELP)
def prompts_doctor(
    store: Annotated[
        Path | None, typer.Argument(help="Prompts in production; or give --annotations and --images.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="COCO file; all its instances are prompts of their category.")
    ] = None,
    images: MarkedImages = None,
    model: Model = "fast",
    roi: RoiOption = Roi.BOX,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder to write the report to.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the slower half of the checks.")] = False,
    bit_depth: BitDepth = None,
) -> None:
    """Say which marked images to keep, to mend and to add."""
    if (store is None) == (annotations is None) or (annotations is None) != (images is None):
        raise DataError("give the folder of a prompt store, or both --annotations and --images")
    if store is not None and bit_depth not in (None, 16):
        raise DataError(f"{store}: images of a prompt store are read as of 16 bits; leave out --bit-depth")

    from unispector.inference.detector import UniSpector
    from unispector.prompts.doctor import diagnose_prompts, diagnose_store
    from unispector.prompts.doctor_report import PAGE, terminal_lines, write_diagnosis
    from unispector.prompts.marks import read_marks
    from unispector.tracking.model_reference import find_model

    marked = read_marks(annotations) if annotations is not None else None
    detector = UniSpector.load(find_model(model))
    if marked is not None and images is not None:
        diagnosis = diagnose_prompts(
            detector, marked, images, roi.value, quick=quick, bit_depth=bit_depth or 16
        )
    else:
        diagnosis = diagnose_store(detector, Path(store or ""), quick=quick)
    for line in terminal_lines(diagnosis):
        typer.echo(line)
    if out is not None:
        write_diagnosis(diagnosis, out)
        typer.echo(out / PAGE)


@prompts_app.command("enroll", help=_ENROLL_HELP)
def prompts_enroll(
    source: Annotated[
        str, typer.Argument(help="Layout: coco, voc, yolo, labelme, label_studio, cvat, masks.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder of marked images; it is only read.")],
    label: Annotated[str, typer.Option(help="Name of the defect; of several in FOLDER, the one meant.")],
    store: Store = PROMPT_STORE,
    model: Model = CHAMPION_MODEL,
    by: By = None,
) -> None:
    """Teach a new defect, if it passes checks."""
    from unispector.prompts.enroll import enroll
    from unispector.prompts.versions import user_name

    report = enroll(params(), folder, source, label, model, store, by or user_name())
    typer.echo(report.summary())
    if report.checks:
        typer.echo(f"image by image: {report.output / 'report.md'}")
    if report.outcome == "refused":
        raise typer.Exit(1)


@prompts_app.command("calibrate", help=_CALIBRATE_HELP)
def prompts_calibrate(
    prompts: Annotated[Path, typer.Argument(help="A bank's file, or the folder of a prompt store.")],
    good: Annotated[Path, typer.Option(help="Folder of images without a defect, at least 20.")],
    budget: Annotated[
        str, typer.Option(metavar="1/N", help="Good images that may raise a false alarm: 1/200, or 0.005.")
    ],
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="How sure the budget must be.")
    ] = 0.95,
    annotations: Annotated[
        Path | None, typer.Option(help="Of a bank's file: the COCO file that it was built from.")
    ] = None,
    images: MarkedImages = None,
    model: Model = "fast",
    roi: RoiOption = Roi.BOX,
    by: By = None,
) -> None:
    """Choose the thresholds for a false-alarm budget, and make scores mean something."""
    rate = _rate(budget)
    if (annotations is None) != (images is None):
        raise DataError("--annotations and --images belong together; give both or none")

    from unispector.inference.detector import UniSpector
    from unispector.ops.files import list_images
    from unispector.prompts.calibrate import Budget, Marked, calibrate_kept, calibration_lines
    from unispector.prompts.marks import read_marks
    from unispector.prompts.versions import user_name
    from unispector.tracking.model_reference import find_model

    marked = None
    if annotations is not None and images is not None:
        marked = Marked(read_marks(annotations), images, roi.value)
    files = list_images([good])
    allowed = Budget(rate, confidence)
    allowed.check(len(files))
    detector = UniSpector.load(find_model(model))
    told = calibrate_kept(detector, prompts, marked, files, allowed, by or user_name())
    typer.echo(f"{prompts}: at most {budget} of good images with a false alarm, {confidence:.0%} sure")
    typer.echo("\n".join(calibration_lines(told)))


@prompts_app.command("list")
def prompts_list(store: Store = PROMPT_STORE) -> None:
    """The classes in production."""
    from unispector.prompts.versions import list_classes

    typer.echo(list_classes(_opened(store)))


@prompts_app.command("history")
def prompts_history(store: Store = PROMPT_STORE) -> None:
    """All versions, newest first: when, who, why."""
    from unispector.prompts.versions import list_history

    typer.echo(list_history(_opened(store)))


@prompts_app.command("show")
def prompts_show(
    version: Annotated[int, typer.Argument(min=0, help="Its number; see `history`.")],
    store: Store = PROMPT_STORE,
) -> None:
    """One version: its classes and images, where it came from, what its checks said."""
    from unispector.prompts.versions import show_version

    typer.echo(show_version(_opened(store), version))


@prompts_app.command("revert")
def prompts_revert(
    version: Annotated[
        int | None, typer.Argument(min=0, help="Number to go back to; without it, the one before.")
    ] = None,
    store: Store = PROMPT_STORE,
    by: By = None,
) -> None:
    """Make a new version that equals an earlier one; nothing is lost."""
    from unispector.prompts.versions import user_name

    _tell(_opened(store).revert(version, by or user_name()))


@prompts_app.command("remove")
def prompts_remove(
    label: Annotated[str, typer.Argument(help="Name of the class.")],
    store: Store = PROMPT_STORE,
    by: By = None,
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Make a new version without a class; `revert` brings it back."""
    from unispector.prompts.versions import user_name

    _tell(_opened(store).remove(label, by or user_name(), note or f"without {label}"))


def _rate(text: str) -> float:
    part, _, whole = text.partition("/")
    try:
        rate = float(part) / float(whole or 1)
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(f"--budget {text}: give a share such as 1/200 or 0.005") from error
    if not 0 < rate < 1:
        raise DataError(f"--budget {text}: the share must lie between 0 and 1, such as 1/200")
    return rate


def _opened(store: Path) -> "PromptStore":
    from unispector.prompts.store import PromptStore

    return PromptStore(store)


def _tell(new: "PromptSet") -> None:
    typer.echo(f"version {new.version}: {', '.join(new.classes) or 'no class'}")
