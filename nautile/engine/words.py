"""Which words a text holds: its tokens and its pairs of neighbouring tokens, hashed to a fixed number of buckets.

A vector says what a text is about; which of a hundred intents it is may hang on a single word. A linear head sees both
(wide and deep: Cheng et al. 2016; hashing with signs: Weinberger et al. 2009). A token is the same whatever its
capitals (of ASCII) and the space around it; a word that is cut into other pieces for these is not.
"""

import itertools
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from nautile.model.pairs import NO_TOKEN, pair_keys
from nautile.model.vocabulary import Vocabulary

BUCKETS = 8192
MULTIPLIER = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 over the golden ratio, as a signed number
HALF = 29  # bits: the upper ones of a product depend on all of a key


@cache
def folded(vocabulary: Vocabulary) -> Tensor:
    """(V): the first token whose text differs from each token's only in capitals and space around it."""
    first: dict[bytes, int] = {}
    same_V = torch.arange(vocabulary.size)
    for token, piece in sorted(vocabulary.pieces.items()):
        same_V[token] = first.setdefault(piece.strip().lower(), token)
    return same_V


def words_of(ids: Sequence[Sequence[int]], folded_V: Tensor) -> Tensor:
    """(N,BUCKETS), sparse: +1 or -1 for each feature of a text, once; rows scaled to length 1, or zero."""
    text_F = torch.arange(len(ids)).repeat_interleave(torch.tensor([len(row) for row in ids], dtype=torch.long))
    token_F = folded_V[torch.tensor(list(itertools.chain(*ids)), dtype=torch.long)]
    before_F = token_F.roll(1)
    paired_F = text_F == text_F.roll(1)
    paired_F[:1] = False
    keys = torch.cat([pair_keys(torch.full_like(token_F, NO_TOKEN), token_F), pair_keys(before_F, token_F)[paired_F]])
    found = torch.unique(torch.cat([text_F, text_F[paired_F]]) * 2 * BUCKETS + _hashed(keys))
    places = torch.stack([found // (2 * BUCKETS), found % (2 * BUCKETS) // 2])
    signs = _sparse(places, 1.0 - 2.0 * (found % 2), len(ids)).coalesce()
    rows, values = signs.indices()[0], signs.values()
    square_N = torch.zeros(len(ids)).index_add_(0, rows, values.square())
    return _sparse(signs.indices(), values / square_N.clamp(min=1).sqrt()[rows], len(ids)).coalesce()


def _hashed(keys: Tensor) -> Tensor:
    """A bucket, doubled, plus a bit for the sign."""
    mixed = keys * MULTIPLIER
    mixed = (mixed ^ (mixed >> HALF)) * MULTIPLIER
    return (mixed >> HALF) % (2 * BUCKETS)


def _sparse(places: Tensor, values: Tensor, rows: int) -> Tensor:
    return torch.sparse_coo_tensor(places, values, (rows, BUCKETS), check_invariants=False)
