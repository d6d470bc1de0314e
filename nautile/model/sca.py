"""The SCA layer: projections, convolution and readout around the functions of `spectral.py`. Paper: Algorithm 1."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nautile.model.architecture import Architecture
from nautile.model.conv import causal_conv, conv_tail
from nautile.model.kernels import cpu
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
from nautile.model.tiles import in_tiles


def conv_silu(
    z_BLP: Tensor, kernel_P1c: Tensor, tail_BTP: Tensor | None = None, document_BL: Tensor | None = None
) -> Tensor:
    """SiLU of `causal_conv`."""
    return F.silu(causal_conv(z_BLP, kernel_P1c, tail_BTP, document_BL))


class GatedRMSNorm(nn.Module):
    """RMSNorm(o · silu(gate)) · weight over the last dimension, computed in float32. Paper: step 6."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, o: Tensor, gate: Tensor) -> Tensor:
        """O and gate of the same shape; the result has gate's dtype."""
        gated = o.float() * F.silu(gate.float())
        mean_square = torch.linalg.vector_norm(gated, dim=-1, keepdim=True).square() / gated.shape[-1]
        return (gated * torch.rsqrt(mean_square + self.eps) * self.weight.float()).to(gate.dtype)


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
        a = self.architecture
        z_BLP, gate_BLJ = self.in_proj(x_BLD), self.gate_proj(x_BLD)
        if cpu.fits(z_BLP, layout.document_BL):
            mixed_BLR = self._readout(self._mix_in_a_loop(z_BLP, gate_BLJ, layout, state))
        else:
            mixed_BLR = in_tiles(self._mix, z_BLP, gate_BLJ, layout, state, a.memory_heads * a.head_width)
        return self.out_proj(mixed_BLR)

    def _mix(self, z_BLP: Tensor, gate_BLJ: Tensor, layout: Layout, state: SCAState | None) -> Tensor:
        """Everything between the projections: (B,L,R)."""
        k_BLKH, s_BLK, q_BLQHM2 = self._convolve(z_BLP, layout, state)
        with torch.autocast(z_BLP.device.type, enabled=False):
            spectrum = self.spectrum()
            w_BLK = self._weights(s_BLK, layout.positions_BL)
            if state is not None and state.sums is not None and z_BLP.shape[1] == 1 and layout.lengths_B is None:
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
        return self._readout(self.gated_norm(o_BLKJ.flatten(2), gate_BLJ))

    def _mix_in_a_loop(self, z_BLP: Tensor, gate_BLJ: Tensor, layout: Layout, state: SCAState | None) -> Tensor:
        """What `_mix` does before the readout, by a compiled loop: (B,L,J), zero after a row's end."""
        a = self.architecture
        before = SCAState() if state is None else state
        kernel, tail_BTP = self.conv_weight.to(z_BLP.dtype), before.tail_BTP
        scores = slice(a.memory_heads * a.head_width, a.memory_heads * (a.head_width + 1))
        scores_tail = None if tail_BTP is None else tail_BTP[..., scores]
        s_BLK = conv_silu(z_BLP[..., scores].contiguous(), kernel[scores], scores_tail)
        norm = self.gated_norm
        with torch.autocast(z_BLP.device.type, enabled=False):
            normed_BLJ, sums = cpu.mix(
                z_BLP,
                gate_BLJ,
                self._weights(s_BLK, layout.positions_BL),
                kernel,
                self.spectrum(),
                cpu.Norm(norm.weight, norm.eps),
                a.query_heads,
                lengths_B=layout.lengths_B,
                tail_BTP=tail_BTP,
                sums=before.sums,
            )
        if state is not None:
            state.tail_BTP = conv_tail(z_BLP, a.conv_kernel - 1, tail_BTP, layout.lengths_B)
            state.sums = sums
        return normed_BLJ

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

    def _convolve(self, z_BLP: Tensor, layout: Layout, state: SCAState | None) -> tuple[Tensor, Tensor, Tensor]:
        """Step 1: keys (B,L,K,H), scores (B,L,K) and queries (B,L,Q,H,M,2)."""
        a = self.architecture
        kernel = self.conv_weight.to(z_BLP.dtype)
        tail = None if state is None else state.tail_BTP
        mixed = conv_silu(z_BLP, kernel, tail, layout.document_BL)
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

    def _readout(self, o_BLJ: Tensor) -> Tensor:
        """The end of step 6: of each head a readout with a sigmoid gate. (B,L,R)."""
        o_BLKJ = o_BLJ.unflatten(-1, (self.architecture.memory_heads, -1))
        return F.glu(torch.einsum("blkj,kjr->blkr", o_BLKJ, self.readout.to(o_BLJ.dtype))).flatten(2)  # v · sigmoid(g)
