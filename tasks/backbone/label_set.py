"""What zero-shot learns from: texts, the labels that fit them, and how labels may be put."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from nautile.tasks.zero_shot.labels import spoken

Wordings = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class LabelSet:
    """Texts, the labels each one carries, the wordings of each label, frames around them, and how often it is drawn."""

    texts: Sequence[str]
    labels: Sequence[Sequence[str]]
    wordings: Wordings
    frames: tuple[str, ...] = ("{}",)
    weight: float = 1.0

    @classmethod
    def of(
        cls,
        pairs: Iterable[tuple[str, list[str]]],
        wordings: Wordings,
        frames: tuple[str, ...],
        weight: float = 1.0,
    ) -> Self:
        """The set of texts with their labels; a label without `wordings` (by its name in lower case) is its own."""
        texts, labels = zip(*pairs, strict=True)
        names = sorted({name for found in labels for name in found})
        return cls(texts, labels, {name: wordings.get(name.lower(), (spoken(name),)) for name in names}, frames, weight)

    def wording(self, label: str, rng: random.Random) -> str:
        """One way to put the label."""
        return rng.choice(self.frames).format(rng.choice(self.wordings[label]))
