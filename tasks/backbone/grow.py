"""A backbone that grows: wider feed-forward layers, more layers of the pooler, which at first change nothing."""

import torch
from torch import nn

from nautile.model.attention import FeedForward
from nautile.model.config import NautileConfig
from nautile.model.model import NautileModel

GROWS = ("d_ff", "pooler_layers")


@torch.no_grad()
def grow(model: NautileModel, wanted: NautileConfig) -> NautileModel:
    """The model with as much as `wanted` has of GROWS, or itself where it has that.

    What is new reads its input by random weights and adds nothing yet, but its gradient is not zero. Net2Net, Chen et
    al. 2016, has the idea of growth that keeps the function.
    """
    sizes = {name: max(getattr(model.config, name), getattr(wanted, name)) for name in GROWS}
    if all(getattr(model.config, name) == size for name, size in sizes.items()):
        return model
    grown = NautileModel(NautileConfig(**{**model.config.to_dict(), **sizes})).to(model.dtype)
    known, mine = model.state_dict(), grown.state_dict()
    grown.load_state_dict({**mine, **{name: t for name, t in known.items() if t.shape == mine[name].shape}})
    theirs = dict(model.named_modules())
    for name, module in grown.named_modules():
        if isinstance(module, FeedForward):
            _fill(module, theirs.get(name))
    return grown


def _fill(new: FeedForward, old: nn.Module | None) -> None:
    new.ff_out.weight.zero_()
    if not isinstance(old, FeedForward):
        return
    inner = old.ff_out.in_features
    for mine, theirs in ((new.ff_in.weight, old.ff_in.weight), (new.ff_in.bias, old.ff_in.bias)):
        for half, known in zip(mine.chunk(2), theirs.chunk(2), strict=True):
            half[:inner] = known
    new.ff_out.weight[:, :inner] = old.ff_out.weight
    new.ff_out.bias.copy_(old.ff_out.bias)
