"""Decoding on a GPU by CUDA graphs: the step of one token a row is recorded once and replayed, without Python.

A step of few rows is hundreds of small kernels, and it takes longer to ask for them than to run them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.fixed import FixedState, Recording
from nautile.model.state import NautileState

WARM_UPS = 2  # steps before recording: what is compiled or set up at first use cannot be recorded
ROOM = 256  # tokens that there is room for beyond the prompt, twice as many in all where they are used up

_wanted = False


def use_graphs(enabled: bool = True) -> None:
    """Let `generate()` decode by CUDA graphs in this process from now on, or no longer; a CPU has none.

    Results change by rounding only: attention reads room that is not filled yet, behind a mask.
    """
    global _wanted
    _wanted = enabled


def in_fixed_places(state: NautileState, mask: Tensor | None) -> NautileState:
    """The state, where wanted one that steps can be recorded on: it has read something, and only real tokens follow."""
    if not _wanted or state.lengths_B is None or isinstance(state, FixedState) or not recordable(state.lengths_B):
        return state
    return FixedState(state, state.columns + ROOM) if _all_real(mask) else state


def recordable(tensor: Tensor) -> bool:
    """Whether it is where graphs are."""
    return tensor.is_cuda


@torch.no_grad()
def step(model: Any, ids_B1: Tensor, mask: Tensor | None, state: FixedState) -> Tensor:
    """Logits (B,1,V) after one more token in each row; on a GPU the first call records, others replay."""
    if ids_B1.shape != (state.batch_size, 1) or not _all_real(mask):
        raise NautileError(
            f"a state with fixed places reads one real token in each of its {state.batch_size} rows: "
            "take a snapshot() to go on otherwise"
        )
    if state.columns == state.room:
        state.widen()
    if not recordable(ids_B1):
        return _read(model, ids_B1, state)
    with torch.cuda.device_of(ids_B1):
        if state.recording is None or state.recording.model is not model:
            state.recording = _record(model, ids_B1, state)
        state.recording.ids_B1.copy_(ids_B1)
        state.recording.replay()
        state.columns += 1
        return state.recording.logits_B1V.clone()


def _all_real(mask: Tensor | None) -> bool:
    return mask is None or bool(mask[:, -1].all())


def _read(model: Any, ids_B1: Tensor, state: FixedState) -> Tensor:
    found: Tensor = model.lm_head(model.model(ids_B1, cache=state).last_hidden_state)
    return found


def _record(model: Any, ids_B1: Tensor, state: FixedState) -> Recording:
    """Record a step; the state is afterwards what it was."""
    columns, before = state.columns, [part.clone() for part in state.parts()]

    def restore() -> None:
        state.columns = columns
        for part, old in zip(state.parts(), before, strict=True):
            part.copy_(old)

    with torch.inference_mode(False):
        ids_B1 = ids_B1.clone()
    replay, logits_B1V = capture(partial(_read, model, ids_B1, state), restore)
    state.columns = columns
    return Recording(model, ids_B1, logits_B1V, replay)


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
        with torch.cuda.graph(graph):  # asks for the kernels, runs none
            result = read()
    return graph.replay, result
