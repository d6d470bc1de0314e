"""The state: what it holds and in which precision, snapshots, branches and reordering, and what is refused."""

import copy
import pickle

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from tiny import BOUNDARY, DECAYS, RELATIVE, close, pad, tokens
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.heads import NautileForCausalLM
from nautile.model.layout import Layout
from nautile.model.sca import SCA
from nautile.model.spectral import CHUNK
from nautile.model.state import AttentionState, NautileState, SCAState


@pytest.fixture(scope="module", params=DECAYS, ids=["relative", "boundary", "unclipped"])
def model(request: pytest.FixtureRequest) -> NautileForCausalLM:
    return tiny.model(**request.param)


def read(model: NautileForCausalLM, ids: Tensor, mask: Tensor | None = None) -> NautileState:
    with torch.no_grad():
        return model(ids, attention_mask=mask, use_cache=True).cache


def follow(model: NautileForCausalLM, ids: Tensor, state: NautileState) -> Tensor:
    with torch.no_grad():
        return model(ids, cache=state).logits


def sums(state: NautileState) -> list[Tensor]:
    return [part for layer in state.layers if isinstance(layer, SCAState) for part in layer.sums]


def tensors(state: NautileState) -> list[Tensor]:
    """Every tensor of a state."""
    kept = sums(state) + [layer.tail_BTP for layer in state.layers if isinstance(layer, SCAState)]
    for layer in state.layers:
        if isinstance(layer, AttentionState):
            kept += [layer.k_BGSE, layer.v_BGSE]
    return kept + [x for x in (state.lengths_B, state.real_BS, state.last_B) if x is not None]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_prefix_leaves_the_state_of_the_unpadded_one(model: NautileForCausalLM, side: str) -> None:
    """Pitfalls 1, 3, 6: sums and convolution tail of rows shorter and longer than the kernel and the chunk."""
    rows = [tokens(n, seed=n) for n in (1, 2, 3, 4, CHUNK, CHUNK + 6)]
    state = read(model, *pad(rows, side))
    assert state.lengths_B.tolist() == [1, 2, 3, 4, CHUNK, CHUNK + 6]
    for number, row in enumerate(rows):
        single = read(model, row[None])
        for got, want in zip(state.gather(torch.tensor([number])).layers, single.layers, strict=True):
            if isinstance(want, SCAState):
                close(tuple(got.sums), tuple(want.sums))
                close(got.tail_BTP, want.tail_BTP)
            else:
                close(got.k_BGSE[:, :, : len(row)], want.k_BGSE)
                close(got.v_BGSE[:, :, : len(row)], want.v_BGSE)


def test_size_of_the_sums_does_not_depend_on_the_length(model: NautileForCausalLM) -> None:
    short, long = read(model, tokens(1, 3)), read(model, tokens(1, 2 * CHUNK))
    assert [x.shape for x in sums(short)] == [x.shape for x in sums(long)]
    assert long.get_seq_length() == 2 * CHUNK


@pytest.mark.parametrize("changes", [RELATIVE, BOUNDARY], ids=["relative", "boundary"])
@pytest.mark.parametrize("how", ["weights", "autocast"])
@pytest.mark.parametrize("length", [9, CHUNK + 6])
def test_sums_stay_in_float32_under_bf16(changes: dict, how: str, length: int) -> None:
    """Pitfall 13: prefill, step and several tokens at once."""
    model = tiny.model(**changes)
    if how == "weights":
        model = model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        state = read(model, tokens(2, length))
        assert {x.dtype for x in sums(state)} == {torch.float32}
        for more in (1, 5):
            logits = follow(model, tokens(2, more), state)
            assert {x.dtype for x in sums(state)} == {torch.float32}
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_sums_under_bf16_are_as_exact_as_float32(how: str) -> None:
    """Pitfall 13: in eight bits many small terms would be lost; Z of 600 tokens in pieces is their sum."""
    model = tiny.model(decay="boundary", maxlen=1)
    if how == "weights":
        model = model.to(torch.bfloat16)
    layer, scores, state = model.model.blocks[0].sca, [], None

    def note(module: SCA, inputs: tuple[Tensor, Layout, SCAState | None]) -> None:
        scores.append(module._convolve(module.in_proj(inputs[0]), inputs[1], None)[1])

    layer.register_forward_pre_hook(note)
    ids = tokens(1, 600)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        model(ids)
        for start in range(0, 600, 60):
            state = model(ids[:, start : start + 60], cache=state, use_cache=True).cache
    gate = torch.nn.functional.softplus(layer.score_scale.float() * scores[0].float() + layer.score_bias.float())
    close(state.layers[0].sums.z_BK, gate.sum(1).detach())


def test_nothing_is_kept_unless_asked(model: NautileForCausalLM) -> None:
    """Pitfall 19: a forward pass has no memory of the last one."""
    ids = tokens(2, 6)
    held = [sorted(vars(module)) for module in model.modules()]
    with torch.no_grad():
        first, second = model(ids), model(ids)
    assert first.cache is None
    assert torch.equal(first.logits, second.logits)
    assert [sorted(vars(module)) for module in model.modules()] == held
    assert model(ids, use_cache=True).cache is not None


def test_a_snapshot_is_not_changed_by_later_forwards(model: NautileForCausalLM) -> None:
    """Pitfall 11: steps, chunks and padded rows go on from the original, the snapshot stays."""
    ids, mask = pad([tokens(3), tokens(7)], "left")
    state = read(model, ids, mask)
    snapshot = state.snapshot()
    kept, columns = [x.clone() for x in tensors(snapshot)], snapshot.columns
    more = tokens(2, 4, seed=5)
    expected = follow(model, more, state)
    follow(model, tokens(2, 1), state)
    with torch.no_grad():
        model(more, attention_mask=torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]), cache=state)
    assert snapshot.columns == columns
    assert all(torch.equal(a, b) for a, b in zip(tensors(snapshot), kept, strict=True))
    assert torch.equal(follow(model, more, snapshot), expected)


def test_many_single_tokens_grow_the_room_and_leave_snapshots_alone(model: NautileForCausalLM) -> None:
    ids, other = tokens(2, 110), tokens(2, 110, seed=5)
    with torch.inference_mode():
        state = model(ids[:, :3], use_cache=True).cache
        for at in range(3, 90):
            state = model(ids[:, at : at + 1], cache=state).cache
    branch = state.snapshot()
    with torch.no_grad():  # what inference mode made is copied, not written
        for at in range(90, 110):
            found = model(ids[:, at : at + 1], cache=state).logits
            aside = model(other[:, at : at + 1], cache=branch).logits
        close(found[:, -1], model(ids).logits[:, -1])
        close(aside[:, -1], model(torch.cat([ids[:, :90], other[:, 90:]], dim=1)).logits[:, -1])


def test_single_tokens_before_and_after_several(model: NautileForCausalLM) -> None:
    ids, state, found = tokens(2, 9), None, []
    with torch.no_grad():
        for start, end in ((0, 1), (1, 2), (2, 5), (5, 6), (6, 8), (8, 9)):
            out = model(ids[:, start:end], cache=state, use_cache=True)
            state = out.cache
            found.append(out.logits)
        close(torch.cat(found, dim=1), model(ids).logits)


def test_a_step_under_gradients_and_one_in_another_dtype_leave_the_room(model: NautileForCausalLM) -> None:
    ids = tokens(2, 8)
    state = read(model, ids[:, :3])
    follow(model, ids[:, 3:6], state)
    last = [model(ids[:, at : at + 1], cache=state).logits for at in (6, 7)]
    torch.stack(last).sum().backward()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        state = model(ids[:, :3], use_cache=True).cache
    found = follow(model, ids[:, 3:], state)
    assert found.isfinite().all()


@pytest.mark.parametrize("length", [1, 2, 2 * CHUNK + 5])
def test_a_convolution_over_one_token_leaves_no_tail(length: int) -> None:
    model, ids = tiny.model(conv_kernel=1), tokens(2, length + 2)
    with torch.no_grad():
        whole, state, found = model(ids).logits, None, []
        for start, end in ((0, length), (length, length + 1), (length + 1, length + 2)):
            out = model(ids[:, start:end], cache=state, use_cache=True)
            state = out.cache
            found.append(out.logits)
    close(torch.cat(found, dim=1), whole)


def test_a_step_copies_no_keys(model: NautileForCausalLM) -> None:
    state = read(model, tokens(2, 5))
    attention = next(layer for layer in state.layers if isinstance(layer, AttentionState))
    places = set()
    follow(model, tokens(2, 1), state)
    for _ in range(20):
        follow(model, tokens(2, 1), state)
        places.add(attention.k_BGSE.data_ptr())
    assert len(places) == 1


def test_the_original_is_not_changed_by_its_snapshot(model: NautileForCausalLM) -> None:
    """Pitfall 11, the other way round; sums and attention return together."""
    state, more = read(model, tokens(2, 5)), tokens(2, 3, seed=5)
    expected = follow(model, more, state.snapshot())
    for _ in range(2):
        assert torch.equal(follow(model, more, state.snapshot()), expected)
    assert state.columns == 5


@pytest.mark.parametrize("padding", [0, 3])
def test_branches_of_one_prefix_equal_the_whole_texts(model: NautileForCausalLM, padding: int) -> None:
    """Pitfall 11: a prompt read once, continued by several rows, again and again."""
    prefix, more = tokens(9), tokens(4, 5, seed=3)
    ids, mask = pad([prefix], "left", width=9 + padding)
    state = read(model, ids, mask)
    whole = torch.cat([prefix.expand(4, -1), more], dim=1)
    with torch.no_grad():
        expected = model(whole).logits[:, 9:]
    for _ in range(2):
        close(follow(model, more, state.branch(4)), expected)
    close(follow(model, more[:2], state.branch(2)), expected[:2])


def test_a_branch_takes_no_memory_before_it_is_continued(model: NautileForCausalLM) -> None:
    state = read(model, tokens(1, 9))
    branch = state.branch(1000)
    pairs = zip(tensors(state), tensors(branch), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)


def test_a_branch_needs_one_prefix(model: NautileForCausalLM) -> None:
    with pytest.raises(NautileError, match="use gather"):
        read(model, tokens(2, 3)).branch(4)


@pytest.mark.parametrize("lengths", [(1, CHUNK + 6, 4), (5, 5), (3,)])
def test_joined_prefixes_go_on_as_each_alone(model: NautileForCausalLM, lengths: tuple[int, ...]) -> None:
    """Rows that have read 1 token and more than a chunk: several tokens, padded ones, then single ones."""
    parts = [read(model, tokens(1, length, seed=length)) for length in lengths]
    kept = [[x.clone() for x in tensors(part)] for part in parts]
    joined = NautileState.join(parts)
    assert joined.lengths_B.tolist() == list(lengths)
    assert (joined.real_BS is None) == (len(set(lengths)) == 1)
    rows = [tokens(3 + n, seed=9 + n) for n in range(len(lengths))]
    ids, mask = pad(rows, "left")
    with torch.no_grad():
        found = [model(ids, attention_mask=mask, cache=joined).logits]
    found += [follow(model, tokens(1, 1, seed=20 + n).expand(len(lengths), 1), joined) for n in range(3)]
    single = torch.cat([tokens(1, 1, seed=20 + n) for n in range(3)], dim=1)
    for at, (part, row) in enumerate(zip(parts, rows, strict=True)):
        alone = follow(model, torch.cat([row[None], single], dim=1), part.snapshot())
        close(torch.cat(found, dim=1)[at, -len(row) - 3 :], alone[0])
    for part, old in zip(parts, kept, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(part), old, strict=True))


@given(order=st.lists(st.integers(0, 4), min_size=1, max_size=4), seed=seeds(), side=st.sampled_from(["left", "right"]))
def test_ragged_states_of_several_rows_join_and_part_again(order: list[int], seed: int, side: str) -> None:
    model = tiny.model(**(BOUNDARY if seed % 2 else RELATIVE))
    rows = [tokens(length, seed=seed + length) for length in (2, 7, 3, 4, 1)]
    joined = NautileState.join([read(model, *pad(rows[:2], side)), read(model, *pad(rows[2:], side))])
    more = tokens(len(order), 2, seed=seed)
    expected = [model(torch.cat([rows[n], more[at]])[None]).logits[0, -2:] for at, n in enumerate(order)]
    close(follow(model, more, joined.gather(torch.tensor(order))), torch.stack(expected).detach())


def test_only_states_that_have_read_can_be_joined(model: NautileForCausalLM) -> None:
    for states in ([], [read(model, tokens(1, 2)), NautileState(model.config)]):
        with pytest.raises(NautileError, match="must have read something"):
            NautileState.join(states)


@given(order=st.lists(st.integers(0, 2), min_size=1, max_size=5), seed=seeds(), side=st.sampled_from(["left", "right"]))
def test_gathered_and_reordered_rows_equal_recomputed_ones(order: list[int], seed: int, side: str) -> None:
    """Pitfall 9: repeats, drops and permutations of ragged rows."""
    model = tiny.model(**(BOUNDARY if seed % 2 else RELATIVE))
    rows = [tokens(length, seed=seed + length) for length in (2, 5, 7)]
    state = read(model, *pad(rows, side))
    index, more = torch.tensor(order), tokens(len(order), 2, seed=seed)
    expected = [model(torch.cat([rows[n], more[at]])[None]).logits[0, -2:] for at, n in enumerate(order)]
    gathered, reordered, selected = state.gather(index), state.snapshot(), state.snapshot()
    reordered.reorder_cache(index)
    selected.batch_select_indices(index)
    assert state.batch_size == 3
    for changed in (gathered, reordered, selected):
        assert changed.batch_size == len(order)
        close(follow(model, more, changed), torch.stack(expected).detach())


def test_rows_can_be_repeated(model: NautileForCausalLM) -> None:
    state, more = read(model, tokens(2, 5)), tokens(6, 2, seed=3)
    expected = follow(model, more, state.gather(torch.tensor([0, 0, 0, 1, 1, 1])))
    state.batch_repeat_interleave(3)
    assert torch.equal(follow(model, more, state), expected)


@pytest.mark.parametrize(
    "changes", [{"conv_kernel": 1}, {"conv_kernel": 2}, {"attention_every": 9}, {"attention_every": 1}]
)
def test_shortest_kernels_and_layers_of_one_kind_continue_too(changes: dict) -> None:
    model, ids = tiny.model(**changes), tokens(2, 9)
    state = read(model, *pad([ids[0, :3], ids[1, :4]], "left"))
    got = follow(model, torch.stack([ids[0, 3:8], ids[1, 4:]]), state)
    close(got[0], model(ids[:1, :8]).logits[0, 3:])
    close(got[1], model(ids[1:]).logits[0, 4:])


def test_a_state_that_was_reset_is_like_a_new_one(model: NautileForCausalLM) -> None:
    state, ids = read(model, *pad([tokens(2), tokens(5)], "left")), tokens(3, 4)
    state.reset()
    assert state.batch_size == -1
    assert torch.equal(follow(model, ids, state), follow(model, ids, NautileState(model.config)))


def test_a_state_can_be_copied_and_stored(model: NautileForCausalLM) -> None:
    state, more = read(model, tokens(2, 5)), tokens(2, 3, seed=3)
    copies = [copy.deepcopy(state), pickle.loads(pickle.dumps(state))]
    expected = follow(model, more, state)
    assert all(torch.equal(follow(model, more, other), expected) for other in copies)


def test_cropping_is_refused() -> None:
    """Pitfall 10."""
    state = NautileState(tiny.config())
    assert not state.is_croppable
    with pytest.raises(NautileError, match="cannot be cropped"):
        state.crop(-1)


def test_a_state_of_another_batch_size_is_refused(model: NautileForCausalLM) -> None:
    with pytest.raises(NautileError, match="holds 2 rows, the input 3"):
        follow(model, tokens(3, 1), read(model, tokens(2, 3)))


def test_packed_documents_leave_no_state(model: NautileForCausalLM) -> None:
    """Pitfall 8: it would be the state of several documents."""
    segments = torch.tensor([[1, 1, 2]])
    with pytest.raises(NautileError, match="packed rows leave no state"):
        model(tokens(1, 3), segment_ids=segments, use_cache=True)
    with pytest.raises(NautileError, match="packed rows leave no state"):
        model(tokens(1, 3), segment_ids=segments, cache=read(model, tokens(1, 3)))


def test_gradient_checkpointing_refuses_a_state() -> None:
    """Pitfall 19: recomputed layers would read it twice; evaluation is not affected."""
    model = tiny.model().train()
    model.activation_checkpointing_enable()
    for arguments in ({"use_cache": True}, {"cache": NautileState(model.config)}):
        with pytest.raises(NautileError, match="gradient checkpointing cannot keep a state"):
            model(tokens(1, 3), **arguments)
    assert model.eval()(tokens(1, 3), use_cache=True).cache.columns == 3


def test_gradients_flow_through_a_state(model: NautileForCausalLM) -> None:
    ids = tokens(1, CHUNK + 6)
    embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
    (whole,) = torch.autograd.grad(model(inputs_embeds=embeds).logits[:, -3:].square().mean(), embeds)
    state = model(inputs_embeds=embeds[:, :-3], use_cache=True).cache
    logits = model(inputs_embeds=embeds[:, -3:], cache=state).logits
    (pieces,) = torch.autograd.grad(logits.square().mean(), embeds)
    close(pieces, whole)


def test_the_former_name_of_the_state_still_works_and_says_so(model: NautileForCausalLM) -> None:
    ids = tokens(1, 6)
    state = read(model, ids[:, :4])
    expected = follow(model, ids[:, 4:], state.snapshot())
    with torch.no_grad(), pytest.warns(FutureWarning, match="Use `cache` instead"):
        assert torch.equal(model(ids[:, 4:], past_key_values=state).logits, expected)
