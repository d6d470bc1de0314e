"""Vectors of frequent pairs of neighbouring tokens, added to the second token's own.

Not in the paper. A small model has few layers to tell what "not working" or "credit card" mean together; a table knows
it at no arithmetic. Other pairs add nothing.
"""

import torch
from torch import Tensor, nn

from nautile.model.layout import Layout

NO_TOKEN = -1
NO_PAIR = torch.iinfo(torch.int64).max


class PairEmbedding(nn.Module):
    """Vectors (N+1,D): of the pairs that `keys` (N, ascending) names, and of all others, which is zero."""

    keys: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(count + 1, width, padding_idx=count)
        self.register_buffer("keys", torch.full((count,), NO_PAIR))

    def forward(self, before_BL: Tensor, ids_BL: Tensor) -> Tensor:
        """(B,L,D) for tokens and those before them."""
        wanted_BL = pair_keys(before_BL, ids_BL)
        other = len(self.keys)
        found_BL = torch.searchsorted(self.keys, wanted_BL).clamp(max=other - 1)
        added: Tensor = self.vectors(torch.where(self.keys[found_BL] == wanted_BL, found_BL, other))
        return added


def pair_keys(before: Tensor, ids: Tensor) -> Tensor:
    """One number a pair of ids, whatever the size of the vocabulary."""
    return (before.long() << 32) | ids


def ids_before(ids_BL: Tensor, layout: Layout, last_B: Tensor | None) -> Tensor:
    """(B,L): the id before each token in its document, `last_B` being what the state has read; NO_TOKEN if none."""
    last_B1 = _column(ids_BL, last_B)
    return torch.cat([last_B1, ids_BL[:, :-1]], dim=1).masked_fill(layout.positions_BL == 0, NO_TOKEN)


def last_ids(ids_BL: Tensor, layout: Layout, last_B: Tensor | None) -> Tensor:
    """(B): the last real id of each row, which may be one that the state had read before."""
    if layout.lengths_B is None:
        return ids_BL[:, -1].clone()  # the caller may write into the ids
    return torch.cat([_column(ids_BL, last_B), ids_BL], dim=1).gather(1, layout.lengths_B[:, None])[:, 0]


def _column(ids_BL: Tensor, last_B: Tensor | None) -> Tensor:
    return ids_BL.new_full((len(ids_BL), 1), NO_TOKEN) if last_B is None else last_B[:, None]
