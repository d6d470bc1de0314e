"""Decoded lines of a text file, and a plain word about the byte where decoding stops."""

import io
import lzma
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from nautile.errors import NautileError

LONGEST_LINE = 1 << 26
"""Characters in one line or cell; beyond it the file is taken for something else, before it fills the memory."""
MARK = "\ufeff"
"""Of byte order; most encodings leave it in the text."""

_MAGIC = {
    b"PK\x03\x04": "an Excel or ZIP file",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF file",
    b"SQLi": "an SQLite file",
}


class _Counted(io.BufferedIOBase):
    """Bytes that are counted as they pass, so that a bad one can be named by its line and place."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self.raw_stream, self.name = raw, name
        self.size = self.newlines = 0
        self.head = b""

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        try:
            block: bytes = self.raw_stream.read1(size)  # type: ignore[attr-defined]
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            raise NautileError(f"{self.name} cannot be read ({error}); is the file whole?") from error
        self.head = self.head or block[:4]
        self.size += len(block)
        self.newlines += block.count(b"\n")
        return block


def decoded_lines(raw: BinaryIO, name: str, encoding: str, newline: str) -> Iterator[str]:
    """The lines of `raw` with their ends, cut as `io.TextIOWrapper` cuts them for `newline`.

    Raises NautileError for an unknown encoding, an undecodable byte, a NUL and a line over LONGEST_LINE.
    """
    counted = _Counted(raw, name)
    try:
        text = io.TextIOWrapper(counted, encoding=encoding, newline=newline)
    except (LookupError, ValueError) as error:  # ValueError: a NUL in the name
        raise NautileError(f"--encoding {encoding}: there is no such text encoding") from error
    number = 0
    try:
        while line := text.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                raise NautileError(f"{name}, line {number}: over {LONGEST_LINE:,} characters; is this a text file?")
            if "\0" in line:
                raise NautileError(f"{name}, line {number}: a NUL character; {_kind_of_binary(counted.head)}")
            if number == 1:
                line = line.removeprefix(MARK)
            if line:
                yield line
    except UnicodeDecodeError as error:
        raise _undecodable(error, counted, encoding) from error
    except UnicodeError as error:
        raise NautileError(f"{name} is not {encoding}: {error}") from error


def _kind_of_binary(head: bytes) -> str:
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return f"this looks like {kind}"
    if head.count(0) == 2:
        return f"this looks like UTF-16: pass --encoding utf-16-{'be' if head[0] == 0 else 'le'}"
    return "the file is binary or damaged"


def _undecodable(error: UnicodeDecodeError, counted: _Counted, encoding: str) -> NautileError:
    rest = error.object[error.start :]
    line = counted.newlines - rest.count(b"\n") + 1
    place = counted.size - len(rest)
    where = f"{counted.name}, line {line}: byte 0x{rest[0]:02x} at offset {place} is not {encoding}"
    for magic, kind in _MAGIC.items():
        if counted.head.startswith(magic):
            return NautileError(f"{where}; this looks like {kind}")
    return NautileError(f"{where}; {_advice(error.object)}")


def _advice(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    matches = list(from_bytes(sample))
    if not matches:
        return "this looks like no text; if it is, name its encoding with --encoding"
    best = matches[0]
    ties = [match for match in matches if (match.chaos, match.coherence) == (best.chaos, best.coherence)]
    western = any("cp1252" in match.could_be_from_charset for match in ties)
    likely = "cp1252" if western else best.encoding.replace("_", "-")
    if likely in ("utf-8", "ascii"):
        return "the file may be damaged there; if it is in another encoding, pass --encoding"
    return f"it is likely {likely}: pass --encoding {likely}"
