"""Prefixes: texts after several of them in one batch, and the store that reads each one once."""

import copy
import itertools
from collections.abc import Callable

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BOUNDARY, DECAYS, RELATIVE, close

from nautile.engine.prefix import Prefix, continued, read_prefix
from nautile.engine.prefixes import Counts, Prefixes
from nautile.engine.reader import PREFIX_TOKENS, Reader
from nautile.errors import NautileError
from nautile.model.model import NautileModel
from nautile.model.spectral import CHUNK
from nautile.model.vocabulary import Vocabulary

VOCABULARY = Vocabulary("nautile", 300)
LENGTHS = (1, 5, CHUNK + 12)
TEXTS = ["", "the parcel never came", "x" * 400, "thanks", " ", "why?"]


def backbone(**changes: object) -> NautileModel:
    return tiny.model(NautileModel, vocab_size=VOCABULARY.size, **changes)


def ids(length: int, seed: int = 0) -> list[int]:
    return tiny.tokens(length, seed=seed + length).tolist()


def read_all(reader: Reader) -> list[Prefix]:
    return [reader.prefixes.read(ids(length)) for length in LENGTHS]


@pytest.mark.parametrize("changes", DECAYS, ids=["relative", "boundary", "unclipped"])
def test_texts_after_several_prefixes_read_as_after_each_alone(changes: dict) -> None:
    reader, done = Reader(backbone(**changes)), []
    prefixes = read_all(reader)
    texts = [text for text in TEXTS for _ in prefixes]
    together = reader(texts, prefixes * len(TEXTS), done.append)
    for n, prefix in enumerate(prefixes):
        alone = reader(TEXTS, prefix)
        close(together.vectors_ND[n :: len(prefixes)], alone.vectors_ND)
        assert together.windows[n :: len(prefixes)] == alone.windows
    apart = [reader(TEXTS, prefix).vectors_ND for prefix in prefixes]
    assert all((one - other).abs().max() > 1e-3 for one, other in itertools.pairwise(apart))
    assert sorted(done) == [n for n, text in enumerate(texts) if text]
    assert together.tokens == len(prefixes) * reader(TEXTS).tokens


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TEXTS), st.integers(0, 2)), max_size=9), st.integers(1, 400), st.booleans())
def test_any_choice_of_prefixes_in_batches_of_any_size(rows: list[tuple[str, int]], size: int, relative: bool) -> None:
    model = backbone(**(RELATIVE if relative else BOUNDARY))
    reader = Reader(model, batch_tokens=size)
    prefixes = read_all(reader)
    found = reader([text for text, _ in rows], [prefixes[which] for _, which in rows]).vectors_ND
    assert found.shape == (len(rows), 32)
    for vector_D, (text, which) in zip(found, rows, strict=True):
        close(vector_D, Reader(model)([text], prefixes[which]).vectors_ND[0])


@pytest.mark.parametrize("block", [1, 4, 6])
def test_texts_that_are_encoded_beside_others_keep_their_places(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, done = Reader(backbone()), list[int]()
    prefixes = [reader.prefixes.read(ids(1 + n % 2)) for n in range(len(TEXTS))]
    whole = reader(TEXTS, prefixes)
    monkeypatch.setattr("nautile.engine.reader.BLOCK", block)
    parts = reader(TEXTS, prefixes, done.append)
    close(parts.vectors_ND, whole.vectors_ND)
    assert (parts.windows, parts.tokens) == (whole.windows, whole.tokens)
    assert sorted(done) == [n for n, text in enumerate(TEXTS) if text]


def test_a_prefix_and_a_text_read_as_one_pass() -> None:
    reader = Reader(backbone())
    found = reader([TEXTS[1]] * 3, read_all(reader)).vectors_ND
    text = VOCABULARY.encode(TEXTS[1])
    for length, vector_D in zip(LENGTHS, found, strict=True):
        with torch.no_grad():
            whole_LD = reader.model(torch.tensor([ids(length) + text])).last_hidden_state[0]
        close(vector_D, whole_LD[length:].mean(0))


def test_a_batch_after_one_prefix_copies_nothing() -> None:
    prefix = read_prefix(backbone(), ids(9))
    assert continued([prefix] * 5).lengths_B.data_ptr() == prefix.state.lengths_B.data_ptr()


def test_long_prefixes_make_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, sizes = Reader(backbone()), []
    pooled = reader._pooled
    monkeypatch.setattr(reader, "_pooled", lambda rows, after: sizes.append(len(rows)) or pooled(rows, after))
    monkeypatch.setattr("nautile.engine.reader.PREFIX_TOKENS", 2 * max(LENGTHS) + 1)
    prefixes = read_all(reader)
    reader(["why?"] * 6, prefixes * 2)
    reader(["why?"] * 6, prefixes[0])
    assert sizes == [2, 2, 2, 6]
    assert max(LENGTHS) * 2 < PREFIX_TOKENS


@pytest.mark.parametrize("room", [1, 4])
def test_where_memory_is_short_batches_are_read_in_parts(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(backbone())
    prefixes = read_all(reader)
    texts = [text for text in TEXTS for _ in prefixes]
    wanted = reader(texts, prefixes * len(TEXTS)).vectors_ND
    pooled = reader._pooled_at_once

    def short(rows: list[list[int]], after: list[Prefix]) -> torch.Tensor:
        if len(rows) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate more")
        return pooled(rows, after)

    monkeypatch.setattr(reader, "_pooled_at_once", short)
    close(reader(texts, prefixes * len(TEXTS)).vectors_ND, wanted)
    room = 0
    with pytest.raises(
        NautileError, match=r"^cpu has no memory for a text of \d+ tokens: CUDA out of memory\.; read on the CPU$"
    ):
        reader(["why?"])


def test_as_many_prefixes_as_texts() -> None:
    reader = Reader(backbone())
    with pytest.raises(NautileError, match="3 prefixes for 2 texts"):
        reader(["a", "b"], read_all(reader))


def test_what_is_read_and_spared_is_counted() -> None:
    reader = Reader(backbone())
    short, _, long = read_all(reader)
    assert reader.prefixes.counts == Counts(3, sum(LENGTHS))
    reader(TEXTS, short)
    reader(TEXTS[:3], [long, short, long])
    reader(TEXTS)
    assert reader.prefixes.counts == Counts(3, sum(LENGTHS), 7, 6 * short.tokens + long.tokens)


def test_a_prefix_is_read_once_and_its_ids_and_spans_are_its_name() -> None:
    store = Prefixes(backbone())
    first = store.read(ids(9), [(0, 2), (3, 9)])
    assert store.read(tuple(ids(9)), [(0, 2), (3, 9)]) is first
    assert first.spans_ND.shape == (2, 32)
    assert store.read(ids(9)) is not first
    assert store.read(ids(9)).spans_ND.shape == (0, 32)
    assert store.read([*ids(8), ids(9)[-1] + 1]) is not store.read(ids(9))
    assert store.counts.reads == len(store) == 3


def test_nothing_that_continues_from_a_prefix_changes_it() -> None:
    reader = Reader(backbone())
    prefix = reader.prefixes.read(ids(5))
    expected = reader(TEXTS, prefix).vectors_ND
    for state in (prefix.state, prefix.state):
        with torch.no_grad():
            reader.model(tiny.tokens(1, 3), cache=state)
            reader.model(tiny.tokens(1, 1), cache=state)
        assert state.columns == 9
    assert prefix.state.columns == 5
    assert torch.equal(reader(TEXTS, reader.prefixes.read(ids(5))).vectors_ND, expected)


def test_the_least_recently_used_goes_first() -> None:
    store = Prefixes(backbone(), most=2)
    a, b = store.read(ids(2)), store.read(ids(3))
    assert store.read(ids(2)) is a
    store.read(ids(4))
    assert len(store) == 2
    assert store.read(ids(2)) is a
    assert store.read(ids(3)) is not b
    assert store.counts.reads == 4


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 3), st.integers(1, 12))
def test_a_store_never_holds_more_than_it_may_but_the_last(lengths: list[int], most: int, most_tokens: int) -> None:
    store = Prefixes(backbone(num_layers=1), most, most_tokens)
    for length in lengths:
        last = store.read(ids(length))
        assert store.read(ids(length)) is last
        assert len(store) == 1 or (len(store) <= most and store.tokens <= most_tokens)
    assert store.counts.reads >= len(set(lengths))


def step(model: NautileModel) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(tiny.tokens(1, 4)).last_hidden_state.square().sum().backward()
    optimizer.step()


def write(model: NautileModel) -> None:
    with torch.inference_mode():
        model.blocks[0].norm.weight[0] += 1


def load(model: NautileModel, assign: bool = False) -> None:
    model.load_state_dict({name: 1.1 * part for name, part in model.state_dict().items()}, assign=assign)


@pytest.mark.parametrize(
    "change",
    [step, write, load, lambda model: load(model, assign=True), NautileModel.double, NautileModel.bfloat16],
    ids=["optimizer", "in place", "loaded", "assigned", "double", "bfloat16"],
)
def test_a_prefix_does_not_outlive_its_weights(change: Callable[[NautileModel], object]) -> None:
    reader = Reader(backbone())
    before = reader.prefixes.read(ids(5), [(0, 5)])
    reader.prefixes.read(ids(6))
    change(reader.model)
    after = reader.prefixes.read(ids(5), [(0, 5)])
    assert len(reader.prefixes) == 1
    assert not torch.equal(before.spans_ND, after.spans_ND)
    assert torch.equal(after.spans_ND, Reader(reader.model).prefixes.read(ids(5), [(0, 5)]).spans_ND)


def test_a_copied_reader_reads_for_itself() -> None:
    reader = Reader(backbone())
    first = reader.prefixes.read(ids(5))
    other = copy.deepcopy(reader)
    assert other.prefixes.model is other.model
    assert other.prefixes.read(ids(5)) is not first
    assert reader.prefixes.read(ids(5)) is first


def test_a_model_made_in_inference_mode_can_be_read_with() -> None:
    with torch.inference_mode():
        reader = Reader(backbone())
        inside = reader(TEXTS, reader.prefixes.read(ids(5))).vectors_ND
    close(reader(TEXTS, reader.prefixes.read(ids(5))).vectors_ND.clone(), inside.clone())
    assert reader.prefixes.counts.reads == 1


def test_cleared_prefixes_are_read_again_and_stay_counted() -> None:
    store = Prefixes(backbone())
    store.read(ids(5))
    store.clear()
    assert len(store) == store.tokens == 0
    store.read(ids(5))
    assert store.counts == Counts(2, 10)
