"""CSV and TSV: every cell stays the string it was, and no row may have a cell too many or too few."""

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from nautile.errors import NautileError
from nautile.tasks.files.lines import LONGEST_LINE


@dataclass(frozen=True)
class Dialect:
    """How cells are told apart: the character between them, and whether quote marks enclose a cell.

    `chosen`: the user named the delimiter, so a header without it is no reason to doubt.
    """

    delimiter: str = ","
    quotes: bool = True
    chosen: bool = False

    @classmethod
    def of(cls, kind: str, delimiter: str | None = None, quotes: bool = True) -> Self:
        """That of a csv or tsv file, with the delimiter that a user gave, if one is given ("tab" is one as well)."""
        if delimiter is None:
            return cls("\t" if kind == "tsv" else ",", quotes)
        return cls({"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter), quotes, chosen=True)

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n\0':
            raise NautileError(f"--delimiter {self.delimiter!r}: give one character, such as ';' or '\\t'")


def read_delimited(
    lines: Iterator[str], name: str, dialect: Dialect
) -> tuple[list[str], Iterator[tuple[list[object], int]]]:
    """The header, and the rows with their size in characters.

    A blank line is no row, but in a file of one column it is an empty cell. Raises NautileError that names the
    line: no header, a column named twice, a ragged row, a quote never closed, text after a closing quote.
    """
    records = _records(lines, name, dialect)
    header = next((cells for _, cells in records if cells), None)
    if header is None:
        raise NautileError(f"{name} is empty: it has no header line")
    twice = [column for column, times in Counter(header).items() if times > 1]
    if twice:
        raise NautileError(f"{name}: the header names the column {twice[0]!r} more than once; rename one of them")
    _check_delimiter(header, name, dialect)
    return header, _rows(records, len(header), name)


def _rows(records: Iterator[tuple[int, list[str]]], width: int, name: str) -> Iterator[tuple[list[object], int]]:
    for line, cells in records:
        if not cells:
            if width > 1:
                continue
            cells = [""]
        if len(cells) != width:
            raise NautileError(f"{name}, line {line}: {len(cells)} cells, but the header has {width}")
        yield list(cells), sum(map(len, cells))


def _records(lines: Iterator[str], name: str, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_MINIMAL if dialect.quotes else csv.QUOTE_NONE,
        strict=True,
    )
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise NautileError(f"{name}, line {line}: {_explained(error)}") from error
        yield line, cells


def _explained(error: csv.Error) -> str:
    hint = "; if quote marks are ordinary characters in this file, pass --no-quotes"
    if "unexpected end" in str(error):
        return f"a quote that opens in this row is never closed{hint}"
    if "field limit" in str(error):
        return f"a cell of over {LONGEST_LINE:,} characters; is a quote never closed?{hint}"
    return f"a quoted cell goes on after its closing quote{hint}"


def _check_delimiter(header: list[str], name: str, dialect: Dialect) -> None:
    if len(header) > 1 or dialect.chosen:
        return
    for other in ";\t|,":
        if other in header[0]:
            raise NautileError(
                f"{name}: the header is the one column {header[0]!r}; if {other!r} parts the columns, "
                f"pass --delimiter {other!r}"
            )
