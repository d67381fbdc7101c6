"""`unispector prompts enroll`: a new defect joins the prompts in production, without training, if it can."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from unispector.config import Config
from unispector.errors import DataError
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.project.lineage import git_state
from unispector.project.progress import progress_bar
from unispector.prompts.advice import better_roi
from unispector.prompts.checks import CheckSettings, check_class
from unispector.prompts.doctor import ClassDiagnosis
from unispector.prompts.folder import MarkedFolder, read_marked
from unispector.prompts.marks import StoredPrompt, checked_label
from unispector.prompts.report import EnrollReport, refusals, write_report
from unispector.prompts.store import PromptStore
from unispector.prompts.trials import MarkedClass
from unispector.tracking.model_reference import find_model

REPORTS = Path("reports/enroll")
Outcome = Literal["passed", "refused"]


def enroll(
    config: Config,
    folder: Path,
    source: str,
    label: str,
    model: str,
    store_folder: Path,
    by: str,
    reports: Path = REPORTS,
) -> EnrollReport:
    """Check a folder of marked images and, where it passes, add them to a class of the store.

    Every image is looked at with prompts from the others and with those of all classes already enrolled.
    Images the class has already are left out; a folder that was enrolled before changes nothing. Where all
    marks have masks, these prompt unless boxes are surely better; else `config.prompt.test_roi` says.

    Args:
        config: the limits (`enroll`), the kind of prompt and the size rule of masks.
        source: its layout, a key of `SOURCES` such as `coco`, `voc`, `yolo`, `labelme` or `masks`.
        label: name of the class. It renames the one class of the folder; of several, it says which is meant.
        reports: gets a folder named as the class, with `report.md`, `report.json`, drawings and what the
            conversion of the folder wrote.

    Returns:
        Whether it passed, and why not. Where it is refused, nothing is written to the store.

    Raises:
        DataError: the name, the folder, an image or a mark cannot be used, there are too few images, or
            the report cannot be written.
        CheckpointError: the model cannot be found or loaded.
        PromptBankError: the store is damaged, cannot be written, or was changed during the checks.
    """
    checked_label(label)
    store, output, roi = PromptStore(store_folder), reports / label.replace("/", "+"), config.prompt.test_roi
    marked = read_marked(folder, source, label, roi, config.data.min_side, output / "marked.json")
    before = store.current()
    own = before.classes.get(label, ())
    known = _known(marked, own, label)
    marked = marked.without(known)
    report = EnrollReport(label, "unchanged", before.version, marked, tuple(sorted(known)), output=output)
    if not marked.pictures:
        return report
    _check_enough(marked, own, label, config.enroll.pictures)
    detector, limits = UniSpector.load(find_model(model)), config.enroll
    diagnosis = _diagnose(
        detector,
        marked,
        store.bank(detector),
        label,
        CheckSettings("mask" if marked.has_masks else roi, limits.score, changes=False, curve=False),
    )
    outcome: Outcome = "refused" if refusals(diagnosis.figures.checks, limits) else "passed"
    report = replace(report, outcome=outcome, diagnosis=diagnosis, limits=limits, model=detector.fingerprint)
    if outcome == "passed":
        note = f"{len(marked.pictures)} images, {report.found} of {report.marks} marks found by the others"
        pictures = list(marked.marked_by(diagnosis.figures.roi).values())
        new = store.add(label, pictures, by, note, _lineage(report, source), checked=before.version)
        report = replace(report, version=new.version)
    write_report(report)
    return report


def _diagnose(
    detector: UniSpector,
    marked: MarkedFolder,
    enrolled: PromptBank | None,
    label: str,
    settings: CheckSettings,
) -> ClassDiagnosis:
    """The diagnosis with the kind of marks that finds more, beside the classes already enrolled."""
    others = [name for name in enrolled.class_names if name != label] if enrolled is not None else []
    rivals = enrolled.select(others) if enrolled is not None and others else None
    base = None
    if enrolled is not None and label in enrolled.class_names:
        base = enrolled.select([label])  # what grows loses its calibration, and is drawn from the default on
    own = MarkedClass(marked.annotations, marked.root, base)

    def checked(settings: CheckSettings) -> ClassDiagnosis:
        plain = detector.encode_instances(marked.annotations, marked.root, settings.roi)
        with progress_bar(f"check {label}", "trial") as progress:
            figures = check_class(detector, own, plain, lambda _: rivals, settings, progress)
        return ClassDiagnosis.of(figures)

    first = checked(settings)
    roi = better_roi(first.figures) if marked.has_masks else settings.roi
    return first if roi == settings.roi else checked(replace(settings, roi=roi))


def _lineage(report: EnrollReport, source: str) -> dict[str, str]:
    return {
        "folder": str(report.marked.root),
        "folder_sha256": report.marked.digest,
        "source": source,
        "model": report.model,
        "found": f"{report.found} of {report.marks}",
        "confused": f"{report.confused} of {report.marks}",
        "score": f"{report.limits.score:g}",
        **{f"git.{key}": value for key, value in git_state(Path()).items()},
    }


def _known(marked: MarkedFolder, own: tuple[StoredPrompt, ...], label: str) -> frozenset[str]:
    """Images of the folder that the class has already, with these marks."""
    marks: dict[str, set[object]] = {}
    for prompt in (prompt for prompt in own if not prompt.negative):
        marks.setdefault(prompt.picture, set()).update(prompt.marks())
    known = set()
    ways = [marked.pictures]
    if own and marked.has_masks:
        ways = [marked.marked_by("box"), marked.marked_by("mask")]
    for name in marked.pictures:
        prompts = [StoredPrompt.of(pictures[name]) for pictures in ways]
        picture = prompts[0].picture
        if picture in marks:
            if marks[picture] not in [set(prompt.marks()) for prompt in prompts]:
                raise DataError(
                    f"{marked.root}: {name} is enrolled as {label!r} with other marks; take it out of the "
                    "folder, or `unispector prompts revert` (or remove the class) first"
                )
            known.add(name)
    return frozenset(known)


def _check_enough(marked: MarkedFolder, own: tuple[StoredPrompt, ...], label: str, fewest: int) -> None:
    pictures = len(marked.pictures) + len({prompt.picture for prompt in own if not prompt.negative})
    if pictures < fewest:
        raise DataError(
            f"{marked.root}: {pictures} marked image(s) of {label!r}, at least {fewest} are needed; mark more"
        )
