"""Vectors of token pairs: found by a plain loop as well, whatever the padding, packing, cutting and branching."""

from itertools import pairwise
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given
from strategies import cuts, masks, seeds
from tiny import close, tokens
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.checkpoints import load, save
from nautile.model.heads import NautileForCausalLM
from nautile.model.model import NautileModel
from nautile.model.pairs import NO_PAIR, PairEmbedding, pair_keys
from nautile.model.state import NautileState
from nautile.tasks.backbone.export import compact

FEW = 9  # ids, so that known pairs are common


def with_pairs(kind: type[tiny.Model] = NautileModel, **changes: int) -> tiny.Model:
    """A tiny model that knows a third of all pairs of its first ids; some places of its table are not taken."""
    model = tiny.model(kind, pairs=FEW * FEW // 3 + 2, **changes)
    table = model.get_submodule("model.embed_pairs" if kind is NautileForCausalLM else "embed_pairs")
    known = [(one, two) for one in range(FEW) for two in range(FEW) if (one + 2 * two) % 3 == 0]
    table.keys[: len(known)] = torch.tensor([(one << 32) + two for one, two in known])
    torch.nn.init.normal_(table.vectors.weight[:-1].detach())
    return model


def ids(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, FEW, shape, generator=torch.Generator().manual_seed(seed))


def plain(model: NautileModel, row: list[int]) -> Tensor:
    """(L,D): what the first layer gets for a document that begins with the row."""
    known = {int(key): n for n, key in enumerate(model.embed_pairs.keys)}
    rows = []
    for place, token in enumerate(row):
        vector = model.embed_tokens.weight[token]
        pair = None if place == 0 else known.get((row[place - 1] << 32) + token)
        rows.append(vector if pair is None else vector + model.embed_pairs.vectors.weight[pair])
    return torch.stack(rows)


def embedded(model: NautileModel, *args: object, **options: object) -> Tensor:
    with torch.no_grad():
        return model(*args, output_hidden_states=True, **options).hidden_states[0]


def test_known_pairs_add_their_vectors_and_others_nothing() -> None:
    model = with_pairs()
    row = ids(40)
    found = embedded(model, row[None])[0]
    assert not torch.equal(found, model.embed_tokens(row))
    close(found, plain(model, row.tolist()))


@given(masks(), seeds())
def test_pads_anywhere_stand_between_no_pair(mask: list[list[int]], seed: int) -> None:
    model, rows = with_pairs(), ids(len(mask), len(mask[0]), seed=seed)
    found = embedded(model, rows, torch.tensor(mask))
    for row, real, vectors in zip(rows, torch.tensor(mask).bool(), found, strict=True):
        close(vectors[real], plain(model, row[real].tolist()))


def test_no_pair_reaches_over_the_end_of_a_packed_document() -> None:
    model, row = with_pairs(), ids(12)
    found = embedded(model, row[None], segment_ids=torch.tensor([[1] * 5 + [2] * 1 + [3] * 4 + [0] * 2]))
    close(
        found[0, :10], torch.cat([plain(model, row[part].tolist()) for part in (slice(5), slice(5, 6), slice(6, 10))])
    )


@given(cuts(), seeds())
def test_pieces_are_read_as_the_whole(cut: tuple[int, list[int]], seed: int) -> None:
    length, places = cut
    model, rows = with_pairs(), ids(2, length, seed=seed)
    with torch.no_grad():
        whole = model(rows).last_hidden_state
        state, parts = NautileState(model.config), []
        for piece in torch.tensor_split(rows, places, dim=1):
            parts.append(model(piece, cache=state).last_hidden_state)
    close(torch.cat(parts, dim=1), whole)


def test_branches_gathered_and_joined_rows_go_on_from_their_own_last_token() -> None:
    model, follow = with_pairs(), ids(3, 4, seed=9)
    prefixes = [ids(1, length, seed=length) for length in (1, 5, 3)]

    def read(prefix: Tensor) -> NautileState:
        return model(prefix, use_cache=True).cache

    with torch.no_grad():
        alone = torch.cat([model(f[None], cache=read(p))[0] for f, p in zip(follow, prefixes, strict=True)])
        joined = NautileState.join([read(prefix) for prefix in prefixes])
        close(model(follow, cache=joined.snapshot())[0], alone)
        back = torch.tensor([2, 0, 0])
        close(model(follow[back], cache=joined.gather(back))[0], alone[back])
        branched = model(follow, cache=read(prefixes[1]).branch(3))[0]
        close(branched[1], alone[1])
        close(branched[0], model(torch.cat([prefixes[1], follow[:1]], dim=1))[0][0, -4:])


def test_a_state_does_not_change_with_the_ids_that_it_was_made_of() -> None:
    model, buffer = with_pairs(), ids(2, 1)
    with torch.no_grad():
        state = model(buffer, use_cache=True).cache
    kept, last = state.snapshot(), buffer[:, 0].tolist()
    buffer.fill_(0)
    assert state.last_B.tolist() == kept.last_B.tolist() == last


def test_ids_of_any_whole_type_are_the_same() -> None:
    model, rows = with_pairs(), ids(2, 9)
    assert torch.equal(embedded(model, rows.int()), embedded(model, rows))


def test_keys_that_a_checkpoint_lacks_name_no_pair(tmp_path: Path) -> None:
    save(tiny.model(NautileModel, vocab_size=300), tmp_path)
    grown = NautileModel.from_pretrained(tmp_path, config=tiny.config(vocab_size=300, pairs=4))
    assert grown.embed_pairs.keys.tolist() == [NO_PAIR] * 4


def test_rows_without_a_new_token_keep_their_last_one() -> None:
    model, rows = with_pairs(), ids(2, 3)
    with torch.no_grad():
        state = model(rows, use_cache=True).cache
        model(ids(2, 2, seed=3), torch.tensor([[0, 0], [1, 0]]), cache=state)
    assert state.last_B.tolist() == [rows[0, -1], ids(2, 2, seed=3)[1, 0]]


def test_generation_with_a_state_is_generation_without() -> None:
    model = with_pairs(NautileForCausalLM)
    asked = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with_state, without = (model.generate(ids(2, 5), use_cache=use, **asked) for use in (True, False))
    assert with_state.tolist() == without.tolist()


def test_gradients_reach_known_pairs_alone() -> None:
    model, row = with_pairs(), [3, 3, 5, 0, 0, 7]
    model(torch.tensor([row])).last_hidden_state.sum().backward()
    there = {(one << 32) + two for one, two in pairwise(row)}
    touched = model.embed_pairs.vectors.weight.grad.any(1)
    assert touched.any()
    assert not touched[-1]
    assert set(model.embed_pairs.keys[touched[:-1]].tolist()) <= there


def test_a_new_table_adds_nothing_and_no_id_is_a_pair() -> None:
    table = tiny.model(NautileModel, pairs=5).embed_pairs
    assert isinstance(table, PairEmbedding)
    assert not table(ids(2, 6), ids(2, 6, seed=2)).any()
    assert pair_keys(torch.tensor(-1), torch.tensor(3)) < 0


def test_vectors_alone_are_refused() -> None:
    model = with_pairs()
    with pytest.raises(NautileError, match="give it input_ids"):
        model(inputs_embeds=model.embed_tokens(tokens(1, 4)))


def test_a_compact_checkpoint_is_read_back_in_any_precision(tmp_path: Path) -> None:
    model = with_pairs(vocab_size=300)
    wanted = embedded(model, ids(1, 30))
    save(compact(model), tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        again = load(tmp_path, dtype)
        assert again.embed_pairs.vectors.weight.dtype == dtype
        assert torch.equal(again.embed_pairs.keys, model.embed_pairs.keys)
        torch.testing.assert_close(embedded(again, ids(1, 30)).float(), wanted, rtol=0.08, atol=0.02)
