"""Texts to vectors: in batches of alike lengths, long ones in windows, alone or after a prefix."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from nautile.engine.batching import batches, pad_right, windows
from nautile.engine.prefix import Prefix
from nautile.errors import NautileError
from nautile.model.checkpoints import vocabulary_of
from nautile.model.heads import pool
from nautile.model.model import NautileModel

WINDOW_TOKENS = 128
BATCH_TOKENS = 1024  # small enough for the cache, and for the heap to stay whole over millions of rows


class Vectors(NamedTuple):
    """What was read: vectors (N,D) in float32, the number of windows of each text, and all tokens processed."""

    vectors_ND: Tensor
    windows: list[int]
    tokens: int


class Reader:
    """Read texts with a backbone.

    A text of more than `window` tokens is read in even windows; their vectors are averaged, weighted by length.
    """

    def __init__(self, model: PreTrainedModel, window: int = WINDOW_TOKENS, batch_tokens: int = BATCH_TOKENS) -> None:
        backbone = model if isinstance(model, NautileModel) else getattr(model, "model", None)
        if not isinstance(backbone, NautileModel):
            raise NautileError(f"a {type(model).__name__} cannot be read with: give a Nautile model")
        self.model = backbone.eval()
        self.vocabulary = vocabulary_of(backbone.config)
        self.window, self.batch_tokens = window, batch_tokens

    def __call__(
        self,
        texts: Sequence[str],
        prefix: Prefix | None = None,
        finished: Callable[[int], None] = lambda index: None,
    ) -> Vectors:
        """The vectors of `texts`, in their order; `finished` gets the index of each text that is done."""
        ids = self.vocabulary.encode_batch(texts)
        spans = [(text, part) for text, row in enumerate(ids) for part in windows(len(row), self.window)]
        counts = [len(windows(len(row), self.window)) for row in ids]
        left = list(counts)
        total_ND = torch.zeros(len(texts), self.model.config.d_model, dtype=torch.float64)
        for group in batches([end - start for _, (start, end) in spans], self.batch_tokens):
            rows = [ids[spans[index][0]][slice(*spans[index][1])] for index in group]
            weighted_BD = self._pooled(rows, prefix) * torch.tensor([[len(row)] for row in rows])
            for index, vector_D in zip(group, weighted_BD, strict=True):
                text = spans[index][0]
                total_ND[text] += vector_D
                left[text] -= 1
                if not left[text]:
                    finished(text)
        lengths_N = torch.tensor([max(1, len(row)) for row in ids]).reshape(-1, 1)
        return Vectors((total_ND / lengths_N).float(), counts, sum(map(len, ids)))

    @torch.inference_mode()
    def _pooled(self, rows: list[list[int]], prefix: Prefix | None) -> Tensor:
        ids_BL, mask_BL = (part.to(self.model.device) for part in pad_right(rows))
        state = None if prefix is None else prefix.state.branch(len(rows))
        hidden_BLD = self.model(ids_BL, mask_BL, past_key_values=state).last_hidden_state
        return pool(hidden_BLD.float(), mask_BL, self.model.config.pooling).double().cpu()
