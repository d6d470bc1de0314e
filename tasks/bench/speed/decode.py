"""Decoding: one token after another, after short and long contexts, alone and in a batch."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from nautile.model import graphs
from nautile.model.blocks import SCABlock
from nautile.model.fixed import FixedState
from nautile.model.layout import lay_out
from nautile.model.state import NautileState
from nautile.tasks.bench.speed.fast_paths import fast
from nautile.tasks.bench.speed.memory import state_bytes
from nautile.tasks.bench.speed.models import NAUTILE, SMOLLM2, body_bytes, language_model, token_flops
from nautile.tasks.bench.speed.session import Case, Session, Work

CONTEXTS, TINY_CONTEXTS = (128, 8192), (8, 32)  # tokens
BATCH, TINY_BATCH = (32, 2048), (2, 16)  # rows, tokens of context
STEPS = 16  # tokens that one call reads in each row
ROOM = 16 * STEPS  # for the calls of usual runs, in fixed places; it is doubled after that
SCA_PART = f"{NAUTILE}'s SCA layers"
GRAPH = f"{NAUTILE} by CUDA graphs"
PAIRS = ((NAUTILE, SMOLLM2), (GRAPH, SMOLLM2), (GRAPH, NAUTILE))


def decode(session: Session) -> None:
    """Time a token after a long context over that after a short one; tokens a second of a batch, and its state."""
    tiny, device = session.settings.tiny, session.device
    for dtype in session.settings.dtypes:
        models = {name: language_model(name, dtype, tiny, device) for name in (NAUTILE, SMOLLM2)}
        with fast(device):
            _contexts(session, dtype, models)
            _batch(session, dtype, models)


def _contexts(session: Session, dtype: str, models: Mapping[str, PreTrainedModel]) -> None:
    short, long = TINY_CONTEXTS if session.settings.tiny else CONTEXTS
    works = {}
    for context in (short, long):
        for name, model in models.items():
            state = context_of(model, 1, context)
            works[_at(name, context)] = step_work(model, state, 1)
            if isinstance(state, NautileState):
                works[_at(SCA_PART, context)] = sca_work(model, state)
                works |= graph_works(model, state, 1, _at(GRAPH, context))
    case = Case("decode", f"{long:,} and {short:,} tokens of context", dtype, "token", cost=True)
    names = [name for name in (NAUTILE, SCA_PART, GRAPH, SMOLLM2) if _at(name, long) in works]
    session.compare(case, works, [(_at(name, long), _at(name, short)) for name in names])


def _batch(session: Session, dtype: str, models: Mapping[str, PreTrainedModel]) -> None:
    rows, context = TINY_BATCH if session.settings.tiny else BATCH
    states = {name: context_of(model, rows, context) for name, model in models.items()}
    works = {name: step_work(model, states[name], rows) for name, model in models.items()}
    works |= graph_works(models[NAUTILE], states[NAUTILE], rows, GRAPH)
    case = Case("decode", f"{rows} rows at {context:,} tokens", dtype, "token")
    sizes = {name: state_bytes(state.layers) / 1e6 for name, state in states.items()}
    session.compare(case, works, [pair for pair in PAIRS if works.keys() >= set(pair)])
    session.compare_sizes(case, "MB of state", sizes, [(NAUTILE, SMOLLM2)])


@torch.inference_mode()
def context_of(model: PreTrainedModel, rows: int, context: int) -> Cache:
    """The state of `rows` rows after `context` random tokens, the same in all of them, in memory of its own each."""
    state = model(torch.randint(model.config.vocab_size, (1, context), device=model.device), use_cache=True).cache
    if rows > 1:
        state.batch_repeat_interleave(rows)
    return state


def step_work(model: PreTrainedModel, state: Cache, rows: int) -> Work:
    """STEPS tokens in each row, always after the same context; a step reads all weights and the whole state."""
    read = STEPS * (body_bytes(model) + state_bytes(state.layers))
    return Work(stepper(model, state, rows), STEPS * rows, STEPS * rows * token_flops(model), read)


def stepper(model: PreTrainedModel, state: Cache, rows: int) -> Callable[[], object]:
    """What reads STEPS tokens in each row; `state` is afterwards what it was before."""
    ids_B1 = torch.ones(rows, 1, dtype=torch.long, device=model.device)

    @torch.inference_mode()
    def steps() -> None:
        running = state.snapshot() if isinstance(state, NautileState) else state
        for _ in range(STEPS):
            model(ids_B1, cache=running)
        if running is state:
            state.crop(-STEPS)

    return steps


def graph_works(model: PreTrainedModel, state: Cache, rows: int, name: str) -> dict[str, Work]:
    """The same by CUDA graphs, on a GPU; each call's steps go on from those of the one before."""
    assert isinstance(state, NautileState)
    ids_B1 = torch.ones(rows, 1, dtype=torch.long, device=model.device)
    if not graphs.recordable(ids_B1):
        return {}
    fixed = FixedState(state, state.columns + ROOM)
    bare = SimpleNamespace(model=model, lm_head=nn.Identity())

    def steps() -> None:
        for _ in range(STEPS):
            graphs.step(bare, ids_B1, None, fixed)

    return {name: step_work(model, state, rows)._replace(run=steps)}


def sca_work(model: PreTrainedModel, state: NautileState) -> Work:
    """The same for the SCA layers alone, of a single row."""
    blocks = [block for block in model.blocks if isinstance(block, SCABlock)]
    layers = [state.layers[block.index] for block in blocks]
    x_11D = model.embed_tokens(torch.ones(1, 1, dtype=torch.long, device=model.device)).detach()
    parameters = sum(part.numel() for block in blocks for part in block.parameters())
    held = parameters * model.dtype.itemsize + state_bytes(layers)
    return Work(lambda: _sca_steps(blocks, state.snapshot(), x_11D), STEPS, STEPS * 2 * parameters, STEPS * held)


@torch.inference_mode()
def _sca_steps(blocks: list[SCABlock], state: NautileState, x_11D: Tensor) -> None:
    for _ in range(STEPS):
        layout = lay_out(1, 1, x_11D.device, past_B=state.lengths_B)
        through_11D = x_11D
        for block in blocks:
            through_11D = block(through_11D, layout, None, state)


def _at(name: str, context: int) -> str:
    return f"{name} at {context:,}"
