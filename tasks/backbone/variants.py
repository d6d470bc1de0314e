"""Variants of labelled texts, for the critic to judge: what a few words do to sentiment is seen where they stand alone.

Tang et al. 2019, "Distilling task-specific knowledge from BERT into simple neural networks", has the idea that a small
model learns a teacher's judgments best on many variants of the task's own texts.
"""

import math
import random
from collections.abc import Sequence

JOINTS = ("", "", ",", "and", "but", "but", "though", "yet", "or")
KEPT = 0.85  # of the words, where some are left out
KINDS = {"piece": 5, "thinned": 2, "joined": 3}


def piece(words: Sequence[str], rng: random.Random) -> list[str]:
    """Successive words, fewer than all of them where there are several; short runs as likely as long ones."""
    count = round(math.exp(rng.uniform(0, math.log(max(1, len(words) - 1)))))
    start = rng.randrange(len(words) - count + 1)
    return list(words[start : start + count])


def variant(words: Sequence[str], others: Sequence[str], rng: random.Random) -> str:
    """A piece of the words, the words without some, or a beginning of them before an end of others."""
    [kind] = rng.choices(list(KINDS), list(KINDS.values()))
    if kind == "piece":
        found = piece(words, rng)
    elif kind == "thinned":
        found = [word for word in words if rng.random() < KEPT]
    else:
        first, second = rng.randint(1, len(words)), rng.randrange(len(others))
        found = [*words[:first], rng.choice(JOINTS), *others[second:]]
    return " ".join(filter(None, found))


def variants(texts: Sequence[str], count: int, longest: int, rng: random.Random) -> list[str]:
    """Up to `count` distinct variants of at most `longest` characters, of texts drawn at random.

    Whatever texts there are, no more than twice as many are tried.
    """
    split = [words for words in (text.split() for text in texts) if words]
    found: dict[str, None] = {}
    for _ in range(2 * count if split else 0):
        made = variant(rng.choice(split), rng.choice(split), rng)
        if 0 < len(made) <= longest:
            found[made] = None
        if len(found) == count:
            break
    return list(found)
