"""The rows that emotion, intent and topic learn from, as frames with `text` and `label` or `labels`.

Each is made of the labelled sets, the corpus and, where that kept something, the backbone's run.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from nautile.tasks.backbone.heads.halves import calibrates, kept_back
from nautile.tasks.backbone.heads.topics import topic_passages
from nautile.tasks.backbone.teacher import Teacher
from nautile.tasks.backbone.texts import key, save_json
from nautile.tasks.corpus import rows

Row = dict[str, Any]

OUT_OF_SCOPE = "out_of_scope"
ADDED = "added"  # marks rows that are there to be learned from alone
KEPT_BACK = 0.15  # of a head's rows, to choose its regularisation, move its biases, without a dev split to calibrate
OUTSIDE = 3000  # utterances and questions that ask for none of the intents


def emotion_rows(data: Path, corpus: Path, run: Path) -> pd.DataFrame:
    """GoEmotions: 27 emotions and neutral, several a text."""
    return _emotions(_unseen(data / "sentiment" / "goemotions"))


def emotion_calibration(data: Path) -> pd.DataFrame:
    """Half of GoEmotions' dev split."""
    return _emotions(_for_calibration(data / "sentiment" / "goemotions"))


def intent_rows(data: Path, corpus: Path, run: Path, seed: int = 0) -> pd.DataFrame:
    """CLINC150, its out-of-scope rows, and more of these from small talk, questions and comments.

    Added rows have at least six words (a short line may well be a greeting), and questions ask for no definition.
    """
    found = _unseen(data / "intent" / "clinc150")
    own = _intents(found)
    questions = rows(data / "topic" / "trec6" / "train.jsonl.xz")
    outside = [str(row["text"]) for row in questions if row["label"] not in ("description", "abbreviation")]
    outside += [str(row["text"]) for row in rows(data / "sentiment" / "goemotions" / "train.jsonl.xz")]
    for row in rows(corpus / "self_dialogue.jsonl.xz"):
        outside += [line.partition(": ")[2] for line in str(row["text"]).splitlines()[:3]]
    several = [text.lower() for text in outside if len(text.split()) >= 6]
    chosen = random.Random(seed).sample(several, OUTSIDE)
    more = pd.DataFrame({"text": chosen, "label": OUT_OF_SCOPE, ADDED: True})
    return pd.concat([own.assign(**{ADDED: False}), more], ignore_index=True)


def intent_calibration(data: Path) -> pd.DataFrame:
    """Half of CLINC150's dev split."""
    return _intents(_for_calibration(data / "intent" / "clinc150"))


def part(frame: pd.DataFrame, share: float = KEPT_BACK) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to train on and rows kept back from that: about a share of those that were not added.

    The same rows whenever a head is fitted, also where others came or went: the backbone has not learned from them.
    """
    held = frame["text"].map(lambda text: kept_back(text, share)).astype(bool)
    own = ~frame[ADDED] if ADDED in frame else True
    return frame[~held], frame[held & own]


def topic_rows(data: Path, corpus: Path, run: Path, encoder: Path | None = None) -> pd.DataFrame:
    """Parts of encyclopedia articles and other texts, by topic; found once and kept in `run/topics.json`."""
    kept = run / "topics.json"
    if not kept.exists():
        save_json(kept, topic_passages(corpus, Teacher(encoder)))
    return pd.DataFrame(json.loads(kept.read_text()), columns=["text", "label"])


def _emotions(found: list[Row]) -> pd.DataFrame:
    return pd.DataFrame({"text": [str(row["text"]) for row in found], "labels": [row["labels"] for row in found]})


def _intents(found: list[Row]) -> pd.DataFrame:
    labels = [OUT_OF_SCOPE if row["label"] == "oos" else str(row["label"]) for row in found]
    return pd.DataFrame({"text": [str(row["text"]) for row in found], "label": labels})


def _for_calibration(folder: Path) -> list[Row]:
    return [row for row in rows(folder / "dev.jsonl.xz") if key(str(row["text"])) and calibrates(str(row["text"]))]


def _unseen(folder: Path) -> list[Row]:
    """The training rows whose text does not stand in the dev split."""
    dev = {key(str(row["text"])) for row in rows(folder / "dev.jsonl.xz")}
    return [
        row for row in rows(folder / "train.jsonl.xz") if key(str(row["text"])) and key(str(row["text"])) not in dev
    ]


ROWS: dict[str, Callable[[Path, Path, Path], pd.DataFrame]] = {
    "emotion": emotion_rows,
    "intent": intent_rows,
    "topic": topic_rows,
}
