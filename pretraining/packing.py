"""Tokenised documents laid into rows of a fixed length, one behind the other."""

from typing import NamedTuple

import numpy as np

from nautile.model.vocabulary import Vocabulary
from nautile.pretraining.curriculum import Loss
from nautile.pretraining.documents import Document


class Tokens(NamedTuple):
    """A document's ids, int32, of which the first `prompt` are no targets of the loss."""

    ids: np.ndarray
    prompt: int = 0


def tokenise(document: Document, vocabulary: Vocabulary, loss: Loss = "all") -> Tokens:
    """Text and its ``<|endoftext|>``, or a chat in its template, whose prompt ends with ``<|think_start|>``."""
    if document.answer is None:
        return Tokens(np.array([*vocabulary.encode(document.text), vocabulary.eos_id], np.int32))
    ids = vocabulary.render_chat(document.text, document.reasoning, document.answer)
    prompt = ids.index(vocabulary.control["<|think_start|>"]) + 1 if loss == "answer" else 0
    return Tokens(np.array(ids, np.int32), prompt)


class Row:
    """A row of `length` tokens in the making.

    A document that does not fit goes on in another row from the last token it placed, so that each of its tokens
    but the first is a target exactly once.
    """

    def __init__(self, length: int, pad_id: int = 0) -> None:
        self.ids = np.full(length, pad_id, np.int32)
        self.document = np.zeros(length, np.int32)
        self.weight = np.zeros(length, np.float32)
        self.used = self.pieces = 0

    @property
    def full(self) -> bool:
        """Whether no target fits any more; the last place may stay padding."""
        return self.used > len(self.ids) - 2

    def add(self, tokens: Tokens, start: int = 0) -> int | None:
        """Lay down the tokens from `start` on, as many as fit: where to go on in another row, None if they ended.

        There must be two tokens or more from `start`, and the row not full.
        """
        end = min(start + len(self.ids) - self.used, len(tokens.ids))
        here = slice(self.used, self.used + end - start)
        self.pieces += 1
        self.used = here.stop
        self.ids[here] = tokens.ids[start:end]
        self.document[here] = self.pieces
        self.weight[here] = np.arange(start, end) >= tokens.prompt
        self.weight[here.start] = 0
        return end - 1 if end < len(tokens.ids) else None
