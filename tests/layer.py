"""Random inputs and parameters of one SCA layer, for tests of the functions in `nautile.model.spectral`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nautile.model.spectral import (
    Spectrum,
    anchor_weights,
    boundary_weights,
    content_gate,
    quadrature,
    spectral_grid,
)

H, K, MAXLEN = 4, 4, 160


@dataclass
class Case:
    """Inputs (B,L,…) and parameters of one layer, and how its weights decay."""

    tensors: dict[str, Tensor]
    decay: str = "relative"
    clip: bool = False

    def leaves(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        return {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in self.tensors.items()}


def case(
    L: int, *, B: int = 2, M: int = 2, Q: int = 2, anchors: int = 0, decay: str = "relative", clip: bool = False
) -> Case:
    """Normal inputs; slow, middling and fast heads; phases and spectral points all over their range."""
    tensors = {
        "k": torch.randn(B, L, K, H),
        "s": torch.randn(B, L, K),
        "q": torch.randn(B, L, Q, H, M, 2),
        "score_scale": torch.randn(K),
        "score_bias": torch.randn(K),
        "phase_scale": 1 + torch.randn(K),
        "theta_raw": torch.randn(K, H, M),
        "w_int_raw": torch.randn(Q, K // Q, H, M),
        "decay_slopes": torch.linspace(-5, -1, K - anchors),
        "anchor_slopes": torch.linspace(-4, -2, anchors),
    }
    return Case(tensors, decay, clip)


def prepared(x: dict[str, Tensor], decay: str, clip: bool) -> tuple[Tensor, Tensor, Tensor, Spectrum]:
    """What the three forms take: keys, weights, queries and the spectrum."""
    positions = torch.arange(x["k"].shape[1])[None]
    gate = content_gate(x["s"], x["score_scale"], x["score_bias"])
    decaying, anchored = gate.split([len(x["decay_slopes"]), len(x["anchor_slopes"])], dim=-1)
    slopes, anchor_slopes = (torch.nn.functional.softplus(x[name]) for name in ("decay_slopes", "anchor_slopes"))
    fade = slopes
    if decay == "boundary":
        decaying, fade = boundary_weights(decaying, slopes, positions, MAXLEN, clip), torch.zeros_like(slopes)
    w = torch.cat([decaying, anchor_weights(anchored, anchor_slopes, positions, clip)], dim=-1)
    fade = torch.cat([fade, torch.zeros_like(anchor_slopes)])
    omega = quadrature(x["w_int_raw"]).flatten(0, 1)
    return x["k"], w, x["q"], Spectrum(x["phase_scale"], spectral_grid(x["theta_raw"]), omega, fade)
