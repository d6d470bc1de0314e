"""Rows on their way through a job, a chunk at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from nautile.tasks.files.values import as_text

CHUNK_ROWS = 2048
CHUNK_CHARACTERS = 8 << 20

Row = TypeVar("Row")


@dataclass(frozen=True)
class ListChunk:
    """Rows from a text file. As an Arrow table every column is text, and None is null."""

    columns: Sequence[str]
    rows: list[list[object]]
    broken: int = 0
    """How many of the rows hold half of a surrogate pair."""

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, column: str) -> list[object]:
        """The cells of one column, in row order."""
        place = self.columns.index(column)
        return [row[place] for row in self.rows]

    @property
    def nuls(self) -> int:
        """How many of the rows hold a NUL character in a text."""
        return sum(any(isinstance(cell, str) and "\0" in cell for cell in row) for row in self.rows)

    def records(self) -> Iterable[Sequence[object]]:
        """The rows, each with its cells in column order."""
        return self.rows

    def table(self) -> pa.Table:
        """The rows as an Arrow table of strings."""
        texts = [[None if row[i] is None else as_text(row[i]) for row in self.rows] for i in range(len(self.columns))]
        return pa.Table.from_arrays(
            [pa.array(column, pa.string()) for column in texts], schema=text_schema(self.columns)
        )


@dataclass(frozen=True)
class TableChunk:
    """Rows from a Parquet file."""

    rows: pa.Table
    broken: int = 0

    def __len__(self) -> int:
        return self.rows.num_rows

    def values(self, column: str) -> list[object]:
        """The cells of one column, in row order."""
        return _cells(self.rows.column(column))

    @property
    def nuls(self) -> int:
        """How many of the rows hold a NUL character in a text."""
        found = [pc.fill_null(pc.match_substring(column, "\0"), False) for column in _texts(self.rows)]
        return pc.sum(reduce(pc.or_, found)).as_py() if found else 0

    def records(self) -> Iterable[Sequence[object]]:
        """The rows, each with its cells in column order."""
        return zip(*map(_cells, self.rows.columns), strict=True)

    def table(self) -> pa.Table:
        """The rows as they were read."""
        return self.rows


def _texts(table: pa.Table) -> Iterator[pa.ChunkedArray]:
    """The columns of texts, categorical ones too."""
    for column in table.columns:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            yield column.cast(kind)


def _cells(column: pa.ChunkedArray) -> list[object]:
    """Python's values; as texts where it has no word for some: dates after 9999, times of day in nanoseconds.

    Times of a zone that is not known are those of UTC.
    """
    if column.type == pa.time64("ns"):
        return column.cast(pa.string()).to_pylist()
    try:
        return column.to_pylist()
    except (OverflowError, ValueError):
        pass
    try:
        return column.cast(pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if (known := _in_utc(column.type)) == column.type:
            raise
        return _cells(column.cast(known))


def _in_utc(kind: pa.DataType) -> pa.DataType:
    """The type with UTC in place of all time zones, those inside lists and structs as well."""
    if pa.types.is_timestamp(kind) and kind.tz:
        return pa.timestamp(kind.unit, "UTC")
    if pa.types.is_list(kind):
        return pa.list_(_in_utc(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_in_utc(field.type)) for field in kind.fields])
    return kind


Chunk = ListChunk | TableChunk
"""Some consecutive rows of the input, with every column of it."""


def text_schema(columns: Sequence[str]) -> pa.Schema:
    """A schema of strings, for input that has no types."""
    return pa.schema([(name, pa.string()) for name in columns])


def grouped(rows: Iterable[tuple[Row, int]]) -> Iterator[list[Row]]:
    """Cut (row, characters) pairs into chunks of at most CHUNK_ROWS and, beyond one row, CHUNK_CHARACTERS."""
    group: list[Row] = []
    characters = 0
    for row, size in rows:
        if group and (len(group) == CHUNK_ROWS or characters + size > CHUNK_CHARACTERS):
            yield group
            group, characters = [], 0
        group.append(row)
        characters += size
    if group:
        yield group
