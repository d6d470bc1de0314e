"""Decoding on a GPU by CUDA graphs: the step of one token a row is recorded once and replayed, without Python.

A step of few rows is hundreds of small kernels, and it takes longer to ask for them than to run them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nautile.errors import NautileError
from nautile.model import sca
from nautile.model.fixed import FixedState, Recording
from nautile.model.state import NautileState

WARM_UPS = 2  # steps before recording: what is compiled or set up at first use cannot be recorded
ROOM = 256  # tokens that there is room for beyond the prompt, twice as many in all where they are used up

_wanted = False


def use_graphs(enabled: bool = True) -> None:
    """Let `generate()` decode by CUDA graphs in this process from now on, or no longer; a CPU has none.

    Numbers change by rounding only: attention reads room that is not filled yet, behind a mask. Each call of
    `generate()` records a step of its own, which pays where it makes many tokens. A state that it is given stays as it
    was; the one that it returns goes on. The model must lie on one GPU, and keep its weights where they are meanwhile.
    """
    global _wanted
    _wanted = enabled


def in_fixed_places(state: NautileState, ids_BL: Tensor, mask: Tensor | None) -> NautileState:
    """The state to read the ids with: where wanted one that steps can be recorded on, if one real token a row follows.

    Before anything else an ordinary one, a copy.
    """
    one_each = ids_BL.shape[1] == 1 and _all_real(mask)
    if isinstance(state, FixedState):
        return state if one_each else state.snapshot()
    if not _wanted or not one_each or state.lengths_B is None or not recordable(state.lengths_B):
        return state
    return FixedState(state, state.columns + ROOM)


def recordable(tensor: Tensor) -> bool:
    """Whether it is where graphs are."""
    return tensor.is_cuda


@torch.no_grad()
def step(model: Any, ids_B1: Tensor, mask: Tensor | None, state: FixedState) -> Tensor:
    """Logits (B,1,V) after one more token in each row; on a GPU the first call records, others replay."""
    rows = state.batch_size
    if ids_B1.shape != (rows, 1) or (mask is not None and len(mask) != rows) or not _all_real(mask):
        raise NautileError(
            f"a state with fixed places reads one real token in each of its {rows} rows: "
            "take a snapshot() to go on otherwise"
        )
    if state.columns == state.room:
        state.widen()
    if not recordable(ids_B1):
        return _read(model, ids_B1, state)
    with torch.cuda.device_of(ids_B1):
        if state.recording is None or state.recording.conditions != _conditions(model):
            state.recording = _record(model, ids_B1, state)
        state.recording.ids_B1.copy_(ids_B1)
        state.recording.replay()
        state.columns += 1
        return state.recording.logits_B1V.clone()


def _all_real(mask: Tensor | None) -> bool:
    return mask is None or bool(mask[:, -1].all())


def _conditions(model: Any) -> tuple[Any, ...]:
    """What a recording holds for; other changes of weights' places are not seen."""
    weight = getattr(model.lm_head, "weight", None)
    place = None if weight is None else weight.data_ptr()
    return model, place, torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"), sca.sca_step


def _read(model: Any, ids_B1: Tensor, state: FixedState) -> Tensor:
    found: Tensor = model.lm_head(model.model(ids_B1, cache=state).last_hidden_state)
    return found


def _record(model: Any, ids_B1: Tensor, state: FixedState) -> Recording:
    """Record a step; the state is afterwards what it was, also where that fails."""
    columns, before = state.columns, [part.clone() for part in state.parts()]

    def restore() -> None:
        state.columns = columns
        for part, old in zip(state.parts(), before, strict=True):
            part.copy_(old)

    with torch.inference_mode(False):
        ids_B1 = ids_B1.clone()
    try:
        replay, logits_B1V = capture(partial(_read, model, ids_B1, state), restore)
    finally:
        restore()
    return Recording(_conditions(model), ids_B1, logits_B1V, replay)


def capture(read: Callable[[], Tensor], restore: Callable[[], None]) -> tuple[Callable[[], None], Tensor]:
    """What does again what `read` does on the GPU, and the tensor that its result stands in; `restore` undoes it."""
    aside, current = torch.cuda.Stream(), torch.cuda.current_stream()
    aside.wait_stream(current)
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False):  # a cached weight may go before the graph
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                read()
                restore()
        current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=aside):  # asks for the kernels, runs none
                result = read()
        finally:
            torch.cuda.set_stream(current)
    return graph.replay, result
