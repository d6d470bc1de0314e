"""Rows of .jsonl.xz files, and the documents of a corpus: most to learn from, every fiftieth to measure on."""

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nautile.errors import NautileError

HELD_OUT = 50


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl.xz file."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def rows_to_learn(path: Path) -> Iterator[dict[str, Any]]:
    """The rows, without those that say they were made of AG News: its topics are for zero-shot figures."""
    return (row for row in rows(path) if not str(row.get("source", "")).startswith("ag_news"))


def sources(corpus: Path) -> dict[str, Path]:
    """The files of a corpus by name; raises NautileError where there is none."""
    found = {path.name.partition(".")[0]: path for path in sorted(corpus.glob("*.jsonl.xz"))}
    if not found:
        raise NautileError(f"{corpus}: no NAME.jsonl.xz there; give the folder of a corpus")
    return found


def documents(path: Path, held_out: bool) -> Iterator[str]:
    """The texts of a source that are for measuring, or the others."""
    for number, row in enumerate(rows(path)):
        if (number % HELD_OUT == 0) == held_out and (text := str(row.get("text", "")).strip()):
            yield text
