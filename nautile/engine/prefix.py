"""A prefix read once: its state, to be continued by any number of texts, and one vector for each of its spans."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nautile.model.backbone import Backbone
from nautile.model.state import NautileState


@dataclass(frozen=True, eq=False)
class Prefix:
    """What a prefix of `tokens` tokens left behind, and the mean hidden state (N,D) of each span."""

    _state: NautileState
    spans_ND: Tensor
    tokens: int

    @property
    def state(self) -> NautileState:
        """The state after the prefix, a batch of one: each time a snapshot, so that nothing can advance the prefix."""
        return self._state.snapshot()


def read_prefix(model: Backbone, ids: Sequence[int], spans: Sequence[tuple[int, int]] = ()) -> Prefix:
    """Read `ids` in one pass; `spans` are (start, end) token positions, none empty. Gradients flow where enabled."""
    state = NautileState(model.config)
    ids_1L = torch.tensor([list(ids)], device=model.device)
    hidden_LD = model(ids_1L, cache=state).last_hidden_state[0].float()
    means = [hidden_LD[start:end].mean(0, keepdim=True) for start, end in spans]
    return Prefix(state, torch.cat([hidden_LD[:0], *means]), len(ids))


def continued(prefixes: Sequence[Prefix]) -> NautileState:
    """The state of a batch whose rows continue from `prefixes`, one a row, repeats and different lengths allowed."""
    place = {prefix: n for n, prefix in enumerate(dict.fromkeys(prefixes))}
    if len(place) == 1:
        return prefixes[0].state.branch(len(prefixes))
    joined = NautileState.join([prefix.state for prefix in place])
    return joined.gather(torch.tensor([place[prefix] for prefix in prefixes]))
