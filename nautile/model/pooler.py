"""From hidden states to one vector a text: their mean, or the last one, and then layers that see a text once.

Not in the paper. A layer that reads every token costs as many times more as a text has tokens; after pooling, a small
model can afford some.
"""

import torch
from torch import Tensor, nn

from nautile.model.attention import FeedForward
from nautile.model.config import NautileConfig


class PoolerLayer(nn.Module):
    """`x + feed_forward(norm(x))`."""

    def __init__(self, config: NautileConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape in and out."""
        refined: Tensor = x + self.feed_forward(self.norm(x))
        return refined


class Pooler(nn.Module):
    """One vector (B,D) a text, by `config.pooling` and `config.pooler_layers`, of which there may be none."""

    def __init__(self, config: NautileConfig) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.layers = nn.ModuleList(PoolerLayer(config) for _ in range(config.pooler_layers))

    def forward(self, hidden_BLD: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B,D) in the hidden states' type."""
        return self.refine(pool(hidden_BLD, attention_mask, self.pooling))

    def refine(self, pooled: Tensor) -> Tensor:
        """(…,D): what the layers make of what was pooled, computed in the layers' type and returned in its own."""
        x = pooled.to(next(self.parameters(), pooled).dtype)
        for layer in self.layers:
            x = layer(x)
        return x.to(pooled.dtype)


def pool(hidden_BLD: Tensor, attention_mask: Tensor | None, pooling: str) -> Tensor:
    """One vector (B,D) a row: the mean over its real tokens, or the rightmost real one; zeros for an empty row."""
    B, L, _ = hidden_BLD.shape
    if attention_mask is None:
        real_BL = torch.ones(B, L, dtype=torch.bool, device=hidden_BLD.device)
    else:
        real_BL = attention_mask[:, -L:] != 0
    if pooling == "mean":
        share_BL = real_BL / real_BL.sum(1, keepdim=True).clamp(min=1)
        return (share_BL[..., None] * hidden_BLD).sum(1).to(hidden_BLD.dtype)
    step_L = torch.arange(L, device=hidden_BLD.device)
    last_B = (real_BL * step_L).argmax(1)
    return hidden_BLD[torch.arange(B, device=last_B.device), last_B] * real_BL.any(1, keepdim=True)
