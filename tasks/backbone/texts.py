"""Unlabelled texts to learn from: sentences and phrases, from a corpus and from the labelled sets' texts.

python -m nautile.tasks.backbone.texts CORPUS DATA RUN
"""

import itertools
import json
import random
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Annotated

import typer
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from nautile.errors import NautileError
from nautile.tasks.corpus import rows, rows_to_learn

LONGEST = 400  # characters
PER_SOURCE = 40_000  # passages a file
FEWER = {  # long documents, of which few are like what people classify
    "american_literature": 10_000,
    "crd3": 10_000,
    "eltec_novels": 10_000,
    "sec_filings": 3_000,
    "senate_press_releases": 15_000,
    "us_court_opinions": 10_000,
    "us_presidents": 5_000,
}
PHRASES = 0.6  # so many passages are followed by a phrase of theirs
SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
SPEAKER = re.compile(r"^\s*(?:User|Assistant|A|B|Q|[A-Z]{2,12})\s*:\s*")
# Non-commercial, kept for zero-shot figures, or without texts of their own.
EXCLUDED = {"agnews", "banking77", "clinc150", "sroie_receipts", "tweet_sentiment"}


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


def phrase(passage: str, rng: random.Random) -> str:
    """A few words as headings have them, mostly in lower case: successive ones, or telling ones in their order."""
    words = [word.strip(".,;:!?()[]\"'*-_") for word in passage.split()]
    if rng.random() < 0.7:
        telling = [
            n
            for n, word in enumerate(words)
            if len(word) > 3 and word.isalpha() and word.lower() not in ENGLISH_STOP_WORDS
        ]
        start = rng.randrange(max(1, len(telling) - 3))
        near = telling[start : start + 6]
        chosen = [words[n] for n in sorted(rng.sample(near, min(len(near), rng.choice((1, 2, 2, 2, 3, 3, 4)))))]
    else:
        start = rng.randrange(len(words))
        chosen = words[start : start + rng.choice((1, 2, 2, 3, 3, 4, 5))]
    found = " ".join(filter(None, chosen))
    return found if rng.random() < 0.2 else found.lower()


def held_out(data: Path) -> set[str]:
    """The keys of all texts in dev and test splits."""
    paths = [path for split in ("dev", "test") for path in sorted(data.glob(f"*/*/{split}.jsonl.xz"))]
    return {key(str(row.get("text", ""))) for path in paths for row in rows(path)}


def gather(
    corpus: Path, data: Path, per_source: int = PER_SOURCE, seed: int = 0, only: Container[str] | None = None
) -> list[str]:
    """Distinct passages and phrases in random order, so that any beginning of the list is a fair sample.

    At most `per_source` passages a file, of the sources in `only` if it is given, and nothing that also stands in a
    dev or test split.

    Raises:
        NautileError: a folder without .jsonl.xz files.
    """
    kept_back = held_out(data)
    sources = {path.name.partition(".")[0]: path for path in sorted(corpus.glob("*.jsonl.xz"))}
    for path in sorted(data.glob("*/*/train.jsonl.xz")):
        if path.parent.name not in EXCLUDED:
            sources[path.parent.name] = path
    sources = {name: path for name, path in sources.items() if only is None or name in only}
    if not sources:
        raise NautileError(f"{corpus}, {data}: no .jsonl.xz files there")
    found: dict[str, None] = {}
    for name, path in sources.items():
        rng = random.Random(f"{seed}/{name}")
        texts_of = (row.get("text") or row.get("prompt") or row.get("question") or "" for row in rows_to_learn(path))
        documents = list(map(str, texts_of))
        rng.shuffle(documents)
        fresh = (
            p for d in documents for p in passages(d, rng) if p not in found and key(p) and key(p) not in kept_back
        )
        chosen = list(itertools.islice(fresh, min(per_source, FEWER.get(name, per_source))))
        found.update(dict.fromkeys(chosen))
        phrases = (phrase(p, rng) for p in chosen if rng.random() < PHRASES)
        found.update(dict.fromkeys(p for p in phrases if key(p) and key(p) not in kept_back))
    texts = list(found)
    random.Random(seed).shuffle(texts)
    return texts


def save_json(path: Path, value: object) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".tmp")
    part.write_text(json.dumps(value))
    part.replace(path)


def main(
    corpus: Annotated[Path, typer.Argument(help="folder of NAME.jsonl.xz")],
    data: Annotated[Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz")],
    run: Annotated[Path, typer.Argument(help="folder of the run: gets texts.json")],
) -> None:
    """Gather the texts that a backbone learns from."""
    run.mkdir(parents=True, exist_ok=True)
    save_json(run / "texts.json", gather(corpus, data))


if __name__ == "__main__":
    typer.run(main)
