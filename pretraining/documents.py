"""Documents of one source, streamed in a fixed order, each process its own, from any place on."""

import gzip
import importlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from nautile.errors import NautileError
from nautile.pretraining.curriculum import Source, file_kind

_BROKEN_FILE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
_BROKEN_ROW = (ValueError, RecursionError)
_BATCH_ROWS = 256
_NAMED = 3

Row = Callable[[], object]
"""A row that was found but not parsed: calling it gives what stands in it."""


class Document(NamedTuple):
    """Plain text; or, where `answer` is not None, a turn of chat whose query is `text`."""

    text: str
    reasoning: str | None = None
    answer: str | None = None


class Cursor(NamedTuple):
    """A place in a source: `row` of `file` in the pass `epoch`; `passed` rows of this pass lie before it."""

    epoch: int = 0
    file: int = 0
    row: int = 0
    passed: int = 0


class Block(NamedTuple):
    """Consecutive documents of one pass, and how many blank ones were left out between them."""

    documents: list[Document]
    empty: int


@dataclass(frozen=True)
class Share:
    """Which rows of a pass a reader has: process p of n has those numbered p, p + n, p + 2n, …

    With `held_out`, the rows 0, held_out, 2 · held_out, … are for evaluation: with `evaluate` only they are
    numbered, without it only the others.
    """

    process: int = 0
    processes: int = 1
    held_out: int = 0
    evaluate: bool = False

    def __contains__(self, index: int) -> bool:
        if self.held_out:
            turn, place = divmod(index, self.held_out)
            if (place == 0) != self.evaluate:
                return False
            index = turn if self.evaluate else index - turn - 1
        return index % self.processes == self.process


class Reader:
    """The documents of a source that fall into a share, without end, pass after pass.

    `cursor` is the place behind the last row read. `corrupt` names what was passed over, ``file:line`` or a file's
    remainder; there may be at most `source.max_corrupt` names.
    """

    def __init__(self, source: Source, share: Share = Share()) -> None:
        self.source, self.share = source, share
        self.files = source.files()
        self.corrupt: dict[str, None] = {}
        self.seek(Cursor())

    def seek(self, cursor: Cursor) -> None:
        """Go on from another place."""
        self.cursor = cursor
        self._rest = self._pass()

    def read(self, size: int) -> Block:
        """The next `size` documents, fewer at the end of a pass, never none.

        Raises NautileError where a whole pass has none in this share, or too much is corrupt.
        """
        empty = 0
        for _ in range(2):
            documents: list[Document] = []
            while len(documents) < size and (found := next(self._rest, None)) is not None:
                if found.text:
                    documents.append(found)
                else:
                    empty += 1
            if len(documents) < size:
                self.seek(Cursor(self.cursor.epoch + 1))
            if documents:
                return Block(documents, empty)
        raise NautileError(
            f"source {self.source.name!r}: {self.source.location} holds no document for process {self.share.process} "
            f"of {self.share.processes}; {len(self.corrupt)} rows or files are corrupt, {empty} rows blank"
            + (f", every {self.share.held_out}th row is held out" if self.share.held_out else "")
        )

    def _pass(self) -> Iterator[Document]:
        """The rest of a pass, blank documents with an empty text; keeps `cursor` behind what it gave."""
        for file, (name, opened) in enumerate(_parts(self.source, self.files)):
            if file < self.cursor.file:
                continue
            rows = opened(self.cursor.row)
            while (row := self._next(rows, name)) is not None:
                epoch, _, number, passed = self.cursor
                self.cursor = Cursor(epoch, file, number + 1, passed + 1)
                if passed in self.share:
                    yield from self._parsed(row, f"{name}:{number + 1}")
            self.cursor = self.cursor._replace(file=file + 1, row=0)

    def _next(self, rows: Iterator[Row], name: str) -> Row | None:
        try:
            return next(rows, None)
        except _BROKEN_FILE as error:
            self._pass_over(f"{name} from row {self.cursor.row + 1} on", error)
            return None

    def _parsed(self, row: Row, place: str) -> Iterator[Document]:
        try:
            yield _document(row(), self.source)
        except _BROKEN_ROW as error:
            self._pass_over(place, error)

    def _pass_over(self, place: str, error: Exception) -> None:
        self.corrupt[place] = None
        if len(self.corrupt) > self.source.max_corrupt:
            raise NautileError(
                f"source {self.source.name!r}: {len(self.corrupt)} rows or files are corrupt, max_corrupt is "
                f"{self.source.max_corrupt}: {', '.join(islice(self.corrupt, _NAMED))}, … the last one: {error}"
            ) from error


def _document(row: object, source: Source) -> Document:
    """The document of a row, its text empty if there is nothing to learn from; ValueError for a row of another kind."""
    if not isinstance(row, dict):
        raise ValueError("the row is no JSON object")
    if source.format == "text":
        text = _cell(row, source.text, source.drop)
        return Document(text if text.strip() else "")
    drop = source.drop
    query, answer = _cell(row, source.query, drop), _cell(row, source.answer, drop)
    reasoning = None if row.get(source.reasoning) is None else _cell(row, source.reasoning, drop)
    return Document(query if query.strip() and answer.strip() else "", reasoning, answer)


def _cell(row: dict[str, object], column: str, drop: str) -> str:
    cell = row.get(column)
    if not isinstance(cell, str):
        raise ValueError(
            f"the column {column!r} " + ("is missing" if column not in row else f"is {cell!r:.50}, no text")
        )
    return cell.removesuffix(drop)


def _parts(source: Source, files: list[Path]) -> Iterable[tuple[str, Callable[[int], Iterator[Row]]]]:
    """For each file, or the one stream of the hub: its name, and what opens it from a row on."""
    if source.hub_name:
        return [(source.location, partial(_hub_rows, source))]
    return [(str(path), partial(_file_rows, path, source)) for path in files]


def _file_rows(path: Path, source: Source, start: int) -> Iterator[Row]:
    kind, packing = file_kind(path)
    if kind == "parquet":
        yield from _parquet_rows(path, source.columns, start)
        return
    with _unpacked(path, packing) as stream:
        for line in islice(stream, start, None):
            yield partial(_parse, line, source)


def _parse(line: bytes, source: Source) -> object:
    return json.loads(line) if line.strip() else dict.fromkeys(source.columns, "")


def _unpacked(path: Path, packing: str) -> BinaryIO:
    if packing == ".zst":
        return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
    openers = {"": open, ".gz": gzip.open, ".xz": lzma.open}
    return cast(Callable[[Path, str], BinaryIO], openers[packing])(path, "rb")


def _parquet_rows(path: Path, columns: tuple[str, ...], start: int) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if start >= rows:
                start -= rows
                continue
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=list(columns), use_threads=False):
                for place in range(min(start, batch.num_rows), batch.num_rows):
                    yield partial(_record, batch, place)
                start = max(0, start - batch.num_rows)


def _record(batch: pa.RecordBatch, place: int) -> dict[str, object]:
    return {name: column[place].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _hub_rows(source: Source, start: int) -> Iterator[Row]:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise NautileError(
            f"source {source.name!r} streams from the hub: install it with pip install datasets, or name local files"
        ) from None
    try:
        stream = datasets.load_dataset(source.hub_name, source.subset, split=source.split, streaming=True)
        for cells in stream.skip(start):
            yield partial(dict, cells)
    except OSError as error:
        raise NautileError(f"source {source.name!r}: the hub does not answer ({error}); resume the run") from error
