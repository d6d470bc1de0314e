"""The causal depthwise convolution before SCA's memory, and the inputs that it leaves for what comes next."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TILE, NARROWEST = 1 << 18, 64  # numbers of a tensor that fits the cache; channels


def causal_conv(
    z_BLP: Tensor, kernel_P1c: Tensor, tail_BTP: Tensor | None = None, document_BL: Tensor | None = None
) -> Tensor:
    """Depthwise convolution over the last c tokens; `tail_BTP` (T = c-1) stands before the first, zeros if None.

    With packed documents a tap that would reach into another document reads zero.
    """
    L, c = z_BLP.shape[1], kernel_P1c.shape[-1]
    if document_BL is None:
        if tail_BTP is None:
            return _Depthwise.apply(z_BLP, kernel_P1c, c - 1)
        return _Depthwise.apply(torch.cat([tail_BTP, z_BLP], dim=1), kernel_P1c, 0)
    padded = F.pad(z_BLP, (0, 0, c - 1, 0)) if tail_BTP is None else torch.cat([tail_BTP, z_BLP], dim=1)
    numbers = F.pad(document_BL, (c - 1, 0), value=-1)
    out = torch.zeros_like(z_BLP)
    for tap in range(c):
        same = (numbers[:, tap : tap + L] == document_BL)[..., None]
        out = out + padded[:, tap : tap + L] * kernel_P1c[:, 0, tap] * same
    return out


def conv_tail(z_BLP: Tensor, width: int, tail_BTP: Tensor | None, lengths_B: Tensor | None) -> Tensor:
    """The last `width` real inputs of the convolution in each row, zeros where a row is shorter. (B,width,P)."""
    before = z_BLP.new_zeros(z_BLP.shape[0], width, z_BLP.shape[2]) if tail_BTP is None else tail_BTP
    if lengths_B is None:
        joined = torch.cat([before, z_BLP[:, max(0, z_BLP.shape[1] - width) :]], dim=1)
        return joined[:, joined.shape[1] - width :]
    at_BT = lengths_B[:, None] + torch.arange(width, device=z_BLP.device)
    return torch.cat([before, z_BLP], dim=1).gather(1, at_BT[..., None].expand(-1, -1, z_BLP.shape[2]))


def _by_channel(x_BSP: Tensor, kernel_Pc: Tensor, zeros: int) -> Tensor:
    """(B,L,P), L = S - c + 1 + 2·zeros: as if so many zeros stood on either side.

    A picture of one line, channels last: on a CPU faster than conv1d.
    """
    line_BP1S = x_BSP.transpose(1, 2)[:, :, None]
    out_BP1L = F.conv2d(line_BP1S, kernel_Pc[:, None, None], padding=(0, zeros), groups=len(kernel_Pc))
    return out_BP1L[:, :, 0].transpose(1, 2)


def _of_kernel(x_BSp: Tensor, grad_BLp: Tensor, c: int) -> Tensor:
    """The kernel's gradient (p,c) for some channels, in float32 or better."""
    x, grad = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (x_BSp, grad_BLp))
    return torch.stack([(x[:, tap : tap + grad.shape[1]] * grad).sum((0, 1)) for tap in range(c)], dim=-1)


class _Depthwise(torch.autograd.Function):
    """`_by_channel` without zeros at the end, whose gradients take its fast way too.

    Forward-mode derivatives are not offered.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x_BSP: Tensor, kernel_P1c: Tensor, zeros: int) -> Tensor:
        S, c = x_BSP.shape[1], kernel_P1c.shape[-1]
        return _by_channel(x_BSP.contiguous(), kernel_P1c[:, 0], zeros)[:, : S - c + 1 + zeros]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        x_BSP, kernel_P1c, ctx.zeros = inputs
        ctx.save_for_backward(x_BSP, kernel_P1c)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x_BSP, kernel_P1c), (grad_BLP,) = ctx.saved_tensors, grads
        c, L = kernel_P1c.shape[-1], grad_BLP.shape[1]
        of_x = of_kernel = None
        if ctx.needs_input_grad[0]:
            flipped_Pc = kernel_P1c[:, 0].flip(-1).to(grad_BLP.dtype)
            of_x = _by_channel(grad_BLP.contiguous(), flipped_Pc, c - 1)[:, ctx.zeros :]
        if ctx.needs_input_grad[1]:
            x_BSP = F.pad(x_BSP, (0, 0, ctx.zeros, 0))
            cached = max(NARROWEST, TILE // (len(x_BSP) * L))
            width = cached if x_BSP.device.type == "cpu" else x_BSP.shape[-1]
            tiles = zip(x_BSP.split(width, dim=-1), grad_BLP.split(width, dim=-1), strict=True)
            of_kernel = torch.cat([_of_kernel(x, grad, c) for x, grad in tiles])[:, None].to(kernel_P1c.dtype)
        return of_x, of_kernel, None
