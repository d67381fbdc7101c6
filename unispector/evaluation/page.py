"""The evaluation as one HTML page: no script, no request, pictures beside it."""

from html import escape
from itertools import groupby
from urllib.parse import quote

from unispector.evaluation.report import (
    CLASS_NUMBERS,
    CLASS_TEXTS,
    COLUMNS,
    HOW_MEASURED,
    class_rows,
    table_rows,
    unfair_seeds,
    variant_name,
)
from unispector.evaluation.results import (
    MAIN_VARIANT,
    SUBSETS,
    EvaluationReport,
    PictureRecord,
    mean_over_sets,
)
from unispector.evaluation.tables import html_table, scrolling_table

_STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #ffffff; --ink: #171b22; --muted: #616b7a;
  --line: #e1e5ea; --main: #0f766e; --other: #a9b4c2; --track: #eceff3; }
@media (prefers-color-scheme: dark) { :root { --ground: #12151a; --card: #1a1e25; --ink: #e9edf2;
  --muted: #98a2b1; --line: #2b313b; --main: #2dd4bf; --other: #5c687a; --track: #252b34; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 48px 24px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 10px; letter-spacing: -.01em; }
h2 { font-size: 20px; margin: 48px 0 14px; }
h3 { font-size: 16px; margin: 30px 0 10px; }
p { margin: 0 0 12px; max-width: 76ch; }
a { color: var(--main); }
.after { margin-top: 22px; }
summary { cursor: pointer; padding: 5px 0; }
details[open] { margin-bottom: 18px; }
.muted { color: var(--muted); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 16px;
  margin: 28px 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px; }
.card h3 { margin: 0; font-size: 14px; font-weight: 600; color: var(--muted); }
.big { font-size: 44px; font-weight: 700; line-height: 1.15; color: var(--main); margin: 2px 0 14px;
  font-variant-numeric: tabular-nums; }
.bar { display: grid; grid-template-columns: minmax(0, 13em) 1fr 3.2em; gap: 10px; align-items: center;
  font-size: 14px; margin-top: 6px; }
.bar span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.track { height: 9px; border-radius: 5px; background: var(--track); overflow: hidden; }
.fill { display: block; height: 100%; background: var(--other); border-radius: 5px; }
.main .fill { background: var(--main); }
.main { font-weight: 650; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; }
th, td { padding: 9px 16px; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { font-size: 13px; font-weight: 600; color: var(--muted); }
tbody tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 0 0 22px; }
img { display: block; width: 100%; height: auto; border-radius: 12px; border: 1px solid var(--line); }
figcaption { font-size: 14px; color: var(--muted); margin-top: 6px; }
code { display: block; overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px 14px;
  font: 14px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
"""


def html_page(report: EvaluationReport, ui_command: str, data: str = "") -> str:
    """The report as an HTML page; pictures are linked relative to the report's folder.

    Args:
        report: all evaluations.
        ui_command: shell command that opens the experiment store.
        data: the section on the data (`unispector.evaluation.data_section`); "" where there is none.
    """
    sections = [_head(report), "<h2>Results</h2>", _results(report)]
    if shared := unfair_seeds(report):
        note = (
            "The models compared were not trained on the same number of splits; this is the fair comparison."
        )
        sections += ["<h2>On the same seeds</h2>", f'<p class="muted">{note}</p>', _results(shared)]
    sections += ["<h2>By class</h2>", html_table(CLASS_TEXTS, CLASS_NUMBERS, class_rows(report))]
    if report.pictures:
        sections.append("<h2>Pictures</h2>")
        sections.append(
            '<p class="muted">One of the prompt images, what is there, and what was found. The images are '
            "chosen by lot, not by result.</p>"
        )
        sections += [_figure(picture) for picture in report.pictures]
    sections += [data] if data else []
    sections += ["<h2>How it is measured</h2>", f"<p>{escape(HOW_MEASURED)}</p>"]
    sections += ["<h2>Runs</h2>", "<p>Parameters, curves, tables and pictures of every model:</p>"]
    sections.append(f"<code>{escape(ui_command)}</code>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>UniSpector evaluation</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def _head(report: EvaluationReport) -> str:
    sets = len(report.data_sets)
    where = f"mean of {sets} data sets" if sets > 1 else escape(report.data_sets[0])
    return (
        "<h1>UniSpector evaluation</h1>\n"
        '<p class="muted">A defect class is shown by a few marked pictures; the model then finds it, boxed '
        "and masked, on all other pictures. AP50 in percent.</p>\n"
        f'<div class="cards">{_card(report, "bbox.AP50", f"Boxes, unseen classes, {where}")}'
        f"{_card(report, 'segm.AP50', f'Masks, unseen classes, {where}')}</div>"
    )


def _card(report: EvaluationReport, figure: str, title: str) -> str:
    """The main variant's figure in large, and a bar for each variant."""
    values = {v: mean_over_sets(report.summaries(v), "unseen", figure) for v in report.variants}
    shown = {variant: value for variant, value in values.items() if value is not None}
    big = f"{shown[MAIN_VARIANT]:.1f}" if MAIN_VARIANT in shown else "-"
    bars = "".join(
        f'<div class="bar{_marked(variant)}"><span>{escape(variant_name(variant))}</span>'
        f'<span class="track"><span class="fill" style="width:{value:.1f}%"></span></span>'
        f"<span>{value:.1f}</span></div>"
        for variant, value in shown.items()
    )
    return f'<section class="card"><h3>{title}</h3><div class="big">{big}</div>{bars}</section>'


def _marked(variant: str) -> str:
    return " main" if variant == MAIN_VARIANT else ""


def _results(report: EvaluationReport) -> str:
    body = []
    for data_set, rows in groupby(table_rows(report), key=lambda row: row[0]):
        for number, (_, variant, seeds, cells) in enumerate(rows):
            name = escape(data_set) if number == 0 else ""
            texts = "".join(f"<td>{text}</td>" for text in (name, escape(variant_name(variant)), seeds))
            numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
            body.append(f'<tr class="{_marked(variant).strip()}">{texts}{numbers}</tr>')
    head = "".join(f"<th>{text}</th>" for text in ("data set", "model", "seeds"))
    head += "".join(f'<th class="number">{column[0]}</th>' for column in COLUMNS)
    return scrolling_table(head, body)


def _figure(picture: PictureRecord) -> str:
    title = escape(f"{picture.data_set}, {SUBSETS[picture.subset]}: {', '.join(picture.classes)}")
    file = quote(picture.file)
    return (
        f'<figure><a href="{file}"><img src="{file}" alt="{title}" loading="lazy"></a>'
        f"<figcaption>{title} · {escape(picture.image)}</figcaption></figure>"
    )
