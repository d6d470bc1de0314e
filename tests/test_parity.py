"""The same text gives the same numbers: padded on any side or not, alone or in a batch, packed, whole or in pieces."""

from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import cuts, masks, seeds
from tiny import BOUNDARY, DECAYS, RELATIVE, close, pad, tokens
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.attention import attend
from nautile.model.heads import NautileForCausalLM, NautileForTokenClassification
from nautile.model.spectral import CHUNK

LENGTHS = [1, 2, 5, CHUNK, CHUNK + 1, 2 * CHUNK + 3]


@pytest.fixture(scope="module", params=DECAYS, ids=["relative", "boundary", "unclipped"])
def model(request: pytest.FixtureRequest) -> NautileForCausalLM:
    return tiny.model(**request.param)


def alone(model: NautileForCausalLM, row: Tensor) -> Tensor:
    """Logits (L,V) of one unpadded sequence."""
    with torch.no_grad():
        return model(row[None]).logits[0]


def texts(*lengths: int) -> list[Tensor]:
    return [tokens(length, seed=length) for length in lengths]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_equal_unpadded_ones(model: NautileForCausalLM, side: str) -> None:
    """Pitfalls 1, 2, 3, 15: pads weigh nothing, shift no position and bleed into no convolution."""
    rows = texts(*LENGTHS)
    ids, mask = pad(rows, side, width=2 * CHUNK + 12)
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits
    for row, real, got in zip(rows, mask.bool(), logits, strict=True):
        close(got[real], alone(model, row))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_of_one_is_padded_like_any_other(model: NautileForCausalLM, side: str) -> None:
    """Pitfall 4."""
    row = tokens(9)
    ids, mask = pad([row], side, width=14)
    close(model(ids, attention_mask=mask).logits[0][mask[0].bool()], alone(model, row))


@given(mask=masks(), seed=seeds(), decay=st.sampled_from([RELATIVE, BOUNDARY]))
def test_holes_are_no_tokens(mask: list[list[int]], seed: int, decay: dict[str, Any]) -> None:
    """Pitfalls 1 to 4 with pads anywhere: left = right = holes = no padding."""
    network, real = tiny.model(**decay), torch.tensor(mask)
    ids = tokens(*real.shape, seed=seed)
    with torch.no_grad():
        logits = network(ids, attention_mask=real).logits
    for row, kept, got in zip(ids, real.bool(), logits, strict=True):
        close(got[kept], alone(network, row[kept]))


def test_what_a_pad_says_changes_nothing(model: NautileForCausalLM) -> None:
    """Pitfall 3: not even through inputs_embeds."""
    ids, mask = pad(texts(3, 6, 9), "left")
    embeds = model.get_input_embeddings()(ids)
    noisy = torch.where(mask[..., None].bool(), embeds, 100 * torch.randn_like(embeds))
    clean, other = (model(inputs_embeds=x, attention_mask=mask).logits[mask.bool()] for x in (embeds, noisy))
    close(clean, other)


@pytest.mark.parametrize("side", ["left", "right"])
def test_gradients_with_padding_are_those_without(model: NautileForCausalLM, side: str) -> None:
    """Pitfall 15, backwards: parameters of the whole model."""
    rows = texts(2, 5, CHUNK + 6)
    parameters = dict(model.named_parameters())

    def gradients(loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(parameters.values())))

    apart = sum(model(row[None]).logits.square().mean(-1).sum() for row in rows)
    ids, mask = pad(rows, side)
    together = model(ids, attention_mask=mask).logits.square().mean(-1)[mask.bool()].sum()
    scale = sum(map(len, rows))
    for name, got, want in zip(parameters, gradients(together / scale), gradients(apart / scale), strict=True):
        close(got, want, name)


@pytest.mark.parametrize("side", ["left", "right"])
def test_gradients_are_finite_with_padding_and_for_a_row_of_nothing_else(model: NautileForCausalLM, side: str) -> None:
    """Pitfall 7: also where the pads' embeddings are zero."""
    ids, mask = pad([tokens(6), tokens(1), tokens(0)], side)
    embeds = (model.get_input_embeddings()(ids) * mask[..., None]).detach().requires_grad_()
    out = model(inputs_embeds=embeds, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100))
    inputs = [embeds, *(p for name, p in model.named_parameters() if "lm_head" not in name and "embed" not in name)]
    gradients = torch.autograd.grad(out.loss, inputs)
    assert out.logits.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0][mask.bool()].abs().max() > 0
    assert (gradients[0][~mask.bool()] == 0).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_loss_is_the_same_on_both_sides_of_padding(model: NautileForCausalLM, side: str) -> None:
    """The first real token is not predicted from the pad before it."""
    rows = texts(3, 8)
    ids, mask = pad(rows, side)
    loss = model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
    apart = [-alone(model, row)[:-1].log_softmax(-1).gather(1, row[1:, None]).sum() for row in rows]
    close(loss, sum(apart) / (2 + 7))


@given(documents=st.lists(st.integers(1, CHUNK // 2), min_size=1, max_size=5), padding=st.integers(0, 5), seed=seeds())
def test_packed_documents_equal_separate_ones(documents: list[int], padding: int, seed: int) -> None:
    """Pitfall 8: convolution, sums, attention and positions start anew, also across chunks."""
    check_packing(tiny.model(**(BOUNDARY if seed % 2 else RELATIVE)), documents, padding, seed)


def test_packed_documents_that_end_at_and_across_chunks(model: NautileForCausalLM) -> None:
    """Pitfall 8."""
    check_packing(model, [CHUNK - 1, 1, CHUNK, 2, 10], padding=3, seed=1)
    check_packing(model, [CHUNK + 40, CHUNK - 20], padding=0, seed=2)


def check_packing(model: NautileForCausalLM, documents: list[int], padding: int, seed: int) -> None:
    rows = [tokens(length, seed=seed + n) for n, length in enumerate(documents)]
    numbers = torch.cat([torch.full((len(row),), n) for n, row in enumerate(rows, start=1)])
    ids = torch.nn.functional.pad(torch.cat(rows), (0, padding), value=7)
    segments = torch.nn.functional.pad(numbers, (0, padding))
    with torch.no_grad():
        logits = model(ids[None], segment_ids=segments[None]).logits[0]
    close(logits[: len(numbers)], torch.cat([alone(model, row) for row in rows]))


def test_packed_rows_may_have_their_padding_anywhere(model: NautileForCausalLM) -> None:
    rows = texts(4, 6)
    ids = torch.cat([tokens(2), rows[0], tokens(1), rows[1]])
    segments = torch.tensor([0] * 2 + [3] * 4 + [0] + [5] * 6)
    logits = model(ids[None], segment_ids=segments[None]).logits[0]
    close(logits[segments > 0], torch.cat([alone(model, row) for row in rows]))


def test_loss_and_gradients_of_packed_rows_ignore_where_documents_start(model: NautileForCausalLM) -> None:
    """Pitfall 8, in the loss: no token is predicted from another document or from padding."""
    rows = texts(4, CHUNK + 6, 1)
    ids = torch.nn.functional.pad(torch.cat(rows), (0, 2), value=7)[None]
    segments = torch.tensor([[1] * 4 + [2] * len(rows[1]) + [3] + [0] * 2])
    parameters = [p for p in model.parameters() if p.numel()]
    packed = model(ids, segment_ids=segments, labels=ids).loss
    apart = sum(model(row[None], labels=row[None]).loss * (len(row) - 1) for row in rows[:2]) / (3 + CHUNK + 5)
    close(packed, apart)
    pairs = zip(torch.autograd.grad(packed, parameters), torch.autograd.grad(apart, parameters), strict=True)
    for got, want in pairs:
        close(got, want)


@pytest.mark.parametrize(
    ("segments", "message"),
    [([[2, 2, 1]], "must not decrease"), ([[1, 1]], "must have shape")],
)
def test_segments_that_make_no_sense_are_refused(segments: list[list[int]], message: str) -> None:
    with pytest.raises(NautileError, match=message):
        tiny.model()(tokens(1, 3), segment_ids=torch.tensor(segments))


@given(cut=cuts(), seed=seeds(), decay=st.sampled_from([RELATIVE, BOUNDARY]))
def test_prefix_and_continuations_equal_the_whole(cut: tuple[int, list[int]], seed: int, decay: dict[str, Any]) -> None:
    """Pitfalls 14 and 15: any cut, pieces of one token (step) and of several (chunked)."""
    network, (length, places) = tiny.model(**decay), cut
    ids = tokens(2, length, seed=seed)
    state, pieces = None, []
    with torch.no_grad():
        for start, end in zip([0, *places], [*places, length], strict=True):
            out = network(ids[:, start:end], cache=state, use_cache=True)
            state = out.cache
            pieces.append(out.logits)
        close(torch.cat(pieces, dim=1), network(ids).logits)


@pytest.mark.parametrize("place", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1])
def test_prefix_and_continuation_across_chunks(model: NautileForCausalLM, place: int) -> None:
    ids = tokens(1, 2 * CHUNK + 3)
    with torch.no_grad():
        first = model(ids[:, :place], use_cache=True)
        rest = model(ids[:, place:], cache=first.cache)
    close(torch.cat([first.logits, rest.logits], dim=1)[0], alone(model, ids[0]))


@pytest.mark.parametrize("first_side", ["left", "right"])
@pytest.mark.parametrize("second_side", ["left", "right"])
@pytest.mark.parametrize("whole_mask", [True, False])
def test_ragged_continuation_of_a_ragged_prefix(
    model: NautileForCausalLM, first_side: str, second_side: str, whole_mask: bool
) -> None:
    """Pitfalls 5 and 6: pads in prefix and continuation, on either side, by a mask (B, past + L) or (B, L)."""
    prefixes, continuations = texts(1, 3, 5, CHUNK + 2), [tokens(n, seed=n) for n in (4, 1, CHUNK + 3, 2)]
    ids, mask = pad(prefixes, first_side)
    more_ids, more_mask = pad(continuations, second_side)
    with torch.no_grad():
        state = model(ids, attention_mask=mask, use_cache=True).cache
        given_mask = torch.cat([mask, more_mask], dim=1) if whole_mask else more_mask
        logits = model(more_ids, attention_mask=given_mask, cache=state).logits
        last = model(tokens(4, 1), cache=state).logits
    for row, (prefix, more) in enumerate(zip(prefixes, continuations, strict=True)):
        whole = alone(model, torch.cat([prefix, more, tokens(4, 1)[row]]))
        close(logits[row][more_mask[row].bool()], whole[len(prefix) : -1])
        close(last[row, 0], whole[-1])


def test_a_row_may_rest_while_others_continue(model: NautileForCausalLM) -> None:
    """Pitfall 6: pads leave sums, convolution tail, keys and positions unchanged."""
    ids = tokens(2, 5)
    with torch.no_grad():
        state = model(ids, use_cache=True).cache
        model(tokens(2, 3), attention_mask=torch.tensor([[1, 1, 1], [0, 0, 0]]), cache=state)
        model(tokens(2, 1), attention_mask=torch.tensor([[1], [0]]), cache=state)
        logits = model(tokens(2, 2, seed=9), cache=state).logits
    close(logits[1], alone(model, torch.cat([ids[1], tokens(2, 2, seed=9)[1]]))[-2:])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_a_single_query_attends_as_the_last_of_several_does(groups: int, masked: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, heads, 7, 8) for heads in (4, groups, groups))
    seen = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0, 1]]).bool()
    mask = (seen[:, None, None, :] & torch.ones(7, 7).tril().bool()) | torch.eye(7).bool() if masked else None
    found: list[Tensor] = []
    for queries, visible in ((q, mask), (q[:, :, 6:], None if mask is None else mask[:, :, 6:])):
        inputs = [x.clone().requires_grad_() for x in (queries, k, v)]
        y = attend(*inputs, visible)[:, :, -1]
        gradients = torch.autograd.grad(y.square().sum(), inputs)
        found.append(torch.cat([y.flatten(), *(g.flatten() for g in (gradients[0][:, :, -1], *gradients[1:]))]))
    close(found[1], found[0])


def test_step_and_chunk_give_the_same_log_probabilities(model: NautileForCausalLM) -> None:
    """Pitfall 14: the gap between decoding and the training kernel stays below 1e-5 a token."""
    ids = tokens(2, CHUNK + 26)
    with torch.no_grad():
        trained = model(ids).logits.log_softmax(-1)
        state, steps = None, []
        for t in range(ids.shape[1]):
            out = model(ids[:, t : t + 1], cache=state, use_cache=True)
            state = out.cache
            steps.append(out.logits)
    decoded = torch.cat(steps, dim=1).log_softmax(-1)
    chosen = ids[:, 1:, None]
    gap = (trained[:, :-1].gather(-1, chosen) - decoded[:, :-1].gather(-1, chosen)).abs().max()
    assert gap < 1e-5
    close(decoded, trained)


@given(length=st.integers(2, 12), data=st.data(), seed=seeds(), decay=st.sampled_from([RELATIVE, BOUNDARY]))
def test_no_token_sees_the_future(length: int, data: st.DataObject, seed: int, decay: dict[str, Any]) -> None:
    network, place = tiny.model(**decay), data.draw(st.integers(1, length - 1))
    ids = tokens(1, length, seed=seed)
    changed = ids.clone()
    changed[0, place] = (changed[0, place] - 1) % tiny.VOCAB
    with torch.no_grad():
        before, after = network(ids).logits, network(changed).logits
    close(after[:, :place], before[:, :place])
    assert not torch.allclose(after[:, place], before[:, place])


def test_no_token_sees_the_future_across_chunks(model: NautileForCausalLM) -> None:
    ids = tokens(1, 2 * CHUNK + 3)
    embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
    for place in (0, CHUNK - 2, CHUNK - 1, CHUNK, 2 * CHUNK + 1):
        (gradient,) = torch.autograd.grad(model(inputs_embeds=embeds).logits[0, place].sum(), embeds)
        assert (gradient[0, place + 1 :] == 0).all()
        assert gradient[0, place].abs().max() > 0


@given(rows=st.integers(2, 5), length=st.integers(1, 10), seed=seeds())
def test_order_of_the_batch_is_irrelevant(rows: int, length: int, seed: int) -> None:
    """Pitfall 15."""
    network, ids = tiny.model(), tokens(rows, length, seed=seed)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        close(network(ids[order]).logits, network(ids).logits[order])
        close(network(ids).logits[0], network(ids[:1]).logits[0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_token_labels_do_not_depend_on_padding(side: str) -> None:
    network = tiny.model(NautileForTokenClassification, num_labels=3)
    rows = texts(2, 9, CHUNK + 2)
    ids, mask = pad(rows, side)
    labels = torch.randint(0, 3, ids.shape).masked_fill(mask == 0, -100)
    out = network(ids, attention_mask=mask, labels=labels)
    apart = [network(row[None]).logits[0] for row in rows]
    for real, got, want in zip(mask.bool(), out.logits, apart, strict=True):
        close(got[real], want)
    close(out.loss, torch.nn.functional.cross_entropy(torch.cat(apart), labels[mask.bool()]))


def test_hidden_states_come_back_in_the_callers_layout(model: NautileForCausalLM) -> None:
    row = tokens(6)
    ids, mask = pad([row, tokens(9)], "left")
    padded = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    single = model(row[None], output_hidden_states=True).hidden_states
    assert len(padded) == model.config.num_layers + 1
    for got, want in zip(padded, single, strict=True):
        close(got[0, -6:], want[0])
