"""The walk over the chunks: a program keeps its lanes' sums in registers and reads them out at each token."""

import triton
import triton.language as tl

from nautile.model.kernels.blocks import (
    Tokens,
    load_spectrum,
    load_sums,
    load_tokens,
    place_of_program,
    store_channels,
    store_sums,
)
from nautile.model.kernels.decay import carry, chunk_decay, leave
from nautile.model.kernels.formulas import encode, read
from nautile.model.spectral import Spectrum, Sums


@triton.jit
def scan_forward(
    tokens: Tokens, spectrum: Spectrum, before: Sums, o: tl.pointer_type, after: Sums, kept: Sums, shape: tl.constexpr
) -> None:
    """o (B,L,K,2H) and the sums `after` each row; `kept` (B,K,N…), or None, gets the sums before each of N chunks."""
    place = place_of_program(shape)
    _, head, row, _, _, _ = place
    eta, fade, theta, measure = load_spectrum(spectrum, place, shape)
    length, memory = tl.load(tokens.lengths + row), row * shape.K + head
    sums = load_sums(before, memory, place, shape)
    for n in range(tl.cdiv(length, shape.C)):
        if kept is not None:
            store_sums(kept, memory * tl.cdiv(tokens.L, shape.C) + n, place, shape, sums)
        t = n * shape.C + tl.arange(0, shape.C)[:, None]
        k, w, q_re, q_im = load_tokens(tokens, place, t, t < length, shape)
        decay = chunk_decay(tokens, row, n, fade, shape.C)
        parts = encode(k, w, eta, theta)
        o_re, o_im = read(carry(decay, parts, sums), q_re, q_im, measure)
        o_t = o + ((row * tokens.L + t) * shape.K + head) * 2 * shape.H
        store_channels(o_t, o_re, place, t < length, shape)
        store_channels(o_t + shape.H, o_im, place, t < length, shape)
        sums = leave(decay, parts, sums)
    store_sums(after, memory, place, shape, sums)
