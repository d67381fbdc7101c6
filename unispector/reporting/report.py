"""The report: what it says of an evaluation, section by section, and its table for the terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from unispector.evaluation.results import MAIN_VARIANT, SUBSETS, DrawnImage, EvaluationReport, variant_name
from unispector.reporting.comparison import comparison_section
from unispector.reporting.measured import mean_of_report
from unispector.reporting.model import (
    Block,
    Bullets,
    Card,
    Command,
    Duration,
    Figure,
    Fold,
    Report,
    Row,
    Section,
    Span,
    Subheading,
    Table,
    Text,
    cell_text,
    counted,
)
from unispector.reporting.result_sections import (
    AP50_COLUMNS,
    alarm_section,
    class_section,
    result_rows,
    results_section,
    split_seeds,
)

if TYPE_CHECKING:
    from rich.table import Table as RichTable

LEAD = (
    "A defect class is shown by a few marked images; the model then finds it, boxed and masked, on all "
    "other images. Figures are AP50 in percent."
)

HOW_MEASURED = (
    "Average precision (AP) follows COCO's rules, with pycocotools as the reference: precision averaged over "
    "101 recall points, at IoU 0.50 to 0.95 in steps of 0.05 (AP) or at one of them (AP50, AP75), then over "
    "the classes that the targets show. In percent.",
    "All target images of a set are judged; all of its prompted classes are looked for in one pass.",
    "Of one class in one image the 100 detections with the highest scores count. Equal scores are ranked by "
    "class name, box and mask, so that the order they come in never matters. What overlaps a region marked "
    "as a crowd is neither right nor wrong.",
    "Prompts and targets are apart: no prompt image is a target, unless asked for, or where official files "
    "without targets are scored on their prompts; the report then says so at its top.",
    "Unseen classes took no part in training. All classes of a set that is only tested on (cross-domain) are "
    "unseen.",
    "Figures are the mean and, after ±, the standard deviation (population) over the trained models (split "
    "seeds) and the draws of prompts. The mean of the sets weighs every set alike.",
    "Intervals hold 95 % of the AP50 that other draws of the same number of test images would give "
    "(percentile bootstrap over images). They say nothing of other trainings or prompts, which ± does. The "
    "ends shown for a set are the means of its evaluations' ends; for the mean of the sets, the distances to "
    "the ends are added up as squares (MOVER).",
    "A false alarm is a detection on a defect-free image, of any prompted class. Recall is the share of the "
    "defects found at IoU 0.5 by a detection with a score of at least the threshold.",
    "Small is an instance below 1/300 of its image's area, large one above 3 % (COCO's 32² and 96² pixels in "
    "an image of 640 by 480); detections that match nothing count in the bin of their own size.",
    "Base is the ablation: the same recipe without what UniSpector adds (spectral branch, aligner, CPE, PQS, "
    "prompts that queries see). Untrained is UniSpector before its first step.",
    "Images under Images are chosen at random, those under Failures for being the worst.",
)


@dataclass(frozen=True)
class Sources:
    """The inputs of a report."""

    evaluation: EvaluationReport
    ui_command: str  # shell command that opens the experiment store
    # Their sections; None where there is nothing to tell.
    robustness: Section | None = None
    prompt_space: Section | None = None
    data: Section | None = None
    # Each stage's name (`stage` or `stage@set`), seconds, and when it ended.
    timings: Sequence[tuple[str, float, str]] = ()
    warnings: tuple[str, ...] = ()  # what a reader of any figure must know


def evaluation_report(sources: Sources) -> Report:
    """Everything the report says, in the order it is said."""
    report = sources.evaluation
    sections = (
        results_section(report),
        comparison_section(report),
        alarm_section(report),
        sources.robustness,
        sources.prompt_space,
        class_section(report),
        _sample_section(report.pictures),
        _failure_section(report.pictures),
        sources.data,
        _timing_section(sources.timings),
        _model_section(report),
        Section("How it is measured", (Bullets(HOW_MEASURED),), "method"),
        _run_section(sources.ui_command),
    )
    return Report(
        title="UniSpector evaluation",
        lead=LEAD,
        facts=tuple(_facts(report)),
        warnings=sources.warnings,
        cards=tuple(_cards(report)),
        sections=tuple(section for section in sections if section is not None),
    )


def terminal_table(report: EvaluationReport) -> "RichTable":
    """The result table for a rich console."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    table = RichTable(
        title="AP50 in percent, mean ± standard deviation",
        box=box.SIMPLE_HEAD,
        title_style="bold",
        pad_edge=False,
    )
    table.add_column("", overflow="fold")
    for heading, _, _ in AP50_COLUMNS:
        table.add_column(heading.replace(", ", "\n"), justify="right", no_wrap=True)
    for data_set, rows in groupby(result_rows(report), key=lambda row: row.cells[0]):
        table.add_row(RichText(str(data_set), style="bold"))
        for row in rows:
            _, variant, *figures = row.cells
            table.add_row(f"  {variant}", *map(cell_text, figures), style="bold green" if row.main else None)
        table.add_section()
    return table


def _facts(report: EvaluationReport) -> Iterator[str]:
    yield counted(len(report.data_sets), "data set", "data sets") + ": " + ", ".join(report.data_sets)
    models = (f"{variant_name(variant)} ({split_seeds(report, variant)})" for variant in report.variants)
    yield "Models (split seeds): " + ", ".join(models)
    prompt_seeds = sorted({row.prompt_seed for row in report.rows})
    yield f"Prompt seeds: {', '.join(map(str, prompt_seeds))}"
    yield counted(len(report.rows), "evaluation", "evaluations")


def _cards(report: EvaluationReport) -> Iterator[Card]:
    sets = len(report.data_sets)
    where = f"mean of {sets} data sets" if sets > 1 else report.data_sets[0]
    for figure, things in (("bbox.AP50", "Boxes"), ("segm.AP50", "Masks")):
        values = {v: mean_of_report(report, v, "unseen", figure) for v in report.variants}
        bars = tuple(
            (variant_name(variant), value.mean, variant == MAIN_VARIANT)
            for variant, value in values.items()
            if value is not None
        )
        yield Card(figure, f"{things}, unseen classes, {where}", values.get(MAIN_VARIANT), bars)


def _sample_section(pictures: Sequence[DrawnImage]) -> Section | None:
    """The images drawn at random: the first of each set, and a fold with its others."""
    samples = [picture for picture in pictures if picture.kind == "sample"]
    if not samples:
        return None
    note = (
        "One of the prompt images, what is there, and what was found. The images are chosen at random, not "
        "by result."
    )
    blocks: list[Block] = [Text(note, True)]
    for data_set in dict.fromkeys(picture.data_set for picture in samples):
        first, *others = (picture for picture in samples if picture.data_set == data_set)
        blocks += [_figure(first), *_folds_by_set(others)]
    return Section("Pictures", tuple(blocks), "pictures")


_FAILURES = {
    "false alarm": ("Worst false alarms", "What was found with the highest scores where nothing is."),
    "miss": ("Worst misses", "Defects that nothing found, or only with a low score."),
}


def _failure_section(pictures: Sequence[DrawnImage]) -> Section | None:
    """The worst failures: the first of each kind, and a fold with the others of each set."""
    blocks: list[Block] = []
    for kind, (title, note) in _FAILURES.items():
        own = [picture for picture in pictures if picture.kind == kind]
        if own:
            blocks += [Subheading(title), Text(note, True), _figure(own[0]), *_folds_by_set(own[1:])]
    return Section("Failures", tuple(blocks), "failures") if blocks else None


def _folds_by_set(pictures: Sequence[DrawnImage]) -> Iterator[Fold]:
    for data_set in dict.fromkeys(picture.data_set for picture in pictures):
        own = [picture for picture in pictures if picture.data_set == data_set]
        yield Fold(f"{len(own)} more of {data_set}", tuple(map(_figure, own)))


def _figure(picture: DrawnImage) -> Figure:
    title = f"{picture.data_set}, {SUBSETS[picture.subset]}: {', '.join(picture.classes)}"
    note = (Span(picture.note, "strong"), " ") if picture.note else ()
    return Figure(picture.file, title, (*note, f"{title} · {picture.image}"), vars(picture))


def _timing_section(timings: Sequence[tuple[str, float, str]]) -> Section | None:
    """Stages in their order; those that run once per set are added up, with a fold of each."""
    if not timings:
        return None
    grouped = groupby(timings, key=lambda timing: timing[0].partition("@")[0])
    rows = []
    for stage, members in grouped:
        own = list(members)
        ended = _moment(max(ended for *_, ended in own))
        rows.append(Row((stage, ended, len(own), Duration(sum(seconds for _, seconds, _ in own)))))
    whole = Duration(sum(seconds for _, seconds, _ in timings))
    rows.append(Row(("all", "", len(timings), whole), main=True))
    texts = ("stage", "ended (UTC)")
    blocks: list[Block] = [
        Text("The last run of each stage on this machine; what was up to date did not run again.", True),
        Table.of(texts, ("runs", "time"), rows, "stages"),
    ]
    if any("@" in name for name, *_ in timings):
        each = [(name, _moment(ended), Duration(seconds)) for name, seconds, ended in timings]
        blocks.append(Fold("Every run", (Table.of(texts, ("time",), each, "every run"),)))
    return Section("Timing", tuple(blocks), "timing")


def _moment(iso: str) -> str:
    """`2026-11-22 18:20:05` of an ISO time."""
    return iso[:19].replace("T", " ")


_ORIGINS = {"data_sha256": "training data", "git_commit": "code", "mlflow_run_id": "training run"}
_SHORT = 12


def _model_section(report: EvaluationReport) -> Section | None:
    """The models with what produced them; digests in short, and in full in a fold."""
    if not report.models:
        return None
    short, full = [], []
    for model in report.models:
        name = (variant_name(model.variant), str(model.split_seed))
        origins = [_shortened(model.provenance.get(key, "-")) for key in _ORIGINS]
        main = model.variant == MAIN_VARIANT
        short.append(Row((*name, _shortened(model.fingerprint), *origins), main))
        full.append(Row((*name, "fingerprint", model.fingerprint), main))
        full += [Row((*name, key, value), main) for key, value in sorted(model.provenance.items())]
    texts = ("model", "split seed", "fingerprint", *_ORIGINS.values())
    note = (
        "A model's fingerprint is the SHA-256 of its weights and configuration; that of its training data "
        "covers the annotation file and every image it names. Code is the git commit."
    )
    models = Table.of(texts, (), short, "models")
    everything = Table.of(("model", "split seed", "what", "value"), (), full, "provenance")
    blocks = (Text(note, True), models, Fold("In full", (everything,)))
    return Section("What produced it", blocks, "models")


def _shortened(digest: str) -> str:
    """A digest's first digits; `-dirty` stays, since it tells of code that no commit has."""
    value, dash, rest = digest.partition("-")
    return f"{value[:_SHORT]}{dash}{rest}" if value else digest


def _run_section(ui_command: str) -> Section:
    text = Text("Parameters, curves, tables and images of every model:")
    return Section("Runs", (text, Command(ui_command)), "runs")
