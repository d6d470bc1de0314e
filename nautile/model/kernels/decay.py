"""The decay inside a chunk, and running sums with it: `spectral._Decay` in Triton.

A decay is a tuple: within (C,C), later by earlier token; entering (C,1); leaving (C,1); passing ().
"""

import triton
import triton.language as tl

from nautile.model.kernels.blocks import Tokens


@triton.jit
def chunk_decay(tokens: Tokens, row: tl.tensor, n: tl.tensor, fade: tl.tensor, C: tl.constexpr) -> tl.tensor:
    """How much of what survives in chunk n of a row; the chunk ends where the row does."""
    start, t = n * C, n * C + tl.arange(0, C)
    end = tl.minimum(start + C, tl.load(tokens.lengths + row))
    age, to_end = t[:, None] - t[None, :], end - 1 - t
    within = tl.where(age >= 0, tl.exp(-fade * tl.maximum(age, 0)), 0.0)
    entering = tl.exp(-fade * (t - start + 1))
    leaving = tl.where(to_end >= 0, tl.exp(-fade * tl.maximum(to_end, 0)), 0.0)
    passing = tl.exp(-fade * (end - start))
    if tokens.document is not None:
        document = tokens.document + row * tokens.L
        here = tl.load(document + t, mask=t < end, other=-1)
        before, last = tl.load(document + tl.maximum(start - 1, 0)), tl.load(document + end - 1)
        within = tl.where(here[:, None] == here[None, :], within, 0.0)
        entering = tl.where(here == before, entering, 0.0)
        leaving = tl.where(here == last, leaving, 0.0)
        passing = tl.where(before == last, passing, 0.0)
    return within, entering[:, None], leaving[:, None], passing


@triton.jit
def turned(decay: tl.tensor) -> tl.tensor:
    """The decay of the gradients, which run from the right to the left."""
    within, entering, leaving, passing = decay
    return tl.trans(within), leaving, entering, passing


@triton.jit
def carry(decay: tl.tensor, parts: tl.tensor, before: tl.tensor) -> tl.tensor:
    """The running sums of Z (C,1), R and I (C,X) at each token of the chunk, after those `before` it."""
    within, entering, _, _ = decay
    z = tl.sum(within * tl.trans(parts[0]), axis=1)[:, None] + entering * before[0]
    re = tl.dot(within, parts[1], input_precision="ieee") + entering * before[1]
    im = tl.dot(within, parts[2], input_precision="ieee") + entering * before[2]
    return z, re, im


@triton.jit
def leave(decay: tl.tensor, parts: tl.tensor, before: tl.tensor) -> tl.tensor:
    """The running sums of Z (), R and I (1,X) after the chunk."""
    _, _, leaving, passing = decay
    z = passing * before[0] + tl.sum(leaving * parts[0])
    re = passing * before[1] + tl.sum(leaving * parts[1], axis=0)[None, :]
    im = passing * before[2] + tl.sum(leaving * parts[2], axis=0)[None, :]
    return z, re, im
