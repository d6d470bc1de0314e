"""A state whose tensors keep their places: each token is written into them, so that a GPU can replay the step."""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.layout import Layout
from nautile.model.spectral import Sums
from nautile.model.state import AttentionState, NautileState, SCAState

MARGIN = 64  # tokens that there is room for at least
FIXED = ("_last_B", "column_1", "recording")  # what an ordinary state has not


class FixedSCAState(SCAState):
    """Sums and tail that are written over."""

    def __init__(self, sums: Sums, tail_BTP: Tensor) -> None:
        self._sums, self._tail_BTP = sums, tail_BTP

    @property
    def sums(self) -> Sums:
        """The sums, always in the same tensors."""
        return self._sums

    @sums.setter
    def sums(self, new: Sums) -> None:
        for place, part in zip(self._sums, new, strict=True):
            place.copy_(part)

    @property
    def tail_BTP(self) -> Tensor:
        """The tail, always in the same tensor."""
        return self._tail_BTP

    @tail_BTP.setter
    def tail_BTP(self, new_BTP: Tensor) -> None:
        self._tail_BTP.copy_(new_BTP)


class FixedAttentionState(AttentionState):
    """Keys and values with room for more; `column_1` says where the next token's stand."""

    def __init__(self, past: AttentionState, room: int, column_1: Tensor) -> None:
        super().__init__()
        self.k_BGSE, self.v_BGSE = (_with_room(part, room) for part in (past.k_BGSE, past.v_BGSE))
        self.column_1 = column_1

    def extend(self, k_BG1E: Tensor, v_BG1E: Tensor) -> tuple[Tensor, Tensor]:
        """Write one token; returns all the room, of which a mask shows what was read."""
        assert self.k_BGSE is not None
        assert self.v_BGSE is not None
        for place, part in ((self.k_BGSE, k_BG1E), (self.v_BGSE, v_BG1E)):
            place.index_copy_(2, self.column_1, part.to(place.dtype))
        return self.k_BGSE.to(k_BG1E.dtype), self.v_BGSE.to(v_BG1E.dtype)


class Recording(NamedTuple):
    """One step: `replay` reads `ids_B1` and writes `logits_B1V`, as long as `conditions` are what they were."""

    conditions: tuple[Any, ...]
    ids_B1: Tensor
    logits_B1V: Tensor
    replay: Callable[[], None]


class FixedState(NautileState):
    """What `state` has read, copied, with room for `room` tokens in all; it reads one token a row at a time.

    It is written in place, under `torch.no_grad()`. Snapshots, branches and gathered rows are ordinary states, copies
    that later steps do not change. A recording can be neither copied nor pickled: take a snapshot for that, too.
    """

    def __init__(self, state: NautileState, room: int) -> None:
        if state.lengths_B is None:
            raise NautileError("a state with fixed places continues one that has read something")
        self._settle(state, max(room, state.columns + MARGIN))

    @torch.inference_mode(False)
    @torch.no_grad()
    def _settle(self, state: NautileState, room: int) -> None:
        assert state.lengths_B is not None
        device, columns = state.lengths_B.device, state.columns
        self.__dict__.update({name: kept for name, kept in state.__dict__.items() if name != "last_B"})
        self.lengths_B = state.lengths_B.clone()
        self._last_B = None if state.last_B is None else state.last_B.clone()
        self.column_1 = torch.tensor([columns], device=device)
        self.real_BS = F.pad(state._real(state.batch_size, device), (0, room - columns))
        self.layers = [_fixed(layer, room, self.column_1) for layer in state.layers]
        self.recording: Recording | None = None

    @property
    def room(self) -> int:
        """Tokens that there are places for, those read included."""
        assert self.real_BS is not None
        return self.real_BS.shape[1]

    @property
    def last_B(self) -> Tensor | None:
        """The last id of each row, always in the same tensor."""
        return self._last_B

    @last_B.setter
    def last_B(self, new_B: Tensor | None) -> None:
        assert self._last_B is not None
        assert new_B is not None
        self._last_B.copy_(new_B)

    def visible(self, length: int, layout: Layout) -> Tensor:
        """(B,1,1,S): what was read, and the token that is being read.

        Raises:
            NautileError: another number of tokens, one that is not real, or gradients.
        """
        if length != 1 or layout.lengths_B is not None or torch.is_grad_enabled():
            raise NautileError(
                "a state with fixed places reads one real token in each row at a time, without gradients: "
                "take a snapshot() to go on otherwise"
            )
        if self.columns == self.room:
            self.widen()
        assert self.real_BS is not None
        places_S = torch.arange(self.room, device=self.real_BS.device)
        return (self.real_BS | (places_S == self.column_1))[:, None, None]

    def advance(self, batch: int, length: int, layout: Layout, device: torch.device) -> None:
        """Note that every layer has read one token in each row."""
        assert self.real_BS is not None
        assert self.lengths_B is not None
        self.real_BS.index_fill_(1, self.column_1, value=True)
        self.lengths_B.add_(1)
        self.column_1.add_(1)
        self.columns += 1

    def widen(self) -> None:
        """Room for twice as many tokens, in other places."""
        self._settle(self._as_ordinary(), 2 * self.room)

    def parts(self) -> list[Tensor]:
        """Every tensor, in its place."""
        parts: list[Tensor | None] = [self.lengths_B, self.real_BS, self.column_1, self.last_B]
        for layer in self.layers:
            if isinstance(layer, FixedSCAState):
                parts += [*layer.sums, layer.tail_BTP]
            elif isinstance(layer, AttentionState):
                parts += [layer.k_BGSE, layer.v_BGSE]
        return [part for part in parts if part is not None]

    def snapshot(self) -> Self:
        """An ordinary state of what was read so far: a copy."""
        return cast("Self", self._as_ordinary().select(torch.clone))

    def _as_ordinary(self) -> NautileState:
        """The same, sharing the tensors."""
        new = NautileState.__new__(NautileState)
        new.__dict__.update({name: kept for name, kept in self.__dict__.items() if name not in FIXED})
        new.layers = [_ordinary(layer, self.columns) for layer in self.layers]
        assert self.real_BS is not None
        real_BS = self.real_BS[:, : self.columns]
        new.real_BS = None if bool(real_BS.all()) else real_BS
        new.last_B = self.last_B
        return new

    def select(self, change: Callable[[Tensor], Tensor]) -> Self:
        """An ordinary state with the batch dimension of every tensor changed by `change`."""
        return self.snapshot().select(change)

    @torch.no_grad()
    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search: rows become those of `beam_idx`, as many as before, in the same places."""
        if len(beam_idx) != self.batch_size:
            raise NautileError(f"fixed places of {self.batch_size} rows cannot hold {len(beam_idx)}: use gather()")
        for part in self.parts():
            if part is not self.column_1:
                part.copy_(part.index_select(0, beam_idx.to(part.device)))

    def batch_repeat_interleave(self, repeats: int) -> NoReturn:
        """Refused: places are for the rows that there are."""
        raise NautileError("a state with fixed places keeps its rows: take a snapshot() first")

    def reset(self) -> NoReturn:
        """Refused, as above."""
        raise NautileError("a state with fixed places cannot forget: begin a new one")


def _fixed(layer: SCAState | AttentionState, room: int, column_1: Tensor) -> SCAState | AttentionState:
    if isinstance(layer, AttentionState):
        return FixedAttentionState(layer, room, column_1)
    assert layer.sums is not None
    assert layer.tail_BTP is not None
    return FixedSCAState(Sums(*(part.clone() for part in layer.sums)), layer.tail_BTP.clone())


def _ordinary(layer: SCAState | AttentionState, columns: int) -> SCAState | AttentionState:
    """The layer's state, of as many columns; it shares the tensors."""
    new = layer.select(lambda part: part)
    if isinstance(new, AttentionState) and new.k_BGSE is not None and new.v_BGSE is not None:
        new.k_BGSE, new.v_BGSE = new.k_BGSE[:, :, :columns], new.v_BGSE[:, :, :columns]
    return new


def _with_room(past_BGSE: Tensor | None, room: int) -> Tensor:
    assert past_BGSE is not None
    return F.pad(past_BGSE, (0, 0, 0, room - past_BGSE.shape[2]))
