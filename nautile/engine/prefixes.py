"""A store of prefixes: each is read once, however many texts, calls and judges continue from it."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import chain
from operator import add, sub
from typing import Any

import torch

from nautile.engine.prefix import Prefix, read_prefix
from nautile.model.backbone import Backbone

MOST, MOST_TOKENS = 256, 65_536  # of nautile-mini, in float32: at most 170 MB


@dataclass(frozen=True)
class Counts:
    """What reading prefixes cost, and what it spared."""

    reads: int = 0
    """Prefixes that were read."""
    read_tokens: int = 0
    """Their tokens."""
    hits: int = 0
    """Texts that continued from a prefix in place of reading it; once for each prefix that a text continued from."""
    saved_tokens: int = 0
    """The tokens that these texts did not have to read."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(*map(sub, astuple(self), astuple(other)))


class Prefixes:
    """The prefixes that one model has read, by their ids and spans; the least recently used goes first.

    At most `most` are kept, of `most_tokens` in all, and always the last one. None outlives the weights that it was
    read with: all are forgotten once a weight was written (as autograd counts it), moved, converted or replaced.
    Whoever changes a model behind autograd's back, through `.data` or by switching an adapter, calls `clear`.
    """

    def __init__(self, model: Backbone, most: int = MOST, most_tokens: int = MOST_TOKENS) -> None:
        self.model, self.most, self.most_tokens = model, most, most_tokens
        self.counts = Counts()
        self._kept: dict[Any, Prefix] = {}  # the most recently used last
        self._weights = _stamp(model)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def tokens(self) -> int:
        """Of all prefixes that are kept."""
        return sum(prefix.tokens for prefix in self._kept.values())

    def read(self, ids: Sequence[int], spans: Sequence[tuple[int, int]] = ()) -> Prefix:
        """The prefix of `ids`, see `read_prefix`; read now if it is not kept. No gradient flows through it."""
        if self._weights != (weights := _stamp(self.model)):
            self.clear()
            self._weights = weights
        key = tuple(ids), tuple(spans)
        self._kept[key] = prefix = self._kept.pop(key, None) or self._read(*key)
        while len(self) > 1 and (len(self) > self.most or self.tokens > self.most_tokens):
            del self._kept[next(iter(self._kept))]
        return prefix

    @torch.no_grad()
    def _read(self, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> Prefix:
        self.counts += Counts(reads=1, read_tokens=len(ids))
        return read_prefix(self.model, ids, spans)

    def note(self, prefixes: Iterable[Prefix]) -> None:
        """Count texts that have continued from `prefixes`, one each."""
        tokens = [prefix.tokens for prefix in prefixes]
        self.counts += Counts(hits=len(tokens), saved_tokens=sum(tokens))

    def clear(self) -> None:
        """Forget all prefixes; the counts stay."""
        self._kept.clear()


def _stamp(model: Backbone) -> list[tuple[Any, ...]]:
    """Which weights there are, where, of which type, and how often written; inference tensors don't count that."""
    return [
        (id(weight), weight.data_ptr(), weight.dtype, None if weight.is_inference() else weight._version)
        for weight in chain(model.parameters(), model.buffers())
    ]
