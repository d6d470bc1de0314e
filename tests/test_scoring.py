"""The likelihood of texts: against one plain pass, in blocks, in any company."""

import math

import pytest
import tiny
import torch
from tiny import close

from nautile.engine import scoring
from nautile.engine.scoring import score
from nautile.errors import NautileError
from nautile.model.config import vocabulary_of
from nautile.model.heads import NautileForCausalLM
from nautile.model.model import NautileModel

TEXTS = ["one", "", "a somewhat longer text, with a comma", "Grüße 🐚", "word " * 60]


@pytest.fixture(scope="module")
def model() -> NautileForCausalLM:
    return tiny.model(NautileForCausalLM, vocab_size=1_008)


def plain(model: NautileForCausalLM, text: str) -> float:
    """By the model's own loss, a mean over the tokens."""
    vocabulary = vocabulary_of(model.config)
    ids = torch.tensor([[vocabulary.eos_id, *vocabulary.encode(text)]])
    with torch.no_grad():
        return float(model(ids, labels=ids).loss) * (ids.shape[1] - 1) if text else 0.0


@pytest.mark.parametrize("block", [1, 7, 256])
def test_likelihoods_are_those_of_one_pass(
    block: int, model: NautileForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BLOCK", block)
    found = score(model, TEXTS)
    for text, likelihood in zip(TEXTS, found, strict=True):
        close(torch.tensor(likelihood.nats / 100), torch.tensor(plain(model, text) / 100))
        assert likelihood.size == len(text.encode())


def test_bits_per_byte(model: NautileForCausalLM) -> None:
    one, empty, *_ = score(model, TEXTS)
    assert one.bits_per_byte == pytest.approx(one.nats / math.log(2) / 3)
    assert math.isnan(empty.bits_per_byte)
    assert (empty.tokens, empty.nats) == (0, 0.0)


def test_no_texts_no_likelihoods(model: NautileForCausalLM) -> None:
    assert score(model, []) == []


def test_half_a_surrogate_pair_is_three_bytes(model: NautileForCausalLM) -> None:
    assert score(model, ["a \ud800"])[0].size == len("a \ufffd".encode())


def test_texts_may_come_one_by_one(model: NautileForCausalLM) -> None:
    assert score(model, (text for text in TEXTS)) == score(model, TEXTS)


def test_what_cannot_be_scored_is_refused(model: NautileForCausalLM) -> None:
    with pytest.raises(NautileError, match="predicts no tokens"):
        score(tiny.model(NautileModel), ["a"])  # type: ignore[arg-type]
    for odd in ("abc", [None]):
        with pytest.raises(NautileError, match="takes a list of texts"):
            score(model, odd)  # type: ignore[arg-type]
