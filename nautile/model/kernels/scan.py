"""Steps 3 to 5 over a sequence as one differentiable function: the contract of `spectral.sca_chunked`.

In memory are, beside inputs and outputs, the sums before each chunk (1/CHUNK of what all tokens' sums would take) for
the backward pass, and one part of w's gradient for each block of channels. What a spectrum or memory head shares is
summed here, in torch.
"""

from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from nautile.model.kernels.blocks import Shape, Tokens, dense
from nautile.model.kernels.scan_backward import Gradients, scan_backward
from nautile.model.kernels.scan_forward import scan_forward
from nautile.model.spectral import Spectrum, Sums

CHUNK = 16


def sca_scan(
    k_BLKH: Tensor,
    w_BLK: Tensor,
    q_BLQHM2: Tensor,
    spectrum: Spectrum,
    *,
    document_BL: Tensor | None = None,
    lengths_B: Tensor | None = None,
    sums: Sums | None = None,
) -> tuple[Tensor, Sums]:
    """Steps 3 to 5 as in `spectral.sca_chunked`; what stands after a row's end reads out as zero.

    Sums that come in belong to the row's first document. Returns o (B,L,K,2H) and the sums at each row's end, float32.
    """
    shape = Shape.of(k_BLKH, q_BLQHM2, CHUNK)
    spectrum = Spectrum(*(part.float() for part in spectrum))
    if sums is None:
        zeros = spectrum.theta_KHM.new_zeros(len(k_BLKH), shape.K, shape.H, shape.M)
        sums = Sums(zeros[:, :, 0, 0], zeros, zeros)
    if lengths_B is None:
        lengths_B = w_BLK.new_full((w_BLK.shape[0],), w_BLK.shape[1], dtype=torch.int32)
    inputs = (k_BLKH, w_BLK, q_BLQHM2, *spectrum, *sums)
    if torch.is_grad_enabled() and any(part.requires_grad for part in inputs):
        o, *after = _Scan.apply(shape, document_BL, lengths_B, *inputs)
        return o, Sums(*after)
    o, after, _ = _forward(shape, Tokens.of(*inputs[:3], document_BL, lengths_B), spectrum, sums, keep=False)
    return o, after


class _Scan(torch.autograd.Function):
    """Of k, w, q, the four parts of the spectrum and the three of the sums."""

    @staticmethod
    def forward(
        ctx: Any, shape: Shape, document_BL: Tensor | None, lengths_B: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        k, w, q, *rest = inputs
        spectrum, sums = Spectrum(*rest[:4]), Sums(*rest[4:])
        o, after, kept = _forward(shape, Tokens.of(k, w, q, document_BL, lengths_B), spectrum, sums, keep=True)
        assert kept is not None
        ctx.shape = shape
        ctx.save_for_backward(document_BL, lengths_B, k, w, q, *spectrum, *kept)
        return o, *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor, *d_after: Tensor) -> tuple[Tensor | None, ...]:
        document_BL, lengths_B, k, w, q, *rest = ctx.saved_tensors
        tokens, spectrum, kept = Tokens.of(k, w, q, document_BL, lengths_B), dense(Spectrum(*rest[:4])), Sums(*rest[4:])
        d = _no_gradients(ctx.shape, tokens)
        with torch.cuda.device_of(w):
            scan_backward[ctx.shape.programs(len(k))](
                tokens, spectrum, kept, d_o.contiguous(), dense(Sums(*d_after)), d, ctx.shape
            )
        d_tokens = d.k.to(k.dtype), d.w.sum(0).to(w.dtype), d.q.to(q.dtype)
        eta, theta, omega, fade = d.spectrum
        d_spectrum = eta.sum((0, 1)), theta.sum(0), omega.sum(0), fade.sum((0, 1))
        return None, None, None, *d_tokens, *d_spectrum, d.before.z_BK.sum(0), d.before.re_BKHM, d.before.im_BKHM


def _forward(
    shape: Shape, tokens: Tokens, spectrum: Spectrum, sums: Sums, *, keep: bool
) -> tuple[Tensor, Sums, Sums | None]:
    """o, the sums at each row's end and, to `keep`, those before each chunk (B,K,N…)."""
    B, N = len(tokens.k), triton.cdiv(tokens.L, shape.C)
    o = torch.zeros(B, tokens.L, shape.K, 2 * shape.H, device=tokens.k.device)
    before = dense(sums)
    after = Sums(*(torch.empty_like(part) for part in before))
    kept = Sums(*(part.new_empty(B, shape.K, N, *part.shape[2:]) for part in before)) if keep else None
    with torch.cuda.device_of(o):
        scan_forward[shape.programs(B)](tokens, dense(spectrum), before, o, after, kept, shape)
    return o, after, kept


def _no_gradients(shape: Shape, tokens: Tokens) -> Gradients:
    """Zeros in float32 where the backward walk writes."""
    blocks, K, B = shape.programs(len(tokens.k))
    zeros = partial(torch.zeros, device=tokens.k.device)
    eta, fade, z = (zeros(blocks, B, K) for _ in range(3))
    theta, omega, re, im = (zeros(B, K, shape.H, shape.M) for _ in range(4))
    d_k, d_w, d_q = (zeros(size) for size in (tokens.k.shape, (blocks, B, tokens.L, K), tokens.q.shape))
    return Gradients(d_k, d_w, d_q, Spectrum(eta, theta, omega, fade), Sums(z, re, im))
