"""How good a sentiment model is on the dev splits, beside VADER on the same rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from nautile.tasks.heads.sentiment_data import (
    LABELS,
    MEASURED,
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    TRAINING,
    Example,
    Source,
    read_split,
)
from nautile.tasks.judge import Judge

VADER_NEUTRAL = 0.05


class Figures(NamedTuple):
    """Scores of one system on one set; the neutral ones are None where the set has no neutral rows."""

    accuracy: float
    macro_f1: float
    neutral_precision: float | None
    neutral_recall: float | None


def figures(probabilities: np.ndarray, truth: np.ndarray, has_neutral: bool) -> Figures:
    """Scores from probabilities (rows, 3); a set without neutral rows is decided between negative and positive."""
    if not has_neutral:
        found = np.where(probabilities[:, POSITIVE] >= probabilities[:, NEGATIVE], POSITIVE, NEGATIVE)
        return Figures(accuracy_score(truth, found), f1_score(truth, found, average="macro"), None, None)
    found = probabilities.argmax(1)
    precision, recall, _, _ = precision_recall_fscore_support(truth, found, labels=[NEUTRAL], zero_division=0)
    accuracy, macro = accuracy_score(truth, found), f1_score(truth, found, average="macro")
    return Figures(accuracy, macro, float(precision[0]), float(recall[0]))


def nautile_probabilities(judge: Judge, examples: Sequence[Example]) -> np.ndarray:
    """(rows, 3) from the judge."""
    columns = judge([example.text for example in examples])
    return np.array([columns[label] for label in LABELS], dtype=float).T


def vader_probabilities(examples: Sequence[Example]) -> np.ndarray:
    """(rows, 3) scores that rank as VADER's compound score does, neutral within 0.05 of zero as its authors say."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    compound = np.array([analyzer.polarity_scores(example.text)["compound"] for example in examples])
    return np.stack([-compound, np.full_like(compound, VADER_NEUTRAL), compound], axis=1)


def measure(judge: Judge, data: Path) -> dict[str, dict[str, Figures]]:
    """Figures of nautile and VADER on the dev split of each measured set."""
    results = {}
    for name in MEASURED:
        has_neutral = TRAINING.get(name, Source()).has_neutral
        examples = list(read_split(data, name, "dev"))
        truth = np.array([example.label for example in examples])
        results[f"{name} ({len(examples):,})"] = {
            "nautile": figures(nautile_probabilities(judge, examples), truth, has_neutral),
            "VADER": figures(vader_probabilities(examples), truth, has_neutral),
        }
    return results
