"""Unlabelled texts to learn from: one to three sentences each, from a corpus and from the labelled sets' texts."""

import json
import lzma
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nautile.errors import NautileError

LONGEST = 400  # characters
SHORT = 48  # characters: what may stand as a label
SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
SPEAKER = re.compile(r"^\s*(?:User|Assistant|A|B|Q|[A-Z]{2,12})\s*:\s*")
# Non-commercial, kept for zero-shot figures, or without texts of their own.
EXCLUDED = {"agnews", "banking77", "clinc150", "sroie_receipts", "tweet_sentiment"}


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl.xz file."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def key(text: str) -> str:
    """What two texts share that differ in spacing, punctuation and case alone."""
    return "".join(filter(str.isalnum, text.lower()))


def passages(document: str, rng: random.Random) -> Iterator[str]:
    """Cut a document into runs of one to three sentences (mostly one) of at most `LONGEST` characters."""
    sentences = [SPEAKER.sub("", part).strip(" -*\t") for part in SENTENCE.split(document)]
    sentences = [part for part in sentences if len(part) > 2]
    at = 0
    while at < len(sentences):
        count = rng.choices((1, 2, 3), (6, 2, 1))[0]
        yield " ".join(sentences[at : at + count])[:LONGEST]
        at += count


def held_out(data: Path) -> set[str]:
    """The keys of all texts in dev and test splits."""
    paths = [path for split in ("dev", "test") for path in sorted(data.glob(f"*/*/{split}.jsonl.xz"))]
    return {key(str(row.get("text", ""))) for path in paths for row in rows(path)}


def gather(corpus: Path, data: Path, per_source: int = 40_000, seed: int = 0) -> list[str]:
    """Distinct passages, at most `per_source` a file; nothing that also stands in a dev or test split.

    Raises:
        NautileError: a folder without .jsonl.xz files.
    """
    kept_back = held_out(data)
    sources = sorted(corpus.glob("*.jsonl.xz")) + sorted(
        path for path in data.glob("*/*/train.jsonl.xz") if path.parent.name not in EXCLUDED
    )
    if not sources:
        raise NautileError(f"{corpus}, {data}: no .jsonl.xz files there")
    found: dict[str, None] = {}
    for path in sources:
        rng = random.Random(f"{seed}/{path.parent.name}/{path.name}")
        documents = [str(row.get("text") or row.get("prompt") or row.get("question") or "") for row in rows(path)]
        rng.shuffle(documents)
        fresh = (
            p for d in documents for p in passages(d, rng) if p not in found and key(p) and key(p) not in kept_back
        )
        found.update(dict.fromkeys(_first(fresh, per_source)))
    return list(found)


def _first(items: Iterable[str], count: int) -> Iterator[str]:
    for _, item in zip(range(count), items, strict=False):
        yield item
