"""What a prefix leaves behind: sums and a convolution tail in SCA layers, keys and values in attention layers.

What a state has read is never written again, so a snapshot is a copy of references: it costs nothing, and what
continues from it cannot change it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Cache

from nautile.errors import NautileError
from nautile.model.architecture import Architecture
from nautile.model.layout import Layout
from nautile.model.spectral import Sums


class SCAState:
    """One SCA layer's memory: `sums`, and `tail_BTP`, the last c-1 inputs of the convolution."""

    is_compileable = False
    supports_early_init = False

    def __init__(self) -> None:
        self.sums: Sums | None = None
        self.tail_BTP: Tensor | None = None

    def select(self, change: Callable[[Tensor], Tensor]) -> "SCAState":
        """A state whose batch dimension is changed by `change`."""
        new = SCAState()
        if self.sums is not None and self.tail_BTP is not None:
            new.sums = Sums(*(change(part) for part in self.sums))
            new.tail_BTP = change(self.tail_BTP)
        return new

    def fill(self, parts: Sequence["SCAState"]) -> None:
        """Take over the rows of `parts`, one after the other."""
        self.sums = Sums(*(torch.cat(same) for same in zip(*(p.sums for p in parts if p.sums), strict=True)))
        self.tail_BTP = torch.cat([part.tail_BTP for part in parts if part.tail_BTP is not None])


class AttentionState:
    """One attention layer's memory: keys, rotated and normalised, and values, (B,G,S,E).

    From the second single token in a row on, both are views of `room`, larger tensors that no other state writes to.
    """

    is_compileable = False
    supports_early_init = False

    def __init__(self) -> None:
        self.k_BGSE: Tensor | None = None
        self.v_BGSE: Tensor | None = None
        self.room: tuple[Tensor, Tensor] | None = None
        self.stepped = False

    def extend(self, k_BGLE: Tensor, v_BGLE: Tensor) -> tuple[Tensor, Tensor]:
        """Append the current tokens; returns all keys and values."""
        if self.k_BGSE is not None and self.v_BGSE is not None:
            past, new = (self.k_BGSE, self.v_BGSE), (k_BGLE, v_BGLE)
            steps = k_BGLE.shape[2] == 1 and k_BGLE.dtype == past[0].dtype and not torch.is_grad_enabled()
            if steps and self.stepped:
                k_BGLE, v_BGLE = self._append(past, new)
            else:
                self.room = None
                k_BGLE, v_BGLE = (torch.cat(parts, dim=2) for parts in zip(past, new, strict=True))
            self.stepped = steps
        self.k_BGSE, self.v_BGSE = k_BGLE, v_BGLE
        return k_BGLE, v_BGLE

    def _append(self, past: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Write one token into the room, a larger one where it is full: a step copies no past but now and then."""
        S = past[0].shape[2]
        if (room := self.room) is None or room[0].shape[2] == S or _is_closed(room[0]):
            room = self.room = _with_space(past[0]), _with_space(past[1])
        for place, part in zip(room, new, strict=True):
            place[:, :, S] = part[:, :, 0]
        return room[0][:, :, : S + 1], room[1][:, :, : S + 1]

    def select(self, change: Callable[[Tensor], Tensor]) -> "AttentionState":
        """A state whose batch dimension is changed by `change`; it has no room yet."""
        new = AttentionState()
        if self.k_BGSE is not None and self.v_BGSE is not None:
            new.k_BGSE, new.v_BGSE = change(self.k_BGSE), change(self.v_BGSE)
        return new

    def fill(self, parts: Sequence["AttentionState"]) -> None:
        """Take over the rows of `parts`, one after the other; the shorter ones are filled up with zeros."""
        self.k_BGSE = _stacked([part.k_BGSE for part in parts if part.k_BGSE is not None])
        self.v_BGSE = _stacked([part.v_BGSE for part in parts if part.v_BGSE is not None])
        self.room, self.stepped = None, False


def _with_space(past_BGSE: Tensor) -> Tensor:
    """A copy with space for half as many tokens again."""
    B, G, S, E = past_BGSE.shape
    room = past_BGSE.new_empty(B, G, S + S // 2 + 64, E)
    room[:, :, :S] = past_BGSE
    return room


def _stacked(parts_BGSE: Sequence[Tensor]) -> Tensor:
    longest = max(part.shape[2] for part in parts_BGSE)
    return torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[2])) for part in parts_BGSE])


def _is_closed(room: Tensor) -> bool:
    """Made in inference mode, such a tensor must not be written outside of it."""
    return room.is_inference() and not torch.is_inference_mode_enabled()


class NautileState(Cache):
    """The state of all layers after a prefix; pass it as `cache`.

    `lengths_B` counts the real tokens that each row has read; `real_BS` marks which columns of the attention layers'
    keys are real, None while all are. `last_B` is the last id that each row has read, where a model needs it.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.layers: list[SCAState | AttentionState] = [
            SCAState() if kind == "sca" else AttentionState() for kind in architecture.layer_kinds
        ]
        self.offloading = False
        self.layer_class_to_replicate = None
        self.lengths_B: Tensor | None = None
        self.real_BS: Tensor | None = None
        self.last_B: Tensor | None = None
        self.columns = 0

    def advance(self, batch: int, length: int, layout: Layout, device: torch.device) -> None:
        """Note that every layer has read `length` columns, laid out as `layout` says."""
        new_B = torch.full((batch,), length, device=device) if layout.lengths_B is None else layout.lengths_B
        past_B = torch.zeros_like(new_B) if self.lengths_B is None else self.lengths_B
        if self.real_BS is not None or layout.lengths_B is not None:
            new = torch.arange(length, device=device) < new_B[:, None]
            self.real_BS = torch.cat([self._real(batch, device), new], dim=1)
        self.lengths_B = past_B + new_B
        self.columns += length

    def visible(self, length: int, layout: Layout) -> Tensor | None:
        """Which keys the next `length` tokens see, (B,1,L,S), where that is not for attention to find out."""
        return None

    def _real(self, batch: int, device: torch.device) -> Tensor:
        """`real_BS`, also where it is None."""
        real = self.real_BS
        return torch.ones(batch, self.columns, dtype=torch.bool, device=device) if real is None else real

    def select(self, change: Callable[[Tensor], Tensor]) -> Self:
        """A new state with the batch dimension of every tensor changed by `change`; this one stays as it is."""
        new = self.snapshot()
        new.layers = [layer.select(change) for layer in self.layers]
        new.lengths_B = None if self.lengths_B is None else change(self.lengths_B)
        new.real_BS = None if self.real_BS is None else change(self.real_BS)
        new.last_B = None if self.last_B is None else change(self.last_B)
        return new

    def snapshot(self) -> Self:
        """A copy that later forward passes on this state do not change. Free: it shares the tensors."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.layers = [layer.select(lambda tensor: tensor) for layer in self.layers]
        return new

    def branch(self, rows: int) -> Self:
        """A prefix read once (B = 1), to be continued by `rows` sequences. The tensors are views, not copies."""
        if self.batch_size not in (-1, 1):
            raise NautileError(f"branch() continues one prefix, this state holds {self.batch_size}: use gather()")
        return self.select(lambda tensor: tensor.expand(rows, *tensor.shape[1:]))

    def gather(self, rows: Tensor) -> Self:
        """The state of the given rows (indices, repeats allowed), in this order."""
        return self.select(lambda tensor: tensor.index_select(0, rows.to(tensor.device)))

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """The rows of several states of one model, one after the other; they may have read different numbers of tokens.

        Attention's keys and values are filled up to the longest, with columns that no token sees.
        """
        lengths = [state.lengths_B for state in states if state.lengths_B is not None]
        if not lengths or len(lengths) < len(states):
            raise NautileError("join() needs at least one state, and each of them must have read something")
        states = [state.snapshot() for state in states]
        new = states[0].snapshot()
        for index, layer in enumerate(new.layers):
            layer.fill([state.layers[index] for state in states])  # type: ignore[misc]
        new.lengths_B, new.columns = torch.cat(lengths), max(state.columns for state in states)
        last = [state.last_B for state in states if state.last_B is not None]
        new.last_B = torch.cat(last) if last else None
        if any(state.real_BS is not None or state.columns < new.columns for state in states):
            reals = [state._real(state.batch_size, new.lengths_B.device) for state in states]
            new.real_BS = torch.cat([F.pad(real, (0, new.columns - real.shape[1])) for real in reals])
        return new

    @property
    def batch_size(self) -> int:
        """B, or -1 before anything was read."""
        return -1 if self.lengths_B is None else int(self.lengths_B.shape[0])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search: rows become those of `beam_idx`."""
        self.__dict__.update(self.gather(beam_idx).__dict__)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the given rows."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row `repeats` times."""
        self.__dict__.update(self.select(lambda tensor: tensor.repeat_interleave(repeats, dim=0)).__dict__)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns read so far, padding included."""
        return self.columns

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """No limit."""
        return -1

    def reset(self) -> None:
        """Forget the prefix."""
        for layer in self.layers:
            layer.__init__()  # type: ignore[misc]
        self.lengths_B, self.real_BS, self.last_B, self.columns = None, None, None, 0

    @property
    def is_croppable(self) -> bool:
        """Never: sums cannot be taken back."""
        return False

    def crop(self, *args: Any, **kwargs: Any) -> None:
        """Refused: a recurrent memory cannot be cut back to an earlier token."""
        raise NautileError(
            "Nautile's state cannot be cropped, so assisted decoding is not possible: "
            "take a snapshot() before the tokens that you may want to take back"
        )
