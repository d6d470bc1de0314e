"""The causal depthwise convolution and its SiLU in one kernel, forward and backward: step 1 between its projections."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable


class Inputs(NamedTuple):
    """z (B,L,P), the kernel (P,1,c), what stands before z (B,c-1,P), the number of each token's document (B,L)."""

    z: Tensor
    kernel: Tensor
    tail: Tensor | None
    document: Tensor | None
    L: int


class Size(NamedTuple):
    """P, c, and the block of a program: tokens and numbers of the width."""

    P: int
    c: int
    TB: int = 32
    PB: int = 64


def conv_silu(
    z_BLP: Tensor, kernel_P1c: Tensor, tail_BTP: Tensor | None = None, document_BL: Tensor | None = None
) -> Tensor:
    """`F.silu(sca.causal_conv(…))`, (B,L,P) in z's dtype; between the two it is not rounded."""
    return _ConvSilu.apply(z_BLP, kernel_P1c, tail_BTP, document_BL)


class _ConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z_BLP: Tensor, kernel_P1c: Tensor, tail_BTP: Tensor | None, document_BL: Tensor | None
    ) -> Tensor:
        z, kernel = z_BLP.contiguous(), kernel_P1c.contiguous()
        tail, document = (None if part is None else part.contiguous() for part in (tail_BTP, document_BL))
        ctx.save_for_backward(z, kernel, tail, document)
        (B, L, P), size, out = z.shape, Size(z.shape[-1], kernel.shape[-1]), torch.empty_like(z)
        with torch.cuda.device_of(z):
            grid = triton.cdiv(P, size.PB), triton.cdiv(L, size.TB), B
            conv_forward[grid](Inputs(z, kernel, tail, document, L), out, size)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_BLP: Tensor) -> tuple[Tensor | None, ...]:
        z, kernel, tail, document = ctx.saved_tensors
        (B, L, P), size = z.shape, Size(z.shape[-1], kernel.shape[-1])
        blocks = triton.cdiv(L + size.c - 1, size.TB)
        d_z, d_tail = torch.empty_like(z), None if tail is None else torch.empty_like(tail)
        d_kernel = torch.empty(B, blocks, *kernel.shape, device=z.device)
        with torch.cuda.device_of(z):
            grid = triton.cdiv(P, size.PB), blocks, B
            inputs, gradients = Inputs(z, kernel, tail, document, L), Inputs(d_z, d_kernel, d_tail, None, L)
            conv_backward[grid](inputs, d_BLP.contiguous(), gradients, size)
        return d_z, d_kernel.sum((0, 1)).to(kernel.dtype), d_tail, None


@triton.jit
def conv_forward(inputs: Inputs, out: tl.pointer_type, size: tl.constexpr) -> None:
    """silu(Σ_j kernel_j z_{t-(c-1)+j}) for a block of tokens and of the width."""
    p = tl.program_id(0) * size.PB + tl.arange(0, size.PB)[None, :]
    t = tl.program_id(1) * size.TB + tl.arange(0, size.TB)[:, None]
    row = tl.program_id(2).to(tl.int64)
    mixed = convolve(inputs, row, t, p, size)
    tl.store(out + (row * inputs.L + t) * size.P + p, mixed * tl.sigmoid(mixed), mask=(t < inputs.L) & (p < size.P))


@triton.jit
def conv_backward(inputs: Inputs, d_out: tl.pointer_type, d: Inputs, size: tl.constexpr) -> None:
    """Gradients of z and the tail, by their own tokens (the tail's are -c+1 … -1), and a part of the kernel's."""
    p = tl.program_id(0) * size.PB + tl.arange(0, size.PB)[None, :]
    t = tl.program_id(1) * size.TB + tl.arange(0, size.TB)[:, None] - (size.c - 1)
    row, L, wide = tl.program_id(2).to(tl.int64), inputs.L, p < size.P
    c: tl.constexpr = size.c
    part = (row * tl.num_programs(1) + tl.program_id(1)) * size.P + p
    x = load_input(inputs, row, t, p, size)
    d_x = tl.zeros_like(x)
    for tap in tl.static_range(c):
        later = t + c - 1 - tap
        mixed = convolve(inputs, row, later, p, size)
        gate = tl.sigmoid(mixed)
        there = (later >= 0) & (later < L) & wide
        d_mixed = tl.load(d_out + (row * L + later) * size.P + p, mask=there, other=0.0).to(tl.float32)
        d_mixed *= gate * (1 + mixed * (1 - gate)) * together(inputs, row, t, later)
        d_x += d_mixed * load_kernel(inputs, tap, p, size)
        tl.store(d.kernel + part * c + tap, tl.sum(d_mixed * x, axis=0)[None, :], mask=wide)
    tl.store(d.z + (row * L + t) * size.P + p, d_x, mask=(t >= 0) & (t < L) & wide)
    if d.tail is not None:
        tl.store(d.tail + (row * (c - 1) + t + c - 1) * size.P + p, d_x, mask=(t < 0) & wide)


@triton.jit
def convolve(inputs: Inputs, row: tl.tensor, t: tl.tensor, p: tl.tensor, size: tl.constexpr) -> tl.tensor:
    """Σ_j kernel_j z_{t-(c-1)+j}, float32."""
    c: tl.constexpr = size.c
    mixed = 0.0
    for tap in tl.static_range(c):
        earlier = t - (c - 1) + tap
        x = load_input(inputs, row, earlier, p, size) * together(inputs, row, earlier, t)
        mixed += x * load_kernel(inputs, tap, p, size)
    return mixed


@triton.jit
def load_kernel(inputs: Inputs, tap: tl.constexpr, p: tl.tensor, size: tl.constexpr) -> tl.tensor:
    """A tap's weights, (1,PB)."""
    return tl.load(inputs.kernel + p * size.c + tap, mask=p < size.P, other=0.0).to(tl.float32)


@triton.jit
def load_input(inputs: Inputs, row: tl.tensor, t: tl.tensor, p: tl.tensor, size: tl.constexpr) -> tl.tensor:
    """z_t, or the tail's where t is negative; zero outside both. float32."""
    at, inside = (row * inputs.L + t) * size.P + p, (t >= 0) & (t < inputs.L)
    x = tl.load(inputs.z + at, mask=inside & (p < size.P), other=0.0).to(tl.float32)
    if inputs.tail is not None:
        at, inside = (row * (size.c - 1) + t + size.c - 1) * size.P + p, (t < 0) & (t > -size.c)
        x += tl.load(inputs.tail + at, mask=inside & (p < size.P), other=0.0).to(tl.float32)
    return x


@triton.jit
def together(inputs: Inputs, row: tl.tensor, t: tl.tensor, later: tl.tensor) -> tl.tensor:
    """1.0 where both tokens stand in one document; those of a tail stand in none of a packed row's."""
    same = 1.0
    if inputs.document is not None:
        document, L = inputs.document + row * inputs.L, inputs.L
        first = tl.load(document + t, mask=(t >= 0) & (t < L), other=-1)
        same = (first == tl.load(document + later, mask=(later >= 0) & (later < L), other=-2)).to(tl.float32)
    return same
