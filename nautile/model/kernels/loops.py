"""SCA between its input projections and its readout as one loop over tokens, compiled for the processor by numba.

For each token of a row: convolution and SiLU (step 1), the sums and their readout (steps 3 to 5), the gate and the mean
square of its norm (step 6); what is between them stays in the cache. Rows, or groups of their heads, are shared among
threads. Everything is computed in float32; bfloat16 comes and goes as its bits, in uint16.

All that is compiled here stands in this one file (but MASS_FLOOR, a constant of the paper's release), and
`loops_backward.py` remembers its digest: numba's cache on disk knows no other file's changes.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import literally, njit, prange, types
from numba.extending import overload
from numpy.polynomial import Chebyshev, Polynomial

from nautile.model.architecture import MASS_FLOOR
from nautile.model.spectral import Sums

# Sums may be reordered and products fused; infinities and NaN stay what they are.
COMPILED: Any = {
    "fastmath": {"contract", "reassoc", "arcp", "nsz"},
    "error_model": "numpy",
    "nogil": True,
}
INLINE = {**COMPILED, "forceinline": True}
f32 = np.float32
ONE, HALF, TWO, FLOOR = f32(1), f32(0.5), f32(2), f32(MASS_FLOOR)
LOG2_E, LN2_HIGH, LN2_LOW = f32(1.4426950408889634), f32(0.693359375), f32(-2.1219444005469057e-4)
LARGEST = f32(87)  # exp(88) is still finite in float32


class Tokens(NamedTuple):
    """Arrays of the tokens, as projected; T = c-1 stand before them. J = 2·K·H, Q is `queries`."""

    z_BLP: Any
    tail_BTP: Any
    kernel_cP: Any
    gate_BLJ: Any
    w_BLK: Any
    lengths_B: Any
    queries: int


class Heads(NamedTuple):
    """Arrays of what the spectrum says: ω is divided by √H, `keep` is exp(-fade)."""

    eta_K: Any
    theta_KMH: Any
    omega_KMH: Any
    keep_K: Any


def _fitted(function: Callable[[np.ndarray], np.ndarray], degree: int, low: float, high: float) -> list[np.float32]:
    """The coefficients, lowest first, of the polynomial through the Chebyshev points."""
    fitted = Chebyshev.interpolate(function, degree, domain=[low, high])
    return [f32(c) for c in fitted.convert(kind=Polynomial, domain=[-1, 1]).coef]


E0, E1, E2, E3, E4, E5, E6 = _fitted(np.exp, 6, -0.35, 0.35)
S0, S1, S2, S3, S4 = _fitted(lambda square: np.sinc(np.sqrt(square) / np.pi), 4, 0, 2.25)
C0, C1, C2, C3, C4 = _fitted(lambda square: np.cos(np.sqrt(square)), 4, 0, 2.25)


@njit(**INLINE)
def _sigmoid(x):
    y = -x if x > -LARGEST else LARGEST
    y = y if y > -LARGEST else -LARGEST
    n = np.int32(y * LOG2_E + f32(128.5)) - np.int32(128)
    r = y - f32(n) * LN2_HIGH - f32(n) * LN2_LOW
    power = E0 + r * (E1 + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))))
    return ONE / (ONE + power * np.int32((n + np.int32(127)) << np.int32(23)).view(f32))


@njit(**INLINE)
def _softsign(x):
    return x / (ONE + abs(x))


@njit(**INLINE)
def _turn(phase):
    """Cosine and sine of a phase in [-3, 3], by those of its half."""
    half = HALF * phase
    v = half * half
    sine = half * (S0 + v * (S1 + v * (S2 + v * (S3 + v * S4))))
    cosine = C0 + v * (C1 + v * (C2 + v * (C3 + v * C4)))
    return ONE - TWO * sine * sine, TWO * sine * cosine


def _load(number):
    """float32 of a number in float32, or of the bits of one in bfloat16."""


def _store(array, index, number):
    """Put a float32 in its place, rounded to bfloat16 where the place holds bits."""


@overload(_load, jit_options=COMPILED)
def _load_as(number):
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << np.uint32(16)).view(f32)
    return lambda number: number


@overload(_store, jit_options=COMPILED)
def _store_as(array, index, number):
    if array.dtype == types.uint16:

        def bits(array, index, number):
            exact = f32(number).view(np.uint32)
            up = np.uint32(0x7FFF) + ((exact >> np.uint32(16)) & np.uint32(1))
            array[index] = np.uint16((exact + up) >> np.uint32(16))

        return bits

    def plain(array, index, number):
        array[index] = number

    return plain


@njit(**INLINE)
def _convolve(z_LP, tail_TP, kernel_cP, t, first, out, c):
    """Step 1 of token t before its SiLU, for the columns from `first` on that `out` has room for."""
    literally(c)
    if t >= c - 1:
        for n in range(out.size):
            total = f32(0)
            for tap in range(c):
                total += _load(z_LP[np.uint64(t - (c - 1) + tap), np.uint64(first + n)]) * kernel_cP[tap, first + n]
            out[n] = total
        return
    for n in range(out.size):  # the first tokens: what stands before them is in the tail
        total = f32(0)
        for tap in range(c):
            source = t - (c - 1) + tap
            z = _load(z_LP[source, first + n]) if source >= 0 else _load(tail_TP[source + c - 1, first + n])
            total += z * kernel_cP[tap, first + n]
        out[n] = total


@njit(**INLINE)
def _silu(x):
    for n in range(x.size):
        x[n] *= _sigmoid(x[n])


@njit(**INLINE)
def _remember(k_H, q_W, memory, o_J, weight, keep, eta, share, H, M):
    """Steps 3 to 5 of one head at one token. `memory` holds θ, ω and the sums, real and imaginary, each (M,H)."""
    literally(H), literally(M)
    for n in range(H):
        k = k_H[n]
        squashed = _softsign(eta * k)
        weighted = weight * k
        o_re, o_im = f32(0), f32(0)
        for m in range(M):
            theta_at, omega_at, re_at, im_at = m * H + n, (M + m) * H + n, (2 * M + m) * H + n, (3 * M + m) * H + n
            cosine, sine = _turn(memory[theta_at] * squashed)
            re = memory[re_at] * keep + weighted * cosine
            im = memory[im_at] * keep + weighted * sine
            memory[re_at] = re
            memory[im_at] = im
            measure = memory[omega_at] * share
            q_re, q_im = q_W[2 * M * n + 2 * m] * measure, q_W[2 * M * n + 2 * m + 1] * measure
            o_re += re * q_re + im * q_im
            o_im += im * q_re - re * q_im
        o_J[n] = o_re
        o_J[H + n] = o_im


@njit(**INLINE)
def _gate(o_J, gate_J, gated_J):
    """The outputs times SiLU of their gates, and the sum of squares of that."""
    square = f32(0)
    for n in range(o_J.size):
        gate = _load(gate_J[n])
        value = o_J[n] * gate * _sigmoid(gate)
        gated_J[n] = value
        square += value * value
    return square


@njit(**COMPILED)
def _group(tokens, heads, sums, o_BLJ, square_BLG, b, g, H, M, c):
    """All tokens of row b, for group g of the heads."""
    literally(H), literally(M), literally(c)
    z_LP, tail_TP, gate_LJ, w_LK = tokens.z_BLP[b], tokens.tail_BTP[b], tokens.gate_BLJ[b], tokens.w_BLK[b]
    o_LJ, length, K, width = o_BLJ[b], tokens.lengths_B[b], w_LK.shape[1], 2 * M * H
    count = K // square_BLG.shape[2]
    first = g * count
    first_query = first * tokens.queries // K
    query_heads = (first + count - 1) * tokens.queries // K + 1 - first_query
    k, q, o = np.empty(count * H, f32), np.empty(query_heads * width, f32), np.empty(count * 2 * H, f32)
    memory = np.empty((count, 4 * M * H), f32)
    for h in range(count):
        for m in range(M):
            for n in range(H):
                memory[h, m * H + n] = heads.theta_KMH[first + h, m, n]
                memory[h, (M + m) * H + n] = heads.omega_KMH[first + h, m, n]
                memory[h, (2 * M + m) * H + n] = sums.re_BKHM[b, first + h, n, m]
                memory[h, (3 * M + m) * H + n] = sums.im_BKHM[b, first + h, n, m]
    columns = slice(first * 2 * H, (first + count) * 2 * H)
    for t in range(length):
        _convolve(z_LP, tail_TP, tokens.kernel_cP, t, first * H, k, c)
        _convolve(z_LP, tail_TP, tokens.kernel_cP, t, K * H + K + first_query * width, q, c)
        _silu(k)
        _silu(q)
        for h in range(count):
            head = first + h
            mass = sums.z_BK[b, head] * heads.keep_K[head] + w_LK[t, head]
            sums.z_BK[b, head] = mass
            q_at = (head * tokens.queries // K - first_query) * width
            _remember(
                k[h * H : (h + 1) * H], q[q_at : q_at + width], memory[h], o[2 * h * H : 2 * (h + 1) * H],
                w_LK[t, head], heads.keep_K[head], heads.eta_K[head], ONE / max(mass, FLOOR), H, M,
            )  # fmt: skip
        square_BLG[b, t, g] = _gate(o, gate_LJ[t, columns], o_LJ[t, columns])
    o_LJ[length:, columns] = f32(0)
    square_BLG[b, length:, g] = f32(0)
    for h in range(count):
        for m in range(M):
            for n in range(H):
                sums.re_BKHM[b, first + h, n, m] = memory[h, (2 * M + m) * H + n]
                sums.im_BKHM[b, first + h, n, m] = memory[h, (3 * M + m) * H + n]


@cache
def mixing(H: int, M: int, c: int) -> Callable[[Tokens, Heads, Sums, Any, Any], None]:
    """The loop for heads of width H, M spectral points and c taps.

    It is called as `mix(tokens, heads, sums, o_BLJ, square_BLG)`: the sums hold what came before and get what
    comes after; o gets `o · silu(gate)`, zero after a row's end, and `square` its sum of squares in each of G groups of
    heads.
    """

    @njit(parallel=True, cache=True, **COMPILED)
    def mix(tokens, heads, sums, o_BLJ, square_BLG):
        G = square_BLG.shape[2]
        for unit in prange(len(o_BLJ) * G):
            _group(tokens, heads, sums, o_BLJ, square_BLG, unit // G, unit % G, H, M, c)

    return mix


@njit(parallel=True, cache=True, **COMPILED)
def normalise(o_BLJ, square_BLG, weight_J, eps, scale_BL, out_BLJ):
    """RMSNorm of o, whose sums of squares are known, times `weight`; `out` may be o itself, `scale` gets the norm's."""
    L, J = o_BLJ.shape[1:]
    for token in prange(o_BLJ.shape[0] * L):
        b, t = token // L, token % L
        scale = ONE / np.sqrt(square_BLG[b, t].sum() / f32(J) + eps)
        scale_BL[b, t] = scale
        for n in range(J):
            _store(out_BLJ[b, t], n, o_BLJ[b, t, n] * scale * weight_J[n])
