"""The critic: a sentence encoder of any width, tuned to sentiment."""

import json
import lzma
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from nautile.tasks.backbone import opinions
from nautile.tasks.backbone.heads import sentiment_data
from nautile.tasks.backbone.heads.sentiment_data import NEGATIVE, POSITIVE, TWEETS, Example
from nautile.tasks.backbone.objectives import Sentiment
from nautile.tasks.backbone.opinions import Critic, to_judge


@pytest.fixture
def critic(tmp_path: Path) -> Critic:
    words = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "good", "bad"])}
    splitter = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    splitter.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=splitter, pad_token="[PAD]").save_pretrained(tmp_path)
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(tmp_path)
    return Critic(tmp_path)


def test_it_gives_probabilities_in_the_order_of_the_texts(critic: Critic) -> None:
    found = critic(["bad bad bad", "good and good again", "good"])
    assert found.shape == (3, 3)
    assert torch.allclose(found.sum(1), torch.ones(3))
    assert (found[0] - found[2]).abs().max() > 0.05  # so that another order would be seen
    for row, text in enumerate(["bad bad bad", "good and good again", "good"]):
        assert torch.allclose(critic([text])[0], found[row], atol=1e-2)  # bfloat16


def test_it_learns_with_all_but_its_token_vectors(critic: Critic) -> None:
    examples = [Example("good", POSITIVE), Example("bad", NEGATIVE)] * 4
    Sentiment(examples, count=4)(critic, random.Random(0)).backward()
    still = {name for name, parameter in critic.named_parameters() if parameter.grad is None}
    assert all(name.startswith(("backbone.embeddings", "backbone.pooler")) for name in still)
    assert "backbone.embeddings.word_embeddings.weight" in still


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_it_judges_passages_labelled_texts_and_their_variants_but_none_that_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opinions, "VARIANTS", {("sst2",): 40, (TWEETS,): 40})
    monkeypatch.setattr(sentiment_data, "read_tweets", lambda: iter([Example("so tired of it all today", NEGATIVE)]))
    films = [
        {"text": text, "label": "positive"} for text in ("a warm and funny film", "so long " * 30, "seen , held back")
    ]
    write_rows(tmp_path / "data" / "sentiment" / "sst2" / "train.jsonl.xz", films)
    kept_back = [{"text": "Seen, held back", "label": "positive"}, {"text": "funny", "label": "positive"}]
    write_rows(tmp_path / "data" / "sentiment" / "sst2" / "dev.jsonl.xz", kept_back)
    write_rows(tmp_path / "corpus" / "cc_reviews.jsonl.xz", [{"text": "The sleeves were far too short."}])
    found = to_judge(tmp_path / "corpus", tmp_path / "data")
    assert {"The sleeves were far too short.", "a warm and funny film", "so tired of it all today"} <= {*found}
    assert len(found) == len(set(found)) > 20
    assert not {"funny", "seen , held back"} & {*found}
    assert max(map(len, found)) <= 200
    assert found == to_judge(tmp_path / "corpus", tmp_path / "data")
