"""How the parameters start. Weights that were loaded from a checkpoint are left alone (transformers marks them)."""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init

from nautile.model.architecture import ANCHOR_START, DECAY_START, EMBEDDING_STD, THETA_MAX, THETA_MIN, Architecture
from nautile.model.attention import Attention, FeedForward
from nautile.model.pairs import NO_PAIR, PairEmbedding
from nautile.model.sca import SCA, GatedRMSNorm


def initialise(module: nn.Module, a: Architecture) -> None:
    """Start one module; transformers visits children before their parents.

    Linear layers keep the scale of their input; those that end a residual branch are smaller with depth.
    """
    if isinstance(module, nn.Linear):
        init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        init.normal_(module.weight, std=EMBEDDING_STD)
    elif isinstance(module, PairEmbedding):
        init.zeros_(module.vectors.weight)
        init.constant_(module.keys, NO_PAIR)
    elif isinstance(module, nn.RMSNorm | GatedRMSNorm):
        init.ones_(module.weight)
    elif isinstance(module, SCA):
        _end_branch(module.out_proj, a)
        _initialise_sca(module)
    elif isinstance(module, Attention):
        _end_branch(module.out_proj, a)
    elif isinstance(module, FeedForward):
        _end_branch(module.ff_out, a)


def _end_branch(layer: nn.Linear, a: Architecture) -> None:
    init.normal_(layer.weight, std=(2 * a.num_layers * layer.in_features) ** -0.5)


def _initialise_sca(module: SCA) -> None:
    """λ starts geometric over the heads, θ over the spectral points."""
    a = module.architecture
    init.normal_(module.conv_weight, std=(2 / a.conv_kernel) ** 0.5)
    if a.spectral_points == 1:
        share = (_geometric(THETA_MIN, THETA_MAX, a.memory_heads) - THETA_MIN) / (THETA_MAX - THETA_MIN)
        start = torch.logit(share.clamp(1e-4, 1 - 1e-4))[:, None, None]
    else:
        start = _softplus_inverse(_geometric(THETA_MIN, THETA_MAX, a.spectral_points))
    init.copy_(module.theta_raw, start.expand_as(module.theta_raw))
    init.zeros_(module.w_int_raw)
    init.copy_(module.decay_slopes, _softplus_inverse(_geometric(*DECAY_START, len(module.decay_slopes))))
    if module.anchor_slopes is not None:
        init.copy_(module.anchor_slopes, _softplus_inverse(_geometric(*ANCHOR_START, a.anchor_heads)))
    init.ones_(module.score_scale)
    init.zeros_(module.score_bias)
    init.ones_(module.phase_scale)
    init.normal_(module.readout, std=module.readout.shape[1] ** -0.5)


def _geometric(low: float, high: float, count: int) -> Tensor:
    return torch.logspace(math.log10(low), math.log10(high), count)


def _softplus_inverse(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-x))
