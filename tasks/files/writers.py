"""Rows with their results as bytes: a part for every chunk, and the parts joined to one file."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from nautile.tasks.files.chunks import Chunk
from nautile.tasks.files.delimited import Dialect
from nautile.tasks.files.formats import Format, packed
from nautile.tasks.files.values import as_json, as_text

_GROUP_ROWS = 1 << 16
_GROUP_BYTES = 1 << 26

Results = Mapping[str, list[object]]
"""The result columns, each as long as the chunk."""


class Writer(Protocol):
    """One output format."""

    def part(self, chunk: Chunk, results: Results) -> bytes:
        """The rows of one chunk, results last."""

    def join(self, parts: Iterable[bytes], stream: BinaryIO) -> None:
        """Write parts in their order as one whole file; the same parts give the same bytes."""


def writer_for(format: Format, dialect: Dialect, schema: pa.Schema, results: Mapping[str, pa.DataType]) -> Writer:
    """The writer of a format, for input of this schema and these result columns."""
    if format.kind == "parquet":
        return ParquetWriter(schema, results)
    columns = [*schema.names, *results]
    if format.kind == "jsonl":
        return TextWriter(b"", lambda rows: "".join(_json_lines(columns, rows)), format.packing)
    delimiter = "\t" if format.kind == "tsv" else dialect.delimiter
    return TextWriter(
        _delimited([columns], delimiter).encode(), lambda rows: _delimited(rows, delimiter), format.packing
    )


class TextWriter:
    """CSV, TSV and JSON Lines: UTF-8, parts joined as they are, after the header."""

    def __init__(self, header: bytes, lines: Callable[[Iterable[list[object]]], str], packing: str) -> None:
        self.header = header
        self._lines = lines
        self._packing = packing

    def part(self, chunk: Chunk, results: Results) -> bytes:
        """The rows of one chunk as lines."""
        extras = zip(*results.values(), strict=True)
        rows = ([*record, *extra] for record, extra in zip(chunk.records(), extras, strict=True))
        return self._lines(rows).encode()

    def join(self, parts: Iterable[bytes], stream: BinaryIO) -> None:
        """The header, with the first part rather than before it, and every part; compressed as the format says."""
        rest = iter(parts)
        first = next(rest, b"")
        with packed(stream, self._packing) as target:
            target.write(self.header + first)
            for part in rest:
                target.write(part)


class ParquetWriter:
    """Parquet with the input's schema and the result columns; parts are Arrow files."""

    def __init__(self, schema: pa.Schema, results: Mapping[str, pa.DataType]) -> None:
        self._schema = schema
        for name, kind in results.items():
            self._schema = self._schema.append(pa.field(name, kind))

    def part(self, chunk: Chunk, results: Results) -> bytes:
        """The rows of one chunk as an Arrow file."""
        table = chunk.table()
        for name, values in results.items():
            table = table.append_column(name, pa.array(values, self._schema.field(name).type))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self._schema) as file:
            file.write_table(table.cast(self._schema))
        return sink.getvalue().to_pybytes()

    def join(self, parts: Iterable[bytes], stream: BinaryIO) -> None:
        """Row groups of many parts each, so that the file reads fast."""
        with pq.ParquetWriter(stream, self._schema) as file:
            for table in _tables(parts):
                file.write_table(table, row_group_size=table.num_rows)


def _tables(parts: Iterable[bytes]) -> Iterator[pa.Table]:
    group: list[pa.Table] = []
    for part in parts:
        group.append(pa.ipc.open_file(part).read_all())
        rows, size = sum(table.num_rows for table in group), sum(table.nbytes for table in group)
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.concat_tables(group)
            group = []
    if group:
        yield pa.concat_tables(group)


def _json_lines(columns: list[str], rows: Iterable[list[object]]) -> Iterator[str]:
    for row in rows:
        yield as_json(dict(zip(columns, row, strict=True))) + "\n"


class _Lines(io.StringIO):
    """Takes the records of a `csv.writer` and ends them with a newline alone.

    The writer itself must end them with CR LF: only then does Python 3.11 quote a cell that holds a bare CR.
    """

    def write(self, record: str, /) -> int:
        return super().write(record[:-2] + "\n")


def _delimited(rows: Iterable[Iterable[object]], delimiter: str) -> str:
    text = _Lines(newline="")
    cells = ([as_text(cell).replace("\0", "\ufffd") for cell in row] for row in rows)  # no reader takes a NUL
    csv.writer(text, delimiter=delimiter).writerows(cells)
    return text.getvalue()
