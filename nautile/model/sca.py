"""The SCA layer: projections, convolution and readout around the functions of `spectral.py`. Paper: Algorithm 1."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nautile.model.architecture import Architecture
from nautile.model.layout import Layout
from nautile.model.spectral import (
    Spectrum,
    anchor_weights,
    boundary_weights,
    content_gate,
    quadrature,
    sca_chunked,
    sca_step,
    spectral_grid,
)
from nautile.model.state import SCAState


def causal_conv(
    z_BLP: Tensor, kernel_P1c: Tensor, tail_BTP: Tensor | None = None, document_BL: Tensor | None = None
) -> Tensor:
    """Depthwise convolution over the last c tokens; `tail_BTP` (T = c-1) stands before the first, zeros if None.

    With packed documents a tap that would reach into another document reads zero.
    """
    L, c = z_BLP.shape[1], kernel_P1c.shape[-1]
    padded = F.pad(z_BLP, (0, 0, c - 1, 0)) if tail_BTP is None else torch.cat([tail_BTP, z_BLP], dim=1)
    if document_BL is None:
        return F.conv1d(padded.transpose(1, 2), kernel_P1c, groups=z_BLP.shape[-1]).transpose(1, 2)
    numbers = F.pad(document_BL, (c - 1, 0), value=-1)
    out = torch.zeros_like(z_BLP)
    for tap in range(c):
        same = (numbers[:, tap : tap + L] == document_BL)[..., None]
        out = out + padded[:, tap : tap + L] * kernel_P1c[:, 0, tap] * same
    return out


def conv_tail(z_BLP: Tensor, width: int, tail_BTP: Tensor | None, lengths_B: Tensor | None) -> Tensor:
    """The last `width` real inputs of the convolution in each row, zeros where a row is shorter. (B,width,P)."""
    before = z_BLP.new_zeros(z_BLP.shape[0], width, z_BLP.shape[2]) if tail_BTP is None else tail_BTP
    joined = torch.cat([before, z_BLP], dim=1)
    if lengths_B is None:
        return joined[:, joined.shape[1] - width :]
    at_BT = lengths_B[:, None] + torch.arange(width, device=z_BLP.device)
    return joined.gather(1, at_BT[..., None].expand(-1, -1, joined.shape[2]))


class GatedRMSNorm(nn.Module):
    """RMSNorm(o · silu(gate)) · weight over the last dimension, computed in float32. Paper: step 6."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, o: Tensor, gate: Tensor) -> Tensor:
        """O and gate of the same shape; the result has gate's dtype."""
        gated = o.float() * F.silu(gate.float())
        return (F.rms_norm(gated, gated.shape[-1:], eps=self.eps) * self.weight.float()).to(gate.dtype)


class SCA(nn.Module):
    """SeqCond Attention, D to D."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.architecture = a
        K, Q, H, M = a.memory_heads, a.query_heads, a.head_width, a.spectral_points
        self.in_proj = nn.Linear(a.d_model, a.projection_width, bias=False)
        self.conv_weight = nn.Parameter(torch.empty(a.projection_width, 1, a.conv_kernel))
        self.theta_raw = nn.Parameter(torch.empty(K, H, M))
        self.w_int_raw = nn.Parameter(torch.empty(Q, K // Q, H, M))
        self.decay_slopes = nn.Parameter(torch.empty(K - a.anchor_heads))
        self.anchor_slopes = nn.Parameter(torch.empty(a.anchor_heads)) if a.anchor_heads else None
        self.score_scale = nn.Parameter(torch.empty(K))
        self.score_bias = nn.Parameter(torch.empty(K))
        self.phase_scale = nn.Parameter(torch.empty(K))
        self.gate_proj = nn.Linear(a.d_model, 2 * K * H, bias=False)
        self.gated_norm = GatedRMSNorm(2 * K * H)
        self.readout = nn.Parameter(torch.empty(K, 2 * H, 2 * a.readout_expand * H))
        self.out_proj = nn.Linear(a.readout_width, a.d_model, bias=False)

    def forward(self, x_BLD: Tensor, layout: Layout, state: SCAState | None = None) -> Tensor:
        """Mix the tokens of x (the block's normed input) causally; `state` is read and replaced by its successor."""
        k_BLKH, s_BLK, q_BLQHM2 = self._project(x_BLD, layout, state)
        with torch.autocast(x_BLD.device.type, enabled=False):
            spectrum = self.spectrum()
            w_BLK = self._weights(s_BLK, layout.positions_BL)
            if state is not None and state.sums is not None and x_BLD.shape[1] == 1 and layout.lengths_B is None:
                o_BLKJ, sums = sca_step(k_BLKH, w_BLK, q_BLQHM2, spectrum, state.sums)
            else:
                o_BLKJ, sums = sca_chunked(
                    k_BLKH,
                    w_BLK,
                    q_BLQHM2,
                    spectrum,
                    document_BL=layout.document_BL,
                    lengths_B=layout.lengths_B if state is not None else None,
                    sums=None if state is None else state.sums,
                )
        if state is not None:
            state.sums = sums
        return self._fuse(o_BLKJ, x_BLD)

    def spectrum(self) -> Spectrum:
        """θ, ω, η and the fading of the sums, derived from the parameters at each call."""
        a = self.architecture
        slopes_K = F.softplus(self.decay_slopes.float())
        fade_K = slopes_K if a.decay == "relative" else torch.zeros_like(slopes_K)
        return Spectrum(
            self.phase_scale.float(),
            spectral_grid(self.theta_raw.float()),
            quadrature(self.w_int_raw.float()).flatten(0, 1),
            F.pad(fade_K, (0, a.anchor_heads)),
        )

    def _project(self, x_BLD: Tensor, layout: Layout, state: SCAState | None) -> tuple[Tensor, Tensor, Tensor]:
        """Step 1: keys (B,L,K,H), scores (B,L,K) and queries (B,L,Q,H,M,2)."""
        a = self.architecture
        z_BLP = self.in_proj(x_BLD)
        kernel = self.conv_weight.to(z_BLP.dtype)
        tail = None if state is None else state.tail_BTP
        mixed = F.silu(causal_conv(z_BLP, kernel, tail, layout.document_BL))
        if state is not None:
            state.tail_BTP = conv_tail(z_BLP, a.conv_kernel - 1, tail, layout.lengths_B)
        K, H = a.memory_heads, a.head_width
        k, s, q = mixed.split([K * H, K, a.projection_width - K * H - K], dim=-1)
        return k.unflatten(-1, (K, H)), s, q.unflatten(-1, (a.query_heads, H, a.spectral_points, 2))

    def _weights(self, s_BLK: Tensor, positions_BL: Tensor) -> Tensor:
        """Step 2: α, of the decaying heads first, then of the anchor heads."""
        a = self.architecture
        gate_BLK = content_gate(s_BLK, self.score_scale, self.score_bias)
        decaying, anchored = gate_BLK.split([a.memory_heads - a.anchor_heads, a.anchor_heads], dim=-1)
        if a.decay == "boundary":
            slopes_K = F.softplus(self.decay_slopes.float())
            decaying = boundary_weights(decaying, slopes_K, positions_BL, a.maxlen, a.clip_weights)
        if self.anchor_slopes is None:
            return decaying
        slopes_K = F.softplus(self.anchor_slopes.float())
        return torch.cat([decaying, anchor_weights(anchored, slopes_K, positions_BL, a.clip_weights)], dim=-1)

    def _fuse(self, o_BLKJ: Tensor, x_BLD: Tensor) -> Tensor:
        """Step 6: gated norm, per-head readout with a sigmoid gate, projection back to D."""
        K = self.architecture.memory_heads
        o = self.gated_norm(o_BLKJ.flatten(2), self.gate_proj(x_BLD)).unflatten(-1, (K, -1))
        v, g = torch.einsum("blkj,kjr->blkr", o, self.readout.to(o.dtype)).chunk(2, dim=-1)
        return self.out_proj((v * torch.sigmoid(g)).flatten(2))
