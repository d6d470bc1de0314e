"""generate(): with a state and without it, padded and alone, sampled, in beams, and from a shared prefix."""

from typing import Any

import pytest
import tiny
import torch
from tiny import DECAYS, close, pad, tokens
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.heads import NautileForCausalLM
from nautile.model.state import NautileState

NEW = 12


@pytest.fixture(scope="module", params=DECAYS, ids=["relative", "boundary", "unclipped"])
def model(request: pytest.FixtureRequest) -> NautileForCausalLM:
    """Untied: with tied embeddings a model that was not trained repeats itself."""
    return tiny.model(tie_word_embeddings=False, **request.param)


def generate(model: NautileForCausalLM, ids: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """The new tokens, never fewer than NEW."""
    mask = torch.ones_like(ids) if mask is None else mask
    settings = {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW, **options}
    return model.generate(ids, attention_mask=mask, **settings)[:, ids.shape[1] :]


@torch.no_grad()
def greedy(model: NautileForCausalLM, row: Tensor) -> Tensor:
    """Greedy decoding by hand: one unpadded sequence, no state; the end token (1) is not allowed."""
    new: list[Tensor] = []
    for _ in range(NEW):
        scores = model(torch.cat([row, *new])[None]).logits[0, -1]
        scores[1] = -torch.inf
        new.append(scores.argmax()[None])
    return torch.cat(new)


def test_greedy_with_and_without_a_state_equals_decoding_by_hand(model: NautileForCausalLM) -> None:
    """Pitfall 15: cached = uncached."""
    ids = tokens(3, 7)
    expected = torch.stack([greedy(model, row) for row in ids])
    assert all(len(set(row)) > 3 for row in expected.tolist()), "a model that repeats itself would prove nothing"
    assert torch.equal(generate(model, ids), expected)
    assert torch.equal(generate(model, ids, use_cache=False), expected)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_left_padded_batch_equals_each_row_alone(model: NautileForCausalLM, use_cache: bool) -> None:
    """Pitfalls 2, 3, 15."""
    rows = [tokens(n, seed=n) for n in (1, 4, 9, 66)]
    expected = torch.stack([greedy(model, row) for row in rows])
    assert torch.equal(generate(model, *pad(rows, "left"), use_cache=use_cache), expected)


def test_one_padded_row_equals_the_row(model: NautileForCausalLM) -> None:
    """Pitfall 4."""
    row = tokens(5)
    assert torch.equal(generate(model, *pad([row], "left", width=9))[0], greedy(model, row))


def test_scores_of_generation_are_those_of_a_forward_pass(model: NautileForCausalLM) -> None:
    """Pitfall 14."""
    ids = tokens(2, 6)
    out = model.generate(
        ids, max_new_tokens=NEW, do_sample=False, eos_token_id=None, output_logits=True, return_dict_in_generate=True
    )
    with torch.no_grad():
        close(torch.stack(out.logits, dim=1), model(out.sequences).logits[:, 5:-1])


def test_sampling_with_a_state_draws_what_sampling_without_it_draws(model: NautileForCausalLM) -> None:
    ids, mask = pad([tokens(3), tokens(6)], "left")
    options = {"do_sample": True, "num_return_sequences": 3, "temperature": 0.8, "top_k": 20}
    drawn = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        drawn.append(generate(model, ids, mask, use_cache=use_cache, **options))
    assert drawn[0].shape == (6, NEW)
    assert torch.equal(*drawn)
    assert len({tuple(row) for row in drawn[0].tolist()}) > 2


@pytest.mark.parametrize("options", [{}, {"num_return_sequences": 3}, {"length_penalty": 0.5}])
@pytest.mark.parametrize("side", ["left", None])
def test_beam_search_equals_beam_search_without_a_state(
    model: NautileForCausalLM, options: dict[str, Any], side: str | None
) -> None:
    """Pitfall 9."""
    ids, mask = pad([tokens(3), tokens(6, seed=3)], side) if side else (tokens(2, 6), None)
    beams = {"num_beams": 4, "early_stopping": True, **options}
    with_state, without = (generate(model, ids, mask, use_cache=use, **beams) for use in (True, False))
    assert torch.equal(with_state, without)
    assert not torch.equal(with_state[:: options.get("num_return_sequences", 1)], generate(model, ids, mask))


def test_beam_search_moves_rows(model: NautileForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 9: without reordering the test above would fail, so it does reorder, and not in the trivial order."""
    orders: list[list[int]] = []
    reorder = NautileState.reorder_cache
    monkeypatch.setattr(
        NautileState, "reorder_cache", lambda self, rows: (orders.append(rows.tolist()), reorder(self, rows))[1]
    )
    expected = generate(model, tokens(2, 6), num_beams=4)
    assert any(rows != sorted(rows) or len(set(rows)) < 8 for rows in orders)
    monkeypatch.setattr(NautileState, "reorder_cache", lambda self, rows: None)
    assert not torch.equal(generate(model, tokens(2, 6), num_beams=4), expected)


def test_generation_from_a_shared_prefix(model: NautileForCausalLM) -> None:
    """Pitfall 11: the prefix is read once, its snapshot serves every batch and stays as it was."""
    prefix, rows = tokens(8), tokens(3, 4, seed=4)
    whole = torch.cat([prefix.expand(3, -1), rows], dim=1)
    expected = generate(model, whole)
    with torch.no_grad():
        snapshot = model(prefix[None], use_cache=True).cache
    for _ in range(2):
        assert torch.equal(generate(model, whole, cache=snapshot.branch(3)), expected)
    assert snapshot.columns == 8


def test_chunked_prefill(model: NautileForCausalLM) -> None:
    """Pitfall 5: the prompt is read in pieces, pads and all."""
    ids, mask = pad([tokens(3), tokens(11)], "left")
    state = NautileState(model.config)
    pieces = generate(model, ids, mask, cache=state, prefill_chunk_size=4)
    assert torch.equal(pieces, generate(model, ids, mask))


def test_the_state_can_be_returned(model: NautileForCausalLM) -> None:
    ids = tokens(2, 5)
    out = model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None, return_dict_in_generate=True)
    assert isinstance(out.cache, NautileState)
    assert out.cache.lengths_B.tolist() == [7, 7]


@pytest.mark.parametrize("assistance", ["assistant_model", "prompt_lookup_num_tokens"])
def test_assisted_generation_is_refused(model: NautileForCausalLM, assistance: str) -> None:
    """Pitfall 10."""
    value = {"assistant_model": model, "prompt_lookup_num_tokens": 2}[assistance]
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        generate(model, tokens(1, 5), **{assistance: value})


def test_generation_in_training_with_gradient_checkpointing_is_refused() -> None:
    """Pitfall 19: it would go on without a memory."""
    model = tiny.model().train()
    model.activation_checkpointing_enable()
    with pytest.raises(NautileError, match=r"call model\.eval\(\)"):
        generate(model, tokens(1, 5))
    expected = generate(model, tokens(1, 5), use_cache=False)
    assert torch.equal(generate(model.eval(), tokens(1, 5)), expected)


def test_an_unknown_argument_is_not_swallowed(model: NautileForCausalLM) -> None:
    with pytest.raises(TypeError, match="position_ids"):
        model(tokens(1, 3), position_ids=torch.arange(3)[None])
    with pytest.raises(NautileError, match="attention maps"):
        generate(model, tokens(1, 3), output_attentions=True)
