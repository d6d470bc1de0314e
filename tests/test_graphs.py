"""A state whose tensors keep their places, and steps that are recorded on it and replayed as a GPU does it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny
import torch
from test_generate import NEW, generate
from tiny import DECAYS, close, pad, tokens
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from nautile.errors import NautileError
from nautile.model import graphs
from nautile.model.fixed import FixedState
from nautile.model.heads import NautileForCausalLM
from nautile.model.state import NautileState


@pytest.fixture(scope="module", params=[*DECAYS, {"pairs": 300}], ids=["relative", "boundary", "unclipped", "pairs"])
def model(request: pytest.FixtureRequest) -> NautileForCausalLM:
    model = tiny.model(tie_word_embeddings=False, **request.param)
    if (pairs := model.model.embed_pairs) is not None:
        before, after = torch.arange(300) // 60 + 2, torch.arange(300) % 60 + 2
        pairs.keys.copy_(before << 32 | after)
    return model


class Tape(TorchDispatchMode):
    """Every operation with the tensors that it was given: replayed, it runs on these, as a CUDA graph does.

    What Python decided is not decided again, and what it would have to ask a tensor is an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "_local_scalar_dense" not in str(func), "a step must not ask a tensor what it holds"
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, [x for x in tree_flatten(found)[0] if isinstance(x, Tensor)]))
        return found

    def replay(self) -> None:
        for func, args, kwargs, before in self.calls:
            given = {x.untyped_storage()._cdata for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)}
            found = [x for x in tree_flatten(func(*args, **kwargs))[0] if isinstance(x, Tensor)]
            for place, new in zip(before, found, strict=True):
                if place.untyped_storage()._cdata not in given:
                    place.copy_(new)


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tape]]:
    """Graphs are wanted, and are tapes."""
    made: list[Tape] = []

    def capture(read: Callable[[], Tensor], restore: Callable[[], None]) -> tuple[Callable[[], None], Tensor]:
        read()
        restore()
        made.append(Tape())
        with made[-1]:
            result = read()
        restore()
        return made[-1].replay, result

    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "recordable", lambda tensor: True)
    graphs.use_graphs()
    yield made
    graphs.use_graphs(enabled=False)


@torch.no_grad()
def after(model: NautileForCausalLM, ids: Tensor, mask: Tensor | None = None) -> NautileState:
    return model(ids, mask, use_cache=True).cache


def steps(model: NautileForCausalLM, ids_BL: Tensor, state: NautileState) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(ids_B1, cache=state).logits for ids_B1 in ids_BL.split(1, dim=1)], dim=1)


@pytest.mark.parametrize("side", ["left", None])
def test_steps_in_fixed_places_are_those_of_an_ordinary_state(model: NautileForCausalLM, side: str | None) -> None:
    ids, mask = pad([tokens(3), tokens(9)], side) if side else (tokens(2, 9), None)
    state, more = after(model, ids, mask), tokens(2, 6, seed=2)
    fixed = FixedState(state, room=80)
    places = [part.data_ptr() for part in fixed.parts()]
    close(steps(model, more, fixed), steps(model, more, state))
    assert places == [part.data_ptr() for part in fixed.parts()]
    assert fixed.lengths_B.tolist() == state.lengths_B.tolist()
    last = tokens(2, 5, seed=3)
    with torch.no_grad():
        close(model(last, cache=fixed.snapshot()).logits, model(last, cache=state).logits)


def test_replayed_steps_are_those_of_an_ordinary_state(model: NautileForCausalLM, tapes: list[Tape]) -> None:
    state, more = after(model, *pad([tokens(3), tokens(9)], "left")), tokens(2, 12, seed=2)
    fixed = FixedState(state, room=80)
    close(steps(model, more, fixed), steps(model, more, state))
    assert len(tapes) == 1
    assert fixed.columns == state.columns


def test_full_room_is_doubled_and_recorded_anew(model: NautileForCausalLM, tapes: list[Tape]) -> None:
    state, more = after(model, tokens(2, 9)), tokens(2, 70, seed=2)
    fixed = FixedState(state, room=0)
    room = fixed.room
    close(steps(model, more, fixed), steps(model, more, state))
    assert len(tapes) == 2
    assert fixed.room == 2 * room


@pytest.mark.parametrize("options", [{}, {"num_beams": 4}, {"num_return_sequences": 2, "do_sample": True}])
def test_generation_by_graphs_is_generation_without(
    model: NautileForCausalLM, tapes: list[Tape], options: dict[str, Any]
) -> None:
    ids, mask = pad([tokens(3), tokens(6, seed=3)], "left")
    found = []
    for enabled in (True, False):
        graphs.use_graphs(enabled)
        torch.manual_seed(0)
        found.append(generate(model, ids, mask, **options))
    assert torch.equal(*found)
    assert len(tapes) == 1
    assert found[0].shape[1] == NEW


@pytest.mark.parametrize("options", [{"prefill_chunk_size": 1}, {"prefill_chunk_size": 4}, {"use_cache": False}])
def test_graphs_wait_for_the_end_of_a_prompt_in_pieces(
    model: NautileForCausalLM, tapes: list[Tape], options: dict[str, Any]
) -> None:
    ids, mask = pad([tokens(3), tokens(9)], "left")
    if "prefill_chunk_size" in options:
        options = {**options, "cache": NautileState(model.config)}
    found = generate(model, ids, mask, **options)
    assert len(tapes) == ("use_cache" not in options)
    graphs.use_graphs(enabled=False)
    assert torch.equal(found, generate(model, ids, mask))


def test_hidden_states_of_many_steps_are_told(model: NautileForCausalLM, tapes: list[Tape], monkeypatch: Any) -> None:
    monkeypatch.setattr(graphs, "ROOM", 0)
    options = {
        "max_new_tokens": 70,
        "eos_token_id": None,
        "output_hidden_states": True,
        "return_dict_in_generate": True,
    }
    found = []
    for enabled in (True, False):
        graphs.use_graphs(enabled)
        out = model.generate(tokens(2, 5), do_sample=False, **options)
        found.append((out.sequences, torch.cat([step[-1] for step in out.hidden_states], dim=1)))
    assert torch.equal(found[0][0], found[1][0])
    close(found[0][1], found[1][1])


def test_generation_goes_on_from_what_is_returned(model: NautileForCausalLM, tapes: list[Tape]) -> None:
    ids = tokens(2, 5)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "return_dict_in_generate": True}
    out = model.generate(ids, **options)
    assert isinstance(out.cache, FixedState)
    graphs.use_graphs(enabled=False)
    whole = model.generate(ids, **{**options, "max_new_tokens": 8})
    assert torch.equal(model.generate(out.sequences, cache=out.cache, **options).sequences, whole.sequences)


def test_generation_goes_on_with_a_turn_of_several_tokens(model: NautileForCausalLM, tapes: list[Tape]) -> None:
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "return_dict_in_generate": True}
    found = []
    for enabled in (True, False):
        graphs.use_graphs(enabled)
        out = model.generate(tokens(2, 5), **options)
        turn = torch.cat([out.sequences, tokens(2, 3, seed=4)], dim=1)
        found.append(model.generate(turn, cache=out.cache, **options).sequences)
    assert torch.equal(*found)
    assert len(tapes) == 2


def test_a_prompt_in_pieces_may_end_in_padding(model: NautileForCausalLM, tapes: list[Tape]) -> None:
    ids, mask = pad([tokens(3), tokens(9)], "right")
    found = []
    for enabled in (True, False):
        graphs.use_graphs(enabled)
        found.append(generate(model, ids, mask, prefill_chunk_size=1, cache=NautileState(model.config)))
    assert torch.equal(*found)


def test_other_weights_are_recorded_anew(model: NautileForCausalLM, tapes: list[Tape]) -> None:
    fixed, state = FixedState(after(model, tokens(2, 9)), room=80), after(model, tokens(2, 9))
    more, known = tokens(2, 4, seed=2), model.lm_head.weight
    close(steps(model, more, fixed), steps(model, more, state))
    try:
        model.lm_head.weight = torch.nn.Parameter(2 * known.detach())
        close(steps(model, more, fixed), steps(model, more, state))
    finally:
        model.lm_head.weight = known
    assert len(tapes) == 2


def test_a_recording_that_fails_leaves_the_state_as_it_was(
    model: NautileForCausalLM, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    def capture(read: Callable[[], Tensor], restore: Callable[[], None]) -> Any:
        read()
        raise torch.OutOfMemoryError("no room")

    fixed, state = FixedState(after(model, tokens(2, 9)), room=80), after(model, tokens(2, 9))
    with monkeypatch.context() as patched:
        patched.setattr(graphs, "capture", capture)
        with pytest.raises(torch.OutOfMemoryError):
            steps(model, tokens(2, 1), fixed)
    close(steps(model, tokens(2, 4), fixed), steps(model, tokens(2, 4), state))


def test_keys_of_another_type_are_read_as_the_queries_are(model: NautileForCausalLM) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        state = after(model, tokens(2, 9))
    fixed = FixedState(state, room=80)
    torch.testing.assert_close(
        steps(model, tokens(2, 1), fixed), steps(model, tokens(2, 1), state), rtol=2e-2, atol=2e-2
    )


def test_a_snapshot_is_not_changed_by_later_steps(model: NautileForCausalLM) -> None:
    fixed = FixedState(after(model, tokens(2, 9)), room=80)
    kept, other = fixed.snapshot(), fixed.gather(torch.tensor([1]))
    expected = steps(model, tokens(2, 4), fixed)
    assert type(kept) is type(other) is NautileState
    close(steps(model, tokens(2, 4), kept), expected)
    close(steps(model, tokens(2, 4)[1:], other), expected[1:])


def test_states_of_both_kinds_are_joined(model: NautileForCausalLM) -> None:
    states = [after(model, tokens(1, 9)), after(model, tokens(1, 3))]
    joined = NautileState.join([FixedState(states[0], room=80), states[1]])
    close(steps(model, tokens(2, 4), joined), steps(model, tokens(2, 4), NautileState.join(states)))


def test_what_such_a_state_cannot_do_is_said(model: NautileForCausalLM) -> None:
    fixed = FixedState(after(model, tokens(2, 9)), room=80)
    for ids, mask in ((tokens(2, 3), None), (tokens(2, 1), torch.tensor([[1], [0]])), (tokens(2, 1), torch.ones(1, 1))):
        with torch.no_grad(), pytest.raises(NautileError, match="one real token in each of its 2 rows"):
            model(ids, mask, cache=fixed)
    refused_in_layers = "one real token in each row at a time, without gradients"
    with torch.no_grad(), pytest.raises(NautileError, match=refused_in_layers):
        model.model(tokens(2, 1), torch.tensor([[1], [0]]), cache=fixed)
    for grown in (model, model.model):
        with pytest.raises(NautileError, match=refused_in_layers):
            grown(tokens(2, 1), cache=fixed)
    assert fixed.lengths_B.tolist() == [9, 9]
    with pytest.raises(NautileError, match=r"cannot hold 1: use gather\(\)"):
        fixed.reorder_cache(torch.tensor([1]))
    for refused in (fixed.reset, lambda: fixed.batch_repeat_interleave(2)):
        with pytest.raises(NautileError, match="a state with fixed places"):
            refused()
    with pytest.raises(NautileError, match="continues one that has read something"):
        FixedState(NautileState(model.config), 80)


def test_graphs_are_used_where_they_are_wanted_on_a_gpu_alone(model: NautileForCausalLM) -> None:
    state = after(model, tokens(2, 3))
    graphs.use_graphs()
    assert graphs.in_fixed_places(state, tokens(2, 1), None) is state
    graphs.use_graphs(enabled=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_generation_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "ROOM", 0)  # so that there is a second recording
    model = tiny.model(tie_word_embeddings=False).to("cuda")
    ids, mask = (part.to("cuda") for part in pad([tokens(3), tokens(6)], "left"))
    options = {"max_new_tokens": 80, "eos_token_id": None, "do_sample": False, "return_dict_in_generate": True}
    found = []
    for enabled in (True, False):
        graphs.use_graphs(enabled)
        found.append(model.generate(ids, attention_mask=mask, **options))
    assert isinstance(found[0].cache, FixedState)
    assert found[0].cache.recording is not None
    assert torch.equal(found[0].sequences, found[1].sequences)
