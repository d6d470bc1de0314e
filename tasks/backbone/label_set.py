"""What zero-shot learns from: texts, the labels that fit them, and how labels may be put."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Wordings = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class LabelSet:
    """Texts, the labels each one carries, the wordings of each label, frames around them, and how often it is drawn."""

    texts: Sequence[str]
    labels: Sequence[Sequence[str]]
    wordings: Wordings
    frames: tuple[str, ...] = ("{}",)
    weight: float = 1.0

    def wording(self, label: str, rng: random.Random) -> str:
        """One way to put the label."""
        return rng.choice(self.frames).format(rng.choice(self.wordings[label]))
