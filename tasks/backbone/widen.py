"""A backbone that grows: wider feed-forward layers, which at first say what the narrower ones said."""

import torch

from nautile.model.attention import FeedForward
from nautile.model.config import NautileConfig
from nautile.model.model import NautileModel


@torch.no_grad()
def widen(model: NautileModel, width: int) -> NautileModel:
    """The model with feed-forward layers of `width`, or itself where they are not narrower.

    What is new reads its input by random weights and adds nothing yet, but its gradient is not zero. Net2Net, Chen et
    al. 2016, has the idea of growth that keeps the function.
    """
    if model.config.d_ff >= width:
        return model
    wide = NautileModel(NautileConfig(**{**model.config.to_dict(), "d_ff": width})).to(model.dtype)
    known = model.state_dict()
    wide.load_state_dict({**wide.state_dict(), **{name: t for name, t in known.items() if "feed_forward" not in name}})
    for new, old in zip(wide.modules(), model.modules(), strict=True):
        if isinstance(new, FeedForward) and isinstance(old, FeedForward):
            _fill(new, old)
    return wide


def _fill(new: FeedForward, old: FeedForward) -> None:
    F = old.ff_out.in_features
    for mine, theirs in ((new.ff_in.weight, old.ff_in.weight), (new.ff_in.bias, old.ff_in.bias)):
        for half, known in zip(mine.chunk(2), theirs.chunk(2), strict=True):
            half[:F] = known
    new.ff_out.weight.zero_()[:, :F] = old.ff_out.weight
    new.ff_out.bias.copy_(old.ff_out.bias)
