"""The templates: whatever a report says is shown to the letter, in HTML and in Markdown."""

import re

import pytest
from markdown_it import MarkdownIt

from html_page import Page
from unispector.evaluation.intervals import Interval
from unispector.reporting.charts import Line, LineChart
from unispector.reporting.model import (
    Bullets,
    Card,
    Charts,
    Command,
    Figure,
    Fold,
    Measured,
    Report,
    Row,
    Section,
    Span,
    Subheading,
    Table,
    Text,
    coded,
)
from unispector.reporting.render import html, markdown, plain_text

HOSTILE = (
    "<b>&\"'|`x",
    "</title></style><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "# a",
    "- a",
    "+ a",
    "1. a",
    "> a",
    "---",
    "===",
    "~~~",
    "```",
    "`a ``b",
    "| a | b |",
    "a\\|b\\",
    "*a* __b__ ~~c~~ [d](e) ![f](g) <http://h.example>",
    "&lt;b&gt; &amp; &#60;",
    "two\nlines",
    "[a]: /b",
    "{{ 7 * 7 }} {% raw %} {# a #}",
    "   four spaces",
)
URI = "data:image/png;base64,UE5H"


def report_of(name):
    """A report with the name in every place that takes one."""
    parts = (name, " ", Span(name, "strong"), " ", Span(name, "code"), " ", Span(name, "link", "x.html"))
    table = Table.of(
        (name, name), (name,), [(name, Span(name, "code"), name), Row((name, name, Measured(1.0)), True)]
    )
    blocks = (
        Text(parts),
        Text(name, True),
        table,
        Bullets((name, parts)),
        Subheading(name),
        Command(name),
        Figure("a b/<1>.png", name, parts),
        Fold(name, (table, Text(name))),
    )
    card = Card("key", name, Measured(2.0, 1.0, Interval(1.0, 3.0)), ((name, 5.0, True),))
    return Report(parts, name, (name, parts), (name,), (card,), (Section(name, blocks, "key"),))


def page_of(report):
    return Page(html(report, {"a b/<1>.png": URI}))


@pytest.mark.parametrize("name", HOSTILE)
def test_html_has_the_structure_of_a_report_without_markup_in_its_names(name):
    page, harmless = page_of(report_of(name)), page_of(report_of("name"))
    assert page.tags == harmless.tags
    assert [key for key, _ in page.attributes] == [key for key, _ in harmless.attributes]
    assert page.texts.count(name) == harmless.texts.count("name")
    assert [value for _, value in page.attributes if value == name] == [name]  # the alt of the figure


READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def read(source):
    """Types of all tokens of a Markdown page, and the texts and codes in them."""
    types, texts = [], []
    for token in READER.parse(source):
        types.append(token.type)
        for child in token.children or ():
            types.append(child.type)
            inner = child.children or [child]  # the text of an image is in its children
            texts.append("".join(one.content for one in inner))
        if token.type == "code_block":
            texts.append(token.content.strip())
    return types, " ".join(texts)


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_has_the_structure_of_a_report_without_markup_in_its_names(name):
    types, text = read(markdown(report_of(name)))
    expected, harmless = read(markdown(report_of("name")))
    assert types == expected
    shown = " ".join(name.split())
    assert " ".join(text.split()) == re.sub("name", lambda _: shown, " ".join(harmless.split()))


def test_links_and_files_survive():
    tokens = [child for token in READER.parse(markdown(report_of("name"))) for child in token.children or ()]
    assert {child.attrs["href"] for child in tokens if child.type == "link_open"} == {"x.html"}
    assert {child.attrs["src"] for child in tokens if child.type == "image"} == {"a%20b/%3C1%3E.png"}


def test_figures_must_be_at_hand():
    with pytest.raises(Exception, match=r"a b/<1>\.png"):
        html(report_of("name"))


def test_charts_are_drawn_on_the_page_and_linked_in_markdown():
    chart = LineChart("<b>|", "x", 0, (Line("<i>", (0.0, 1.0), (1.0, 2.0)),))
    report = Report("a title", sections=(Section("s", (Charts({"one": chart}, "charts", "a note"),)),))
    page = Page(html(report))
    assert {"svg", "b", "i"} & set(page.tags) == {"svg"}
    assert {"<b>|", "<i>", "a note"} <= set(page.texts)
    assert "a note\n\n![\\<b\\>\\|](<charts/one.png>)\n" in markdown(report)
    hidden = Report("a title", sections=(Section("s", (Charts({"one": chart}),)),))
    assert markdown(hidden) == "# a title\n\n## s\n"


def test_a_page_asks_for_nothing_and_reads_on_phone_and_paper():
    source = html(Report("a title", "a lead"))
    assert 'name="viewport"' in source
    assert "@media print" in source
    assert "prefers-color-scheme: dark" in source
    for loader in ("http:", "https:", "url(", "@import", "<script", "<link", "<nav"):
        assert loader not in source


def test_code_in_a_text_of_ones_own():
    words = coded("run `make` or `a b`.")
    assert words == ("run ", Span("make", "code"), " or ", Span("a b", "code"), ".")
    assert plain_text(words) == "run make or a b."
    assert markdown(Report("t", words)) == "# t\n\nrun `make` or `a b`.\n"
