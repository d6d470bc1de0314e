"""The walk back: a program keeps the gradients of its lanes' sums in registers and hands them to tokens and spectrum.

With S_t = f S_{t-1} + u_t, the gradient A_t of u_t is a running sum from the right of what the readout sends to S_t.
Everything follows from it, also the gradient of the fading: -Σ_t A_t f S_{t-1}, where f S_{t-1} = S_t - u_t.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from nautile.model.kernels.blocks import (
    Tokens,
    load_spectrum,
    load_sums,
    load_tokens,
    place_of_program,
    store_channels,
)
from nautile.model.kernels.decay import carry, chunk_decay, leave, turned
from nautile.model.kernels.formulas import encode, encode_back, read_back
from nautile.model.spectral import Spectrum, Sums


class Gradients(NamedTuple):
    """What `scan_backward` writes; where several blocks or rows share an input, each writes its own part.

    k (B,L,K,H), w (blocks,B,L,K), q (B,L,Q,H,M,2), all zero before; spectrum: η and fading (blocks,B,K), θ and ω
    (B,K,H,M); before: Z (blocks,B,K), R and I (B,K,H,M).
    """

    k: Tensor
    w: Tensor
    q: Tensor
    spectrum: Spectrum
    before: Sums


@triton.jit
def scan_backward(
    tokens: Tokens,
    spectrum: Spectrum,
    kept: Sums,
    d_o: tl.pointer_type,
    d_after: Sums,
    d: Gradients,
    shape: tl.constexpr,
) -> None:
    """Gradients from those of o (B,L,K,2H) and of the sums after each row, by the sums that the forward walk kept."""
    place = place_of_program(shape)
    block, head, row, _, _, _ = place
    eta, fade, theta, measure = load_spectrum(spectrum, place, shape)
    length, memory = tl.load(tokens.lengths + row), row * shape.K + head
    d_z, d_re, d_im = load_sums(d_after, memory, place, shape)
    d_sums = tl.where(block == 0, d_z, 0.0), d_re, d_im
    d_theta, d_measure, d_eta, d_fade = tl.zeros_like(theta), tl.zeros_like(theta), 0.0, 0.0
    for behind in range(1, tl.cdiv(length, shape.C) + 1):
        n = tl.cdiv(length, shape.C) - behind
        t = n * shape.C + tl.arange(0, shape.C)[:, None]
        k, w, q_re, q_im = load_tokens(tokens, place, t, t < length, shape)
        decay, parts = chunk_decay(tokens, row, n, fade, shape.C), encode(k, w, eta, theta)
        sums = carry(decay, parts, load_sums(kept, memory * tl.cdiv(tokens.L, shape.C) + n, place, shape))
        d_o_re, d_o_im = load_outputs(d_o, tokens, place, t, t < length, shape)
        d_read, d_q_re, d_q_im, d_measure_t = read_back(sums, q_re, q_im, measure, d_o_re, d_o_im)
        d_parts = carry(turned(decay), d_read, d_sums)
        d_sums = leave(turned(decay), d_read, d_sums)
        d_k, d_w, d_argument, d_theta_t = encode_back(k, w, eta, theta, d_parts)
        store_tokens(d, tokens, place, t, t < length, shape, d_k, tl.sum(d_w, axis=1)[:, None] + d_parts[0])
        store_queries(d, tokens, place, t, t < length, shape, d_q_re, d_q_im)
        d_fade -= faded(sums, parts, d_parts)
        d_eta += tl.sum(d_argument * k)
        d_theta += tl.sum(d_theta_t, axis=0)[None, :]
        d_measure += tl.sum(d_measure_t, axis=0)[None, :]
    store_shared(d, place, shape, d_sums, d_eta, d_theta, d_measure, d_fade)


@triton.jit
def faded(sums: tl.tensor, parts: tl.tensor, d_parts: tl.tensor) -> tl.tensor:
    """Σ A_t (S_t - u_t) over Z, R and I."""
    mass = tl.sum((sums[0] - parts[0]) * d_parts[0])
    return mass + tl.sum((sums[1] - parts[1]) * d_parts[1] + (sums[2] - parts[2]) * d_parts[2])


@triton.jit
def load_outputs(
    o: tl.pointer_type, tokens: Tokens, place: tl.tensor, t: tl.tensor, live: tl.tensor, shape: tl.constexpr
) -> tl.tensor:
    """o_re and o_im of the tokens t (C,1) in all lanes, the same for all spectral points of a channel."""
    _, head, row, h, _, real = place
    at = o + ((row * tokens.L + t) * shape.K + head) * 2 * shape.H + h
    return tl.load(at, mask=live & real, other=0.0), tl.load(at + shape.H, mask=live & real, other=0.0)


@triton.jit
def store_tokens(
    d: Gradients,
    tokens: Tokens,
    place: tl.tensor,
    t: tl.tensor,
    live: tl.tensor,
    shape: tl.constexpr,
    d_k: tl.tensor,
    d_w: tl.tensor,
) -> None:
    """The gradients of keys, summed over the spectral points, and of weights, this block's part."""
    block, head, row, _, _, _ = place
    at = (row * tokens.L + t) * shape.K + head
    store_channels(d.k + at * shape.H, d_k, place, live, shape)
    at += block * tl.num_programs(2).to(tl.int64) * tokens.L * shape.K
    tl.store(d.w + at, d_w, mask=live)


@triton.jit
def store_queries(
    d: Gradients,
    tokens: Tokens,
    place: tl.tensor,
    t: tl.tensor,
    live: tl.tensor,
    shape: tl.constexpr,
    d_q_re: tl.tensor,
    d_q_im: tl.tensor,
) -> None:
    """The gradient of a query; memory heads that share it add up, in any order."""
    _, head, row, _, x, real = place
    q_head = head // (shape.K // shape.Q)
    at = d.q + (((row * tokens.L + t) * shape.Q + q_head) * shape.H * shape.M + x) * 2
    if shape.K == shape.Q:
        tl.store(at, d_q_re, mask=live & real)
        tl.store(at + 1, d_q_im, mask=live & real)
    else:
        tl.atomic_add(at, d_q_re, mask=live & real)
        tl.atomic_add(at + 1, d_q_im, mask=live & real)


@triton.jit
def store_shared(
    d: Gradients,
    place: tl.tensor,
    shape: tl.constexpr,
    d_sums: tl.tensor,
    d_eta: tl.tensor,
    d_theta: tl.tensor,
    d_measure: tl.tensor,
    d_fade: tl.tensor,
) -> None:
    """What is written once a program: the gradients of the spectrum and of the sums before the row."""
    block, head, row, _, x, real = place
    part = (block * tl.num_programs(2) + row) * shape.K + head
    at = (row * shape.K + head) * shape.H * shape.M + x
    tl.store(d.spectrum.eta_K + part, d_eta)
    tl.store(d.spectrum.fade_K + part, d_fade)
    tl.store(d.spectrum.theta_KHM + at, d_theta, mask=real)
    tl.store(d.spectrum.omega_KHM + at, d_measure / shape.H**0.5, mask=real)
    tl.store(d.before.z_BK + part, d_sums[0])
    tl.store(d.before.re_BKHM + at, d_sums[1], mask=real)
    tl.store(d.before.im_BKHM + at, d_sums[2], mask=real)
