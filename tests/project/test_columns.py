"""Rows as lines of aligned columns."""

from hypothesis import given
from hypothesis import strategies as st

from unispector.project.columns import columns

CELLS = st.text("abc", max_size=4)


@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width))))
def test_every_cell_begins_where_its_column_begins(rows):
    lines = columns(rows)
    assert len(lines) == len(rows)
    start = 0
    for column in zip(*rows, strict=True):
        width = max(map(len, column))
        assert [line[start : start + width].strip() for line in lines] == list(column)
        start += width + 2
    assert all(len(line) <= max(start - 2, 0) and line == line.rstrip() for line in lines)
