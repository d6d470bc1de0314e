"""The two kinds of layers, each with its norms and residual connections. Paper: section 2.3."""

from typing import Any

from torch import Tensor, nn

from nautile.model.architecture import Architecture
from nautile.model.attention import Attention, FeedForward
from nautile.model.layout import Layout
from nautile.model.sca import SCA
from nautile.model.state import NautileState


class SCABlock(nn.Module):
    """`x + SCA(norm(x))`."""

    def __init__(self, a: Architecture, index: int) -> None:
        super().__init__()
        self.index = index
        self.norm = nn.RMSNorm(a.d_model, eps=a.norm_eps)
        self.sca = SCA(a)

    def forward(
        self, x_BLD: Tensor, layout: Layout, attending: Any = None, cache: NautileState | None = None
    ) -> Tensor:
        """One layer; `cache` is advanced in place. `attending` is for attention blocks."""
        state = None if cache is None else cache.layers[self.index]
        return x_BLD + self.sca(self.norm(x_BLD), layout, state)


class AttentionBlock(nn.Module):
    """`x + attention(norm1(x))`, then `x + feed_forward(norm2(x))`."""

    def __init__(self, a: Architecture, index: int) -> None:
        super().__init__()
        self.index = index
        self.norm1 = nn.RMSNorm(a.d_model, eps=a.norm_eps)
        self.attention = Attention(a)
        self.norm2 = nn.RMSNorm(a.d_model, eps=a.norm_eps)
        self.feed_forward = FeedForward(a)

    def forward(
        self,
        x_BLD: Tensor,
        layout: Layout,
        attending: tuple[tuple[Tensor, Tensor], Tensor | None],
        cache: NautileState | None = None,
    ) -> Tensor:
        """One layer; `attending` holds the rotation and the mask, `cache` is advanced in place."""
        state = None if cache is None else cache.layers[self.index]
        x_BLD = x_BLD + self.attention(self.norm1(x_BLD), *attending, state)
        return x_BLD + self.feed_forward(self.norm2(x_BLD))
