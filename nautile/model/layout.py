"""One layout inside the model: real tokens first, padding last, whatever the caller's masks look like.

A causal model never looks to the right, so padding on the right needs no mask at all; left padding, holes and ragged
continuations are turned into it by one gather before the first layer and one after the last.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from nautile.errors import NautileError


class Layout(NamedTuple):
    """Where the tokens of one forward pass stand. B is 1 in `positions_BL` where all rows are alike."""

    positions_BL: Tensor  # position of each token from its own sequence's start
    lengths_B: Tensor | None = None  # real tokens a row; None: all L
    document_BL: Tensor | None = None  # number of the packed document; None: one a row
    order_BL: Tensor | None = None  # the gather that moved real tokens to the front; None: they stood there

    def compact(self, x: Tensor) -> Tensor:
        """Move real tokens to the front of their rows: ids (B,L) or vectors (B,L,D)."""
        return x if self.order_BL is None else _gather(x, self.order_BL)

    def restore(self, x_BLD: Tensor) -> Tensor:
        """Undo `compact`."""
        return x_BLD if self.order_BL is None else _gather(x_BLD, self.order_BL.argsort(dim=1))

    def part(self, rows: slice, tokens: slice) -> "Layout":
        """The layout of some rows and tokens, which are continued from what stood before them; without documents."""
        positions = self.positions_BL if len(self.positions_BL) == 1 else self.positions_BL[rows]
        positions = positions[:, tokens]
        left = None if self.lengths_B is None else (self.lengths_B[rows] - tokens.start).clamp(0, positions.shape[1])
        return Layout(positions, left)


def lay_out(
    batch: int,
    length: int,
    device: torch.device,
    attention_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    past_B: Tensor | None = None,
) -> Layout:
    """Derive positions, lengths and packing of the current tokens.

    Args:
        batch: B.
        length: L, tokens in this forward pass, without those in the state.
        device: where the tensors are made.
        attention_mask: (B, past + L) or (B, L), 1 for real tokens; only its last L columns count here.
        segment_ids: (B, L), 1, 2, 3 … for the documents packed into a row, in this order, 0 for padding.
        past_B: how many real tokens each row's state has read.

    Raises:
        NautileError: masks of a wrong shape, or segment ids out of order or together with a mask or a state.
    """
    real_BL = _real_tokens(batch, length, attention_mask, segment_ids, past_B)
    step_L = torch.arange(length, device=device)
    past_B1 = step_L.new_zeros(1, 1) if past_B is None else past_B[:, None]
    if real_BL is None or bool(real_BL.all()):
        lengths_B, order_BL = None, None
    else:
        lengths_B = real_BL.sum(1)
        compacted = bool((real_BL == (step_L < lengths_B[:, None])).all())
        order_BL = None if compacted else torch.argsort(~real_BL, dim=1, stable=True)
    if segment_ids is None:
        return Layout(past_B1 + step_L, lengths_B, None, order_BL)
    document_BL = segment_ids if order_BL is None else segment_ids.gather(1, order_BL)
    if bool(((document_BL[:, 1:] < document_BL[:, :-1]) & (document_BL[:, 1:] > 0)).any()):
        raise NautileError("segment_ids must not decrease along a row: number its documents 1, 2, 3, …")
    document_BL = document_BL.cummax(1).values
    first_BL = torch.ones_like(document_BL, dtype=torch.bool)
    first_BL[:, 1:] = document_BL[:, 1:] != document_BL[:, :-1]
    start_BL = torch.where(first_BL, step_L, 0).cummax(1).values
    return Layout(step_L - start_BL, lengths_B, document_BL, order_BL)


def _real_tokens(
    batch: int, length: int, attention_mask: Tensor | None, segment_ids: Tensor | None, past_B: Tensor | None
) -> Tensor | None:
    if segment_ids is not None:
        if past_B is not None or attention_mask is not None:
            raise NautileError("segment_ids go without attention_mask and without cache")
        if segment_ids.shape != (batch, length):
            raise NautileError(f"segment_ids must have shape {(batch, length)}, not {tuple(segment_ids.shape)}")
        return segment_ids > 0
    if attention_mask is None:
        return None
    if attention_mask.ndim != 2 or attention_mask.shape[0] != batch or attention_mask.shape[1] < length:
        shape = tuple(attention_mask.shape)
        raise NautileError(f"attention_mask must have shape ({batch}, {length} or more), not {shape}")
    return attention_mask[:, -length:] != 0


def _gather(x: Tensor, order_BL: Tensor) -> Tensor:
    return x.gather(1, order_BL if x.ndim == 2 else order_BL[..., None].expand_as(x))
