"""Causal attention with grouped key-value heads, and the gated feed-forward layer after it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nautile.model.architecture import QK_EPS, Architecture
from nautile.model.layout import Layout
from nautile.model.state import AttentionState, NautileState


def rotary(positions_BL: Tensor, width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, (B,1,L,E/2), float32. The halves of a head are rotated together."""
    steps = torch.arange(0, width, 2, device=positions_BL.device, dtype=torch.float32) / width
    angles = positions_BL[:, None, :, None].float() * base**-steps
    return angles.cos(), angles.sin()


def rotate(x_BNLE: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the first half of each head with its second half, then normalise to unit RMS (no learned scale)."""
    cos, sin = rotation
    first, second = x_BNLE.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return F.rms_norm(turned, turned.shape[-1:], eps=QK_EPS).to(x_BNLE.dtype)


def visible_keys(batch: int, length: int, layout: Layout, state: NautileState | None) -> Tensor | None:
    """Which keys each query sees, (B,1,L,S) bool; None where plain causality is all there is."""
    if state is not None and (visible := state.visible(length, layout)) is not None:
        return visible
    past = 0 if state is None else state.columns
    ragged = state is not None and state.real_BS is not None
    if layout.document_BL is None and not ragged and (past == 0 or length == 1):
        return None
    step_S = torch.arange(past + length, device=layout.positions_BL.device)
    seen = (step_S <= step_S[past:, None])[None]
    if layout.document_BL is not None:
        seen = seen & (layout.document_BL[:, :, None] == layout.document_BL[:, None, :])
    if ragged:
        assert state is not None
        assert state.real_BS is not None
        current = torch.ones(batch, length, dtype=torch.bool, device=step_S.device)
        seen = seen & torch.cat([state.real_BS, current], dim=1)[:, None, :]
    return seen[:, None]


def attend(q_BNLE: Tensor, k_BGSE: Tensor, v_BGSE: Tensor, mask_BLS: Tensor | None) -> Tensor:
    """Values (B,N,L,E) that the queries draw; a mask (B,1,L,S), or without one causality.

    A single query sees the same keys in every head of its group: these then stand as queries of one head, which
    reads the keys once.
    """
    if q_BNLE.shape[2] > 1:
        causal = mask_BLS is None
        return F.scaled_dot_product_attention(q_BNLE, k_BGSE, v_BGSE, mask_BLS, is_causal=causal, enable_gqa=True)
    q_BGNE = q_BNLE.unflatten(1, (k_BGSE.shape[1], -1)).squeeze(3)
    return F.scaled_dot_product_attention(q_BGNE, k_BGSE, v_BGSE, mask_BLS).reshape(q_BNLE.shape)


class Attention(nn.Module):
    """Grouped-query causal attention, D to D."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.architecture = a
        inner, kv = a.num_heads * a.attention_width, a.num_kv_heads * a.attention_width
        self.q_proj = nn.Linear(a.d_model, inner, bias=False)
        self.k_proj = nn.Linear(a.d_model, kv, bias=False)
        self.v_proj = nn.Linear(a.d_model, kv, bias=False)
        self.out_proj = nn.Linear(inner, a.d_model, bias=False)

    def forward(
        self,
        x_BLD: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        state: AttentionState | None = None,
    ) -> Tensor:
        """Mix the tokens of x (the block's normed input); `state` is extended by the current keys and values."""
        heads = (-1, self.architecture.attention_width)
        q, k, v = (p(x_BLD).unflatten(-1, heads).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, rotation), rotate(k, rotation)
        if state is not None:
            k, v = state.extend(k, v)
        y = attend(q, k, v, mask)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """`ff_out(silu(v) · u)` with `u, v = ff_in(x)`; both projections have biases."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.ff_in = nn.Linear(a.d_model, 2 * a.d_ff)
        self.ff_out = nn.Linear(a.d_ff, a.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """The same width in and out."""
        u, v = self.ff_in(x).chunk(2, dim=-1)
        return self.ff_out(F.silu(v) * u)
