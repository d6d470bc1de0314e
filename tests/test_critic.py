"""The critic: a sentence encoder of any width, tuned to sentiment."""

import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from nautile.tasks.backbone.heads.sentiment_data import NEGATIVE, POSITIVE, Example
from nautile.tasks.backbone.objectives import Sentiment
from nautile.tasks.backbone.opinions import Critic


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
