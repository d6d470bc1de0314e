"""Steps 3 to 5 of one token after a prefix: `spectral.sca_step` in one kernel, forward only."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nautile.model.kernels.blocks import (
    Shape,
    Tokens,
    dense,
    load_spectrum,
    load_sums,
    load_tokens,
    place_of_program,
    store_channels,
    store_sums,
)
from nautile.model.kernels.formulas import encode, read
from nautile.model.spectral import Spectrum, Sums


def sca_step(k_BLKH: Tensor, w_BLK: Tensor, q_BLQHM2: Tensor, spectrum: Spectrum, sums: Sums) -> tuple[Tensor, Sums]:
    """One token (L = 1). Returns o (B,1,K,2H) and the new sums, float32."""
    shape, before = Shape.of(k_BLKH, q_BLQHM2, C=1), dense(sums)
    o = torch.empty(len(k_BLKH), 1, shape.K, 2 * shape.H, device=k_BLKH.device)
    after = Sums(*(torch.empty_like(part) for part in before))
    tokens = Tokens.of(k_BLKH, w_BLK, q_BLQHM2)
    with torch.cuda.device_of(o):
        step[shape.programs(len(o))](tokens, dense(spectrum), before, o, after, shape)
    return o, after


@triton.jit
def step(
    tokens: Tokens, spectrum: Spectrum, before: Sums, o: tl.pointer_type, after: Sums, shape: tl.constexpr
) -> None:
    """S = exp(-fade) S + w k exp(iφ), read out at once."""
    place, t = place_of_program(shape), tl.zeros((1, 1), tl.int32)
    memory = place[2] * shape.K + place[1]
    eta, fade, theta, measure = load_spectrum(spectrum, place, shape)
    k, w, q_re, q_im = load_tokens(tokens, place, t, t == 0, shape)
    z_t, re_t, im_t = encode(k, w, eta, theta)
    z, re, im = load_sums(before, memory, place, shape)
    keep = tl.exp(-fade)
    sums = keep * z + tl.sum(z_t), keep * re + re_t, keep * im + im_t
    o_re, o_im = read(sums, q_re, q_im, measure)
    store_channels(o + memory * 2 * shape.H + t, o_re, place, t == 0, shape)
    store_channels(o + memory * 2 * shape.H + shape.H + t, o_im, place, t == 0, shape)
    store_sums(after, memory, place, shape, sums)
