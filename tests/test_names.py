"""One rule for names at every door, and what a terminal is shown."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispector.names import LONGEST, folder_name_problem, is_text, name_problem, shortened, shown

FORBIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
JOINERS = "\u200c\u200d"


@given(st.text(st.characters() | st.sampled_from(" \u3000\u200d\u202e"), max_size=8))
def test_a_name_is_visible_and_one_line(text: str):
    hidden = [char for char in text if unicodedata.category(char) in FORBIDDEN and char not in JOINERS]
    blank = not text.strip() or all(char.isspace() or char in JOINERS for char in text)
    assert bool(name_problem(text)) == bool(hidden or blank)


@given(st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Ll"]), max_size=30))
def test_what_is_shown_can_be_printed_and_stays_one_line(text: str):
    told = shown(text)
    told.encode()
    assert is_text(told)
    assert len(told.splitlines()) <= 1
    assert not [char for char in told if unicodedata.category(char) in FORBIDDEN]
    assert shown(told) == told


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (7, "is no text"),
        (None, "is no text"),
        ("", "is empty"),
        (" \u200d ", "is empty"),
        ("a\nb", r"a control character or line break \(\\x0a\)"),
        ("a\x1b[2Jb", r"a control character .* \(\\x1b\)"),
        ("a\tb", "control"),
        ("a\ud800", r"no UTF-8 \(\\ud800\)"),
        ("a\udcff", r"no UTF-8 \(\\xff\)"),
        ("gpj.\u202eexe", r"an invisible character \(\\u202e\)"),
        ("a\u00adb", "invisible"),
        ("\ufeffa", "invisible"),
        ("a" * (LONGEST + 1), f"longer than {LONGEST}"),
    ],
)
def test_why_a_name_cannot_be_one(name: object, why: str):

    assert re.search(why, name_problem(name))


@pytest.mark.parametrize(
    "name", ["Kratzer, außen", "划痕", "می‌خواهم", "👩‍🔧", "a/b", 'a "quoted" name', "a" * LONGEST]
)
def test_names_of_all_languages_are_names(name: str):
    assert name_problem(name) == ""


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", ".git", "C:x"])
def test_a_name_of_a_folder_stays_in_its_place(name: str):
    assert name_problem(name) == ""
    assert "folder" in folder_name_problem(name)
    assert folder_name_problem("insa-mini") == ""


def test_a_foreign_file_name_is_shown_by_its_bytes():
    assert shown("caf\udce9 \x1b[2J\u202e.png") == "caf\\xe9 \\x1b[2J\\u202e.png"


def test_a_line_keeps_its_beginning_and_its_remedy():
    assert shortened("a.png: " + "x" * 1990) == "a.png: " + "x" * 1990
    told = shortened("a.png: it is a " + "x" * 10**6 + "; correct it")
    assert told.startswith("a.png: it is a xxx")
    assert told.endswith("xxx; correct it")
    assert len(told) < 2010
