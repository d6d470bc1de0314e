"""The pooler's layers: a plain loop says the same, for texts and for the spans of a prefix, whatever the padding."""

from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F
from tiny import close, pad, tokens
from torch import Tensor

from nautile.engine.prefix import read_prefix
from nautile.engine.reader import Reader
from nautile.model.checkpoints import load, save
from nautile.model.heads import NautileForCausalLM, NautileForSequenceClassification
from nautile.model.model import NautileModel
from nautile.model.pooler import Pooler, pool
from nautile.model.vocabulary import Vocabulary

VOCABULARY = Vocabulary("nautile", 300)


def plain(pooler: Pooler, x_D: Tensor) -> Tensor:
    for layer in pooler.layers:
        size = (x_D.square().mean() + 1e-6).sqrt()
        inner = layer.feed_forward
        u, v = (inner.ff_in.weight @ (x_D / size * layer.norm.weight) + inner.ff_in.bias).chunk(2)
        x_D = x_D + inner.ff_out.weight @ (u * v * torch.sigmoid(v)) + inner.ff_out.bias
    return x_D


def test_layers_follow_the_mean() -> None:
    model = tiny.model(NautileModel, pooler_layers=2)
    ids_BL, mask_BL = pad([tokens(9), tokens(4, seed=2)], "right")
    with torch.no_grad():
        hidden_BLD = model(ids_BL, mask_BL).last_hidden_state
        found_BD = model.pooler(hidden_BLD, mask_BL)
        for row, length in enumerate((9, 4)):
            mean_D = hidden_BLD[row, :length].mean(0)
            close(found_BD[row], plain(model.pooler, mean_D))
            assert not torch.allclose(found_BD[row], mean_D, atol=0.1)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_without_layers_it_is_the_mean_or_the_last(pooling: str) -> None:
    model = tiny.model(NautileModel, pooling=pooling)
    hidden_BLD, mask_BL = torch.randn(2, 5, 32), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    assert torch.equal(model.pooler(hidden_BLD, mask_BL), pool(hidden_BLD, mask_BL, pooling))
    assert not list(model.pooler.parameters())


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_heads_logits_are_those_of_the_refined_mean(side: str) -> None:
    model = tiny.model(NautileForSequenceClassification, num_labels=3, pooler_layers=1)
    rows = [tokens(n, seed=n) for n in (1, 7, 40)]
    ids_BL, mask_BL = pad(rows, side)
    with torch.no_grad():
        for logits, row in zip(model(ids_BL, attention_mask=mask_BL).logits, rows, strict=True):
            mean_D = model.model(row[None]).last_hidden_state[0].mean(0)
            close(logits, model.score(plain(model.model.pooler, mean_D)))


def test_texts_and_the_spans_of_a_prefix_go_through_the_same_layers() -> None:
    model = tiny.model(NautileModel, vocab_size=VOCABULARY.size, pooler_layers=2)
    text = "a red fox by the old gate"
    ids = VOCABULARY.encode(text)
    with torch.no_grad():
        hidden_LD = model(torch.tensor([ids])).last_hidden_state[0]
        close(Reader(model)([text]).vectors_ND[0], plain(model.pooler, hidden_LD.mean(0)))
        prefix = read_prefix(model, ids, [(0, 2), (2, 5)])
        for found_D, (start, end) in zip(prefix.spans_ND, [(0, 2), (2, 5)], strict=True):
            close(found_D, plain(model.pooler, hidden_LD[start:end].mean(0)))
        assert read_prefix(model, ids).spans_ND.shape == (0, 32)


def test_layers_compute_in_their_own_type_and_answer_in_the_askers() -> None:
    pooler, pooled = tiny.model(NautileModel, pooler_layers=1).to(torch.bfloat16).pooler, torch.randn(4, 32)
    found = pooler.refine(pooled)
    assert found.dtype == torch.float32
    assert torch.equal(found, pooler.refine(pooled.bfloat16()).float())
    exact = pooler.float().refine(pooled)
    assert F.cosine_similarity(found, exact).min() > 0.999


def test_layers_are_stored_with_the_backbone_and_a_language_model_may_have_them(tmp_path: Path) -> None:
    model = tiny.model(NautileModel, vocab_size=VOCABULARY.size, pooler_layers=2)
    save(model, tmp_path / "backbone")
    for name, parameter in load(tmp_path / "backbone").named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))
    language = tiny.model(NautileForCausalLM, pooler_layers=2)
    plain_one = NautileForCausalLM(tiny.config())
    state = {name: t for name, t in language.state_dict().items() if "pooler" not in name}
    plain_one.load_state_dict(state)
    close(plain_one(tokens(2, 5)).logits, language(tokens(2, 5)).logits)
