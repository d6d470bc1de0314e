"""What the kernels of the scan and the step share: shapes, lanes, loads, stores.

A program owns HB channels of one head with all their spectral points: X = HB·MP lanes, x = (h, m), MP the power of two
from M. Lanes without a channel read zeros, which neither add to a sum nor read from one.
"""

from typing import NamedTuple, TypeVar

import triton
import triton.language as tl
from torch import Tensor

from nautile.model.spectral import Spectrum, Sums

LANES = 32
Parts = TypeVar("Parts", Spectrum, Sums)


class Shape(NamedTuple):
    """Sizes that a kernel is compiled for; C is the number of tokens that it takes at once."""

    K: int
    Q: int
    H: int
    M: int
    C: int
    HB: int
    MP: int

    @classmethod
    def of(cls, k_BLKH: Tensor, q_BLQHM2: Tensor, C: int) -> "Shape":
        """About `LANES` lanes a program, and no fewer than the 16 that a matrix product takes."""
        (K, H), (Q, _, M, _) = k_BLKH.shape[2:], q_BLQHM2.shape[2:]
        MP = triton.next_power_of_2(M)
        HB = max(min(triton.next_power_of_2(H), LANES // MP), 16 // MP, 1)
        return cls(K, Q, H, M, C, HB, MP)

    def programs(self, rows: int) -> tuple[int, int, int]:
        """The grid: blocks of channels, heads, rows."""
        return triton.cdiv(self.H, self.HB), self.K, rows


class Tokens(NamedTuple):
    """A batch: k (B,L,K,H), w (B,L,K), q (B,L,Q,H,M,2), document (B,L) and lengths (B,) as `spectral.sca_chunked` says.

    k and q may be parts of a wider tensor; the strides are those of B and L.
    """

    k: Tensor
    w: Tensor
    q: Tensor
    k_strides: tuple[int, ...]
    q_strides: tuple[int, ...]
    document: Tensor | None
    lengths: Tensor | None
    L: int

    @classmethod
    def of(
        cls,
        k_BLKH: Tensor,
        w_BLK: Tensor,
        q_BLQHM2: Tensor,
        document_BL: Tensor | None = None,
        lengths_B: Tensor | None = None,
    ) -> "Tokens":
        """Copies only what has gaps inside a token."""
        k, q = (part if part[0, 0].is_contiguous() else part.contiguous() for part in (k_BLKH, q_BLQHM2))
        w, document = w_BLK.contiguous(), None if document_BL is None else document_BL.contiguous()
        return cls(k, w, q, k.stride()[:2], q.stride()[:2], document, lengths_B, w.shape[1])


def dense(parts: Parts) -> Parts:
    """Spectrum or sums without gaps, as kernels read them."""
    return type(parts)(*(part.contiguous() for part in parts))


@triton.jit
def place_of_program(shape: tl.constexpr) -> tl.tensor:
    """Where a program works: block, head, row; h, the place in (H,M) and the existence of its lanes, (1,X) each."""
    block, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    lane = tl.arange(0, shape.HB * shape.MP)[None, :]
    h, m = block * shape.HB + lane // shape.MP, lane % shape.MP
    return block, head, row, h, h * shape.M + m, (h < shape.H) & (m < shape.M)


@triton.jit
def load_spectrum(spectrum: Spectrum, place: tl.tensor, shape: tl.constexpr) -> tl.tensor:
    """η and the fading of the head; θ and ω/√H of the lanes."""
    _, head, _, _, x, real = place
    theta = tl.load(spectrum.theta_KHM + head * shape.H * shape.M + x, mask=real, other=0.0)
    omega = tl.load(spectrum.omega_KHM + head * shape.H * shape.M + x, mask=real, other=0.0)
    return tl.load(spectrum.eta_K + head), tl.load(spectrum.fade_K + head), theta, omega / shape.H**0.5


@triton.jit
def load_tokens(tokens: Tokens, place: tl.tensor, t: tl.tensor, live: tl.tensor, shape: tl.constexpr) -> tl.tensor:
    """Key (C,X), weight (C,1) and query, re and im (C,X), of the tokens t (C,1): float32, zero where not live."""
    _, head, row, h, x, real = place
    q_head = head // (shape.K // shape.Q)
    at_k = row * tokens.k_strides[0] + t.to(tl.int64) * tokens.k_strides[1] + head * shape.H + h
    at_q = row * tokens.q_strides[0] + t.to(tl.int64) * tokens.q_strides[1] + 2 * (q_head * shape.H * shape.M + x)
    k = tl.load(tokens.k + at_k, mask=live & real, other=0.0)
    w = tl.load(tokens.w + (row * tokens.L + t) * shape.K + head, mask=live, other=0.0)
    q_re = tl.load(tokens.q + at_q, mask=live & real, other=0.0)
    q_im = tl.load(tokens.q + at_q + 1, mask=live & real, other=0.0)
    return k.to(tl.float32), w.to(tl.float32), q_re.to(tl.float32), q_im.to(tl.float32)


@triton.jit
def load_sums(sums: Sums, number: tl.tensor, place: tl.tensor, shape: tl.constexpr) -> tl.tensor:
    """Z (), R and I (1,X) of a head's memory, the `number`-th of those in `sums`."""
    _, _, _, _, x, real = place
    at = number * shape.H * shape.M + x
    re = tl.load(sums.re_BKHM + at, mask=real, other=0.0)
    return tl.load(sums.z_BK + number), re, tl.load(sums.im_BKHM + at, mask=real, other=0.0)


@triton.jit
def store_sums(sums: Sums, number: tl.tensor, place: tl.tensor, shape: tl.constexpr, values: tl.tensor) -> None:
    """Write what `load_sums` reads; all blocks of a head write the same Z."""
    _, _, _, _, x, real = place
    z, re, im = values
    at = number * shape.H * shape.M + x
    tl.store(sums.z_BK + number, z)
    tl.store(sums.re_BKHM + at, re, mask=real)
    tl.store(sums.im_BKHM + at, im, mask=real)


@triton.jit
def store_channels(
    to: tl.pointer_type, part: tl.tensor, place: tl.tensor, live: tl.tensor, shape: tl.constexpr
) -> None:
    """Sum `part` (C,X) over the spectral points and write it, by channels, to the live among the places (C,1)."""
    h = place[0] * shape.HB + tl.arange(0, shape.HB)[None, :]
    total = tl.sum(tl.reshape(part, (part.shape[0], shape.HB, shape.MP)), axis=2)
    tl.store(to + h, total, mask=live & (h < shape.H))
