"""Where rows come from: a file, standard input, or texts given on the command line."""

import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from nautile.errors import NautileError
from nautile.tasks.files.chunks import Chunk, ListChunk, grouped, text_schema
from nautile.tasks.files.delimited import Dialect, read_delimited
from nautile.tasks.files.formats import Format, unpacked
from nautile.tasks.files.json_lines import read_json_lines
from nautile.tasks.files.lines import decoded_lines
from nautile.tasks.files.parquet import read_parquet
from nautile.tasks.files.values import has_halves


@dataclass(frozen=True)
class Rows:
    """Input that is open: its columns with their types, and its rows, once."""

    schema: pa.Schema
    chunks: Iterator[Chunk]

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.schema.names)


@dataclass(frozen=True)
class TextSource:
    """Texts from the command line, as the one column `text`."""

    texts: Sequence[str]
    path: None = None
    name: str = "--text"
    repeatable: bool = False

    @contextmanager
    def open(self) -> Iterator[Rows]:
        """The texts as one chunk."""
        broken = sum(has_halves(text) for text in self.texts)
        chunk = ListChunk(["text"], [[text] for text in self.texts], broken)
        yield Rows(text_schema(["text"]), iter([chunk]))

    def fingerprint(self) -> dict[str, object]:
        """The texts."""
        return {"texts": list(self.texts)}


@dataclass(frozen=True)
class FileSource:
    """A file, or standard input where `path` is None; at most `limit` rows of it."""

    path: Path | None
    format: Format
    encoding: str = "utf-8"
    dialect: Dialect = field(default_factory=Dialect)
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.path is not None and not self.path.exists():
            raise NautileError(f"{self.path}: there is no such file")
        if self.path is not None and self.path.is_dir():
            raise NautileError(f"{self.path} is a folder; name a file in it")
        if self.format.kind == "parquet" and not self.repeatable:
            raise NautileError("Parquet is read from its end, so it can't come through a pipe; name a file")

    @property
    def name(self) -> str:
        """What to call the source in a message."""
        return "standard input" if self.path is None else str(self.path)

    @property
    def repeatable(self) -> bool:
        """Whether the source can be read twice: a regular file can, a pipe can't."""
        return self.path is not None and stat.S_ISREG(self.path.stat().st_mode)

    @contextmanager
    def open(self) -> Iterator[Rows]:
        """Read the header; the chunks follow as they are asked for. Raises NautileError on bad input."""
        with ExitStack() as stack:
            yield self._parquet(stack) if self.format.kind == "parquet" else self._text(stack)

    def fingerprint(self) -> dict[str, object]:
        """The file's place, size and time of change, and how it is read."""
        if self.path is None or not self.repeatable:
            return {"input": self.name}
        status = self.path.stat()
        return {
            "input": str(self.path.resolve()),
            "input size": status.st_size,
            "input time of change": status.st_mtime_ns,
            "input format": self.format.kind + self.format.packing,
            "encoding": self.encoding,
            "delimiter": self.dialect.delimiter,
            "quotes": self.dialect.quotes,
            "limit": self.limit,
        }

    def _parquet(self, stack: ExitStack) -> Rows:
        assert self.path is not None
        schema, chunks = stack.enter_context(read_parquet(self.path, self.limit))
        return Rows(schema, chunks)

    def _text(self, stack: ExitStack) -> Rows:
        raw = stack.enter_context(unpacked(self.path, self.format.packing)) if self.path else _standard_input()
        if self.format.kind == "jsonl":
            lines = decoded_lines(raw, self.name, self.encoding, newline="\n")
            columns, chunks = read_json_lines(lines, self.name, self.limit)
            return Rows(text_schema(columns), chunks)
        lines = decoded_lines(raw, self.name, self.encoding, newline="")
        columns, rows = read_delimited(lines, self.name, self.dialect)
        return Rows(text_schema(columns), (ListChunk(columns, group) for group in grouped(islice(rows, self.limit))))


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise NautileError("standard input is closed; give a file")
    return sys.stdin.buffer


Source = TextSource | FileSource
"""Rows that can be opened, and opened again with the same chunks where `repeatable` is true."""
