"""A prefix read once: its state, to be continued by any number of texts, and one vector for each of its spans."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nautile.model.model import NautileModel
from nautile.model.state import NautileState


class Prefix(NamedTuple):
    """The state after a prefix of `tokens` tokens (a batch of one), and the mean hidden state (N,D) of each span."""

    state: NautileState
    spans_ND: Tensor
    tokens: int


def read_prefix(model: NautileModel, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> Prefix:
    """Read `ids` in one pass; `spans` are (start, end) token positions, none empty. Gradients flow where enabled."""
    state = NautileState(model.config)
    hidden_LD = model(torch.tensor([list(ids)], device=model.device), past_key_values=state).last_hidden_state[0]
    spans_ND = torch.stack([hidden_LD[start:end].float().mean(0) for start, end in spans])
    return Prefix(state, spans_ND, len(ids))
