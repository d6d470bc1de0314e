"""The gradients of `loops.py`: per row and query head a walk over the tokens that keeps all sums, and the walk back.

With S_t = f S_{t-1} + u_t, the gradient A_t of u_t is a running sum from the right of what the readout sends to S_t.
A thread holds the sums, keys and queries of one head at all tokens of one row, (6·M + 2)·H·L numbers, and forgets them
when it is done.
"""

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import literally, njit, prange

from nautile.model.kernels import loops
from nautile.model.kernels.loops import (
    COMPILED,
    FLOOR,
    INLINE,
    ONE,
    Heads,
    Tokens,
    _convolve,
    _load,
    _sigmoid,
    _softsign,
    _store,
    _turn,
    f32,
)
from nautile.model.spectral import Sums

BLOCK = 512  # columns of the convolution for a thread at once
PARTS = sha256(Path(loops.__file__).read_bytes()).hexdigest()  # numba's cache on disk knows this file's changes alone


class Given(NamedTuple):
    """The gradient of the normed o, the norm's weight, what it multiplied each token by, and what it takes from it."""

    d_normed_BLJ: Any
    norm_J: Any
    scale_BL: Any
    pull_BL: Any


class Gradients(NamedTuple):
    """What `unmix` writes, each row's part of what rows share; `mixed`, before its SiLU, must be zero before."""

    mixed_BLP: Any
    gate_BLJ: Any
    w_BLK: Any
    eta_BK: Any
    theta_BKMH: Any
    omega_BKMH: Any
    keep_BK: Any
    norm_BJ: Any


@njit(**INLINE)
def _silu_and_slope(x, slope):
    for n in range(x.size):
        gate = _sigmoid(x[n])
        slope[n] = gate * (ONE + x[n] * (ONE - gate))
        x[n] *= gate


@njit(**INLINE)
def _walk(k_H, theta_X, before_Y, after_Y, weight, keep, eta, H, M):
    """Steps 3 and 4 of one head at one token. X are M·H, Y the sums, real and imaginary, each (M,H)."""
    literally(H), literally(M)
    for n in range(H):
        k = k_H[n]
        squashed = _softsign(eta * k)
        weighted = weight * k
        for m in range(M):
            re_at, im_at = m * H + n, (M + m) * H + n
            cosine, sine = _turn(theta_X[re_at] * squashed)
            after_Y[re_at] = before_Y[re_at] * keep + weighted * cosine
            after_Y[im_at] = before_Y[im_at] * keep + weighted * sine


@njit(**INLINE)
def _match(q_W, omega_X, memory_Y, share, o_J, H, M):
    """Step 5 of one head at one token."""
    literally(H), literally(M)
    for n in range(H):
        o_re, o_im = f32(0), f32(0)
        for m in range(M):
            omega = omega_X[m * H + n]
            q_re, q_im = q_W[2 * M * n + 2 * m] * omega, q_W[2 * M * n + 2 * m + 1] * omega
            re, im = memory_Y[m * H + n], memory_Y[(M + m) * H + n]
            o_re += re * q_re + im * q_im
            o_im += im * q_re - re * q_im
        o_J[n] = o_re * share
        o_J[H + n] = o_im * share


@njit(**INLINE)
def _gate_back(o_J, gate_J, d_normed_J, norm_J, scale, pull, d):
    """Step 6 of one head at one token: o becomes its gradient. Returns the sum of both's product.

    `d` holds the gradients of the norm's weight (J), which grow over the tokens, then those of the gates (J).
    """
    J, drawn = o_J.size, f32(0)
    for j in range(J):
        o, gate, d_normed = o_J[j], _load(gate_J[j]), _load(d_normed_J[j])
        opening = _sigmoid(gate)
        passed = gate * opening
        d[j] += d_normed * o * passed * scale
        d_gated = d_normed * norm_J[j] * scale - o * passed * pull
        d[J + j] = d_gated * o * (opening + passed * (ONE - opening))
        o_J[j] = d_gated * passed
        drawn += o * o_J[j]
    return drawn


@njit(**INLINE)
def _match_back(q_W, slope_W, omega_X, memory_Y, d_o_J, share, d_q_W, grown, H, M):
    """Step 5 of one head at one token.

    `grown` holds, side by side, the gradients of the sums (Y) and of ω (X), which grow from token to token.
    """
    literally(H), literally(M)
    for n in range(H):
        d_o_re, d_o_im = d_o_J[n] * share, d_o_J[H + n] * share
        for m in range(M):
            re_at, im_at, q_at = m * H + n, (M + m) * H + n, 2 * (M * n + m)
            omega, q_re, q_im = omega_X[m * H + n], q_W[q_at], q_W[q_at + 1]
            re, im = memory_Y[re_at], memory_Y[im_at]
            d_re, d_im = d_o_re * re + d_o_im * im, d_o_re * im - d_o_im * re  # of q, but for ω
            d_q_W[q_at] += d_re * omega * slope_W[q_at]
            d_q_W[q_at + 1] += d_im * omega * slope_W[q_at + 1]
            grown[2 * M * H + m * H + n] += d_re * q_re + d_im * q_im
            grown[re_at] += (d_o_re * q_re - d_o_im * q_im) * omega
            grown[im_at] += (d_o_re * q_im + d_o_im * q_re) * omega


@njit(**INLINE)
def _walk_back(k_H, slope_H, theta_X, before_Y, weight, keep, eta, grown, d_theta_X, d_k_H, H, M):
    """Steps 3 and 4 of one head at one token, whose sums' gradients move to the token before.

    Returns the gradients of the token's weight, of η and of what is kept of the sums.
    """
    literally(H), literally(M)
    d_weight, d_eta, d_keep = f32(0), f32(0), f32(0)
    for n in range(H):
        k = k_H[n]
        bend = ONE / (ONE + abs(eta * k))
        squashed = eta * k * bend
        along, d_squashed = f32(0), f32(0)
        for m in range(M):
            re_at, im_at = m * H + n, (M + m) * H + n
            cosine, sine = _turn(theta_X[re_at] * squashed)
            d_re, d_im = grown[re_at], grown[im_at]
            along += cosine * d_re + sine * d_im
            d_phase = weight * k * (cosine * d_im - sine * d_re)
            d_theta_X[re_at] += d_phase * squashed
            d_squashed += d_phase * theta_X[re_at]
            d_keep += d_re * before_Y[re_at] + d_im * before_Y[im_at]
            grown[re_at] = d_re * keep
            grown[im_at] = d_im * keep
        d_argument = d_squashed * bend * bend
        d_weight += k * along
        d_eta += d_argument * k
        d_k_H[n] = (weight * along + d_argument * eta) * slope_H[n]
    return d_weight, d_eta, d_keep


@njit(**COMPILED)
def _head_back(tokens, heads, sums, given, d_sums, d, b, head, H, M, c):
    """All tokens of row b, for one memory head."""
    literally(H), literally(M), literally(c)
    z_LP, tail_TP, kernel_cP, w_LK = tokens.z_BLP[b], tokens.tail_BTP[b], tokens.kernel_cP, tokens.w_BLK[b]
    length, K, X, W, J = tokens.lengths_B[b], w_LK.shape[1], M * H, 2 * M * H, 2 * H
    eta, keep = heads.eta_K[head], heads.keep_K[head]
    first_key, first_query = head * H, K * H + K + head * tokens.queries // K * W
    mine = slice(head * J, (head + 1) * J)
    keys, key_slopes = np.empty((length, H), f32), np.empty((length, H), f32)
    asked, asked_slopes = np.empty((length, W), f32), np.empty((length, W), f32)
    memory, masses = np.empty((length + 1, 2 * X), f32), np.empty(length + 1, f32)
    theta, omega, o = np.empty(X, f32), np.empty(X, f32), np.empty(J, f32)
    grown, d_theta, d_gates = np.zeros(3 * X, f32), np.zeros(X, f32), np.zeros(2 * J, f32)
    for m in range(M):
        for n in range(H):
            x = m * H + n
            theta[x], omega[x] = heads.theta_KMH[head, m, n], heads.omega_KMH[head, m, n]
            memory[0, x], memory[0, X + x] = sums.re_BKHM[b, head, n, m], sums.im_BKHM[b, head, n, m]
            grown[x], grown[X + x] = d_sums.re_BKHM[b, head, n, m], d_sums.im_BKHM[b, head, n, m]
    masses[0] = sums.z_BK[b, head]
    for t in range(length):
        _convolve(z_LP, tail_TP, kernel_cP, t, first_key, keys[t], c)
        _convolve(z_LP, tail_TP, kernel_cP, t, first_query, asked[t], c)
        _silu_and_slope(keys[t], key_slopes[t])
        _silu_and_slope(asked[t], asked_slopes[t])
        masses[t + 1] = masses[t] * keep + w_LK[t, head]
        _walk(keys[t], theta, memory[t], memory[t + 1], w_LK[t, head], keep, eta, H, M)
    d_mass, d_eta, d_keep = d_sums.z_BK[b, head], f32(0), f32(0)
    for t in range(length - 1, -1, -1):
        share = ONE / max(masses[t + 1], FLOOR)
        _match(asked[t], omega, memory[t + 1], share, o, H, M)
        drawn = _gate_back(
            o, tokens.gate_BLJ[b, t, mine], given.d_normed_BLJ[b, t, mine], given.norm_J[mine],
            given.scale_BL[b, t], given.pull_BL[b, t], d_gates,
        )  # fmt: skip
        for j in range(J):
            _store(d.gate_BLJ[b, t, mine], j, d_gates[J + j])
        if masses[t + 1] > FLOOR:
            d_mass -= drawn * share
        _match_back(
            asked[t], asked_slopes[t], omega, memory[t + 1], o, share,
            d.mixed_BLP[b, t, first_query : first_query + W], grown, H, M,
        )  # fmt: skip
        d_weight, d_eta_t, d_keep_t = _walk_back(
            keys[t], key_slopes[t], theta, memory[t], w_LK[t, head], keep, eta, grown, d_theta,
            d.mixed_BLP[b, t, first_key : first_key + H], H, M,
        )  # fmt: skip
        d.w_BLK[b, t, head] = d_weight + d_mass
        d_eta += d_eta_t
        d_keep += d_keep_t + d_mass * masses[t]
        d_mass *= keep
    d_sums.z_BK[b, head], d.eta_BK[b, head], d.keep_BK[b, head] = d_mass, d_eta, d_keep
    d.norm_BJ[b, mine] = d_gates[:J]
    for m in range(M):
        for n in range(H):
            x = m * H + n
            d.theta_BKMH[b, head, m, n], d.omega_BKMH[b, head, m, n] = d_theta[x], grown[2 * X + x]
            d_sums.re_BKHM[b, head, n, m], d_sums.im_BKHM[b, head, n, m] = grown[x], grown[X + x]


@cache
def unmixing(H: int, M: int, c: int) -> Callable[[Tokens, Heads, Sums, Given, Sums, Gradients], None]:
    """The gradients of `mixing(H, M, c)` and `normalise`, all but those of the convolution.

    It is called as `unmix(tokens, heads, sums, given, d_sums, d)`: the sums are those before the row, their gradients
    come in as those after it and go out as those before it; d is written.
    """
    parts = PARTS

    @njit(parallel=True, cache=True, **COMPILED)
    def unmix(tokens, heads, sums, given, d_sums, d):
        assert parts
        Q, each = tokens.queries, len(heads.eta_K) // tokens.queries
        for unit in prange(len(tokens.z_BLP) * Q):
            for h in range(each):
                _head_back(tokens, heads, sums, given, d_sums, d, unit // Q, unit % Q * each + h, H, M, c)

    return unmix


@cache
def unconvolving(c: int) -> Callable[[Tokens, Any, Any, Any], None]:
    """The gradients of the convolution with c taps.

    It is called as `unconvolve(tokens, d_BLP, d_tail_BTP, d_kernel_BcP)`: d comes in as the gradient of what is
    convolved and goes out as that of z; the other two are written, each row's part of the kernel's.
    """
    parts = PARTS

    @njit(parallel=True, cache=True, **COMPILED)
    def unconvolve(tokens, d_BLP, d_tail_BTP, d_kernel_BcP):
        assert parts
        B, L, P = d_BLP.shape
        blocks = (P + BLOCK - 1) // BLOCK
        for unit in prange(B * blocks):
            b, first = unit // blocks, unit % blocks * BLOCK
            mine = slice(first, min(P, first + BLOCK))
            z_LP, tail_TP, d_LP, d_kernel_cP = tokens.z_BLP[b], tokens.tail_BTP[b], d_BLP[b], d_kernel_BcP[b]
            row = np.empty(mine.stop - mine.start, f32)
            d_kernel_cP[:, mine] = f32(0)
            for t in range(L):
                for tap in range(c):
                    source = t - (c - 1) + tap
                    z_N = z_LP[source, mine] if source >= 0 else tail_TP[source + c - 1, mine]
                    _add_products(z_N, d_LP[t, mine], d_kernel_cP[tap, mine])
            for t in range(1 - c, L):  # from the left: those to the right are still the gradients that came in
                row[:] = f32(0)
                for tap in range(max(0, t + c - L), min(c, t + c)):
                    _add_products(d_LP[t + c - 1 - tap, mine], tokens.kernel_cP[tap, mine], row)
                into = d_LP[t, mine] if t >= 0 else d_tail_BTP[b, t + c - 1, mine]
                into[:] = row

    return unconvolve


@njit(**INLINE)
def _add_products(x_N, y_N, total_N):
    for n in range(total_N.size):
        total_N[n] += _load(x_N[n]) * y_N[n]
