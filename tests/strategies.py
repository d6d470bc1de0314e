"""Hypothesis strategies that several test files share."""

from hypothesis import strategies as st


@st.composite
def masks(draw: st.DrawFn, most_rows: int = 3, most_columns: int = 9) -> list[list[int]]:
    """A padding mask (B,L) with pads anywhere and at least one real token a row."""
    rows, columns = draw(st.integers(1, most_rows)), draw(st.integers(1, most_columns))
    row = st.lists(st.integers(0, 1), min_size=columns, max_size=columns).filter(any)
    return draw(st.lists(row, min_size=rows, max_size=rows))


@st.composite
def cuts(draw: st.DrawFn, longest: int = 12) -> tuple[int, list[int]]:
    """A length, and the places (increasing, inside) at which a sequence of this length is cut."""
    length = draw(st.integers(2, longest))
    return length, sorted(draw(st.sets(st.integers(1, length - 1), min_size=1, max_size=4)))


def seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 10_000)
