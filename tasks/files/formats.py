"""Which format a file has, by its name or by what the user said."""

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from nautile.errors import NautileError

_KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PACKINGS = (".gz", ".bz2", ".xz")
KINDS = ("csv", "tsv", "jsonl", "parquet")
_EXCEL = (".xlsx", ".xls")


@dataclass(frozen=True)
class Format:
    """What is in a file: its kind, one of KINDS, and how it is packed: "", ".gz", ".bz2" or ".xz"."""

    kind: str
    packing: str = ""


def format_of(path: Path, given: str | None = None, written: bool = False) -> Format:
    """The format that the suffix of a file, read or `written`, tells, else the kind `given`; raises NautileError."""
    if path.is_dir():
        raise NautileError(f"{path} is a folder; name a file in it")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packing = suffixes.pop() if suffixes and suffixes[-1] in _PACKINGS else ""
    suffix = suffixes[-1] if suffixes else ""
    kind = _KINDS.get(suffix, check_kind(given) if given else None)
    if kind is None:
        raise NautileError(f"{path}: {_advice(suffix, written)}")
    if packing and kind == "parquet":
        raise NautileError(f"{path}: Parquet is compressed inside; unpack the file or drop {packing} from its name")
    return Format(kind, packing)


def _advice(suffix: str, written: bool) -> str:
    if suffix in _EXCEL and not written:
        return "this looks like an Excel file; save it as comma-separated UTF-8, .csv"
    named = "no format has this suffix; name the file .csv, .tsv, .jsonl or .parquet (text also .gz, .bz2, .xz)"
    return named if written else f"{named}, or pass --format for the input"


def check_kind(kind: str) -> str:
    """`kind` in lower case if it is one of KINDS; raises NautileError."""
    if kind.lower() not in KINDS:
        raise NautileError(f"unknown format {kind!r}; choose one of {', '.join(KINDS)}")
    return kind.lower()


@contextmanager
def unpacked(path: Path, packing: str) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed as they are read."""
    openers = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener = cast(Callable[[Path, str], BinaryIO], openers[packing])
    with opener(path, "rb") as stream:
        yield stream


@contextmanager
def packed(stream: BinaryIO, packing: str) -> Iterator[BinaryIO]:
    """A place to write that compresses into `stream`: the same bytes for the same content, at any time."""
    if packing == "":
        yield stream
    elif packing == ".gz":
        with gzip.GzipFile("", "wb", 6, stream, mtime=0) as zipped:
            yield cast(BinaryIO, zipped)
    else:
        with bz2.open(stream, "wb") if packing == ".bz2" else lzma.open(stream, "wb") as zipped:
            yield cast(BinaryIO, zipped)
