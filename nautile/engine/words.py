"""Which words a text holds: its tokens and its pairs of neighbouring tokens, hashed to a fixed number of buckets.

A vector says what a text is about; which of a hundred intents it is may hang on a single word. A linear head sees both
(wide and deep: Cheng et al. 2016; hashing with signs: Weinberger et al. 2009). A word is the same whatever its
capitals, at the beginning of a text, of a line and after a space, but not after a bracket or a quote: texts are encoded
anew, in lower case, with one space before each word.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from nautile.model.pairs import NO_TOKEN, pair_keys
from nautile.model.vocabulary import Vocabulary

BUCKETS = 8192
MULTIPLIER = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 over the golden ratio, as a signed number
HALF = 29  # bits: the upper ones of a product depend on all of a key


def words_of(texts: Sequence[str], vocabulary: Vocabulary) -> Tensor:
    """(N,BUCKETS), sparse: the features of each text; a blank one has none."""
    spaced = ["".join(f" {word}" for word in text.lower().split()) for text in texts]
    return features_of(vocabulary.encode_batch(spaced, torch.get_num_threads()))


def features_of(ids: Sequence[Sequence[int]]) -> Tensor:
    """(N,BUCKETS), sparse: +1 or -1 for each feature of a row of ids, once; rows scaled to length 1, or zero."""
    text_F = torch.arange(len(ids)).repeat_interleave(torch.tensor([len(row) for row in ids], dtype=torch.long))
    token_F = torch.tensor(list(itertools.chain(*ids)), dtype=torch.long)
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
