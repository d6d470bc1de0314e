"""The heads: pooling, losses, outputs, and what transformers and peft do with them."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import close, pad, tokens
from torch import nn

from nautile.errors import NautileError
from nautile.model.checkpoints import register, save
from nautile.model.config import NautileConfig, vocabulary_of
from nautile.model.heads import (
    NautileForCausalLM,
    NautileForSequenceClassification,
    NautileForTokenClassification,
)
from nautile.model.model import NautileModel
from nautile.model.pooling import pool
from nautile.model.spectral import CHUNK

HEADS = [NautileForCausalLM, NautileForSequenceClassification, NautileForTokenClassification]


def test_a_backbone_is_loaded_under_a_new_head(tmp_path: Path) -> None:
    model = tiny.model(pooling="last")
    model.save_pretrained(tmp_path)
    head, report = NautileForSequenceClassification.from_pretrained(tmp_path, num_labels=5, output_loading_info=True)
    assert report["missing_keys"] == {"score.weight", "score.bias"}
    assert head.score.weight.std() > 0.05
    for name, parameter in head.model.named_parameters():
        assert torch.equal(parameter, model.model.get_parameter(name))


def test_auto_classes_find_the_models(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    register()
    tiny.model(num_labels=3).save_pretrained(tmp_path)
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path), NautileForCausalLM)
    assert isinstance(AutoModelForSequenceClassification.from_pretrained(tmp_path), NautileForSequenceClassification)
    assert isinstance(AutoModel.from_pretrained(tmp_path), NautileModel)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("masked", [True, False])
def test_labels_of_texts_do_not_depend_on_padding(pooling: str, side: str, masked: bool) -> None:
    """Pitfalls 15 and 21; without a mask padding is told by its id."""
    model = tiny.model(NautileForSequenceClassification, num_labels=3, pooling=pooling)
    rows = [tokens(n, seed=n) for n in (1, 2, 9, CHUNK + 6)]
    ids, mask = pad(rows, side, filler=7 if masked else 0)
    with torch.no_grad():
        got = model(ids, attention_mask=mask if masked else None).logits
        close(got, torch.cat([model(row[None]).logits for row in rows]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_last_takes_the_rightmost_real_token(dtype: torch.dtype) -> None:
    """Pitfall 21: pads left, right and inside, long rows in eight bits too; a row of pads gives zeros."""
    hidden = torch.randn(4, 600, 8, dtype=dtype)
    mask = torch.ones(4, 600, dtype=torch.long)
    mask[0, :590], mask[1, 517:], mask[2, 301:599], mask[3] = 0, 0, 0, 0
    got = pool(hidden, mask, "last")
    assert got.dtype == dtype
    assert torch.equal(got, torch.stack([hidden[0, 599], hidden[1, 516], hidden[2, 599], torch.zeros(8, dtype=dtype)]))
    assert torch.equal(pool(hidden, None, "last"), hidden[:, -1])


def test_mean_is_over_real_tokens_and_exact_in_bf16() -> None:
    hidden, mask = torch.randn(3, 600, 8), torch.zeros(3, 600, dtype=torch.long)
    mask[0, 300:], mask[1, :299] = 1, 1
    want = torch.stack([hidden[0, 300:].mean(0), hidden[1, :299].mean(0), torch.zeros(8)])
    close(pool(hidden, mask, "mean"), want)
    close(pool(hidden, None, "mean"), hidden.mean(1))
    low = hidden.to(torch.bfloat16)
    assert torch.equal(pool(low, mask, "mean"), pool(low.float(), mask, "mean").to(torch.bfloat16))


def test_several_labels_a_text() -> None:
    model = tiny.model(NautileForSequenceClassification, num_labels=4, problem_type="multi_label_classification")
    labels = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1]])
    out = model(tokens(2, 6), labels=labels)
    close(out.loss, nn.functional.binary_cross_entropy_with_logits(out.logits, labels))
    out.loss.backward()
    assert model.score.weight.grad.abs().max() > 0


def test_one_label_a_text_and_a_number() -> None:
    model = tiny.model(NautileForSequenceClassification, num_labels=3)
    labels = torch.tensor([2, 0])
    out = model(tokens(2, 6), labels=labels)
    close(out.loss, nn.functional.cross_entropy(out.logits, labels))
    model = tiny.model(NautileForSequenceClassification, num_labels=1)
    values = torch.tensor([0.5, -1.0])
    out = model(tokens(2, 6), labels=values)
    close(out.loss, (out.logits[:, 0] - values).square().mean())


def test_loss_can_be_divided_by_the_tokens_of_all_accumulated_batches() -> None:
    """Trainer passes num_items_in_batch."""
    model, ids = tiny.model(), tokens(2, 6)
    mean, divided = (model(ids, labels=ids, num_items_in_batch=n).loss for n in (None, 40))
    close(divided, mean * 10 / 40)


def test_only_the_last_logits_are_made_if_asked() -> None:
    model, ids = tiny.model(), tokens(2, 6)
    close(model(ids, logits_to_keep=2).logits, model(ids).logits[:, -2:])
    close(model(ids, logits_to_keep=torch.tensor([1, 3])).logits, model(ids).logits[:, [1, 3]])


@pytest.mark.parametrize("kind", [*HEADS, NautileModel])
def test_outputs_can_be_tuples(kind: type) -> None:
    model, ids = tiny.model(kind), tokens(2, 6)
    out = model(ids, return_dict=False)
    assert isinstance(out, tuple)
    assert torch.equal(out[0], model(ids)[0])
    model.config.return_dict = False
    assert torch.equal(model(ids)[0], out[0])


@pytest.mark.parametrize(("kind", "task"), list(zip(HEADS, ["CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS"], strict=True)))
def test_peft_wraps_every_head(kind: type, task: str) -> None:
    peft = pytest.importorskip("peft")
    targets = ["in_proj", "gate_proj", "out_proj", "q_proj", "k_proj", "v_proj", "ff_in", "ff_out"]
    adapter = peft.LoraConfig(task_type=task, target_modules=targets, r=2, init_lora_weights=False)
    ids = tokens(2, 6)
    labels = {"CAUSAL_LM": ids, "SEQ_CLS": torch.tensor([0, 1]), "TOKEN_CLS": ids % 2}[task]
    model = tiny.model(kind)
    plain = model(ids).logits
    wrapped = peft.get_peft_model(model, adapter)
    out = wrapped(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    out.loss.backward()
    adapted = {name: p.grad for name, p in wrapped.named_parameters() if "lora_" in name}
    assert len(adapted) == 2 * (2 * 3 + 4 + 2)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in adapted.values())
    assert not torch.allclose(out.logits, plain)
    with wrapped.disable_adapter():
        close(wrapped(input_ids=ids).logits, plain)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pipeline_classifies_texts_in_batches(side: str) -> None:
    """Pitfall 21, as users meet it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, pipeline

    register()
    words = {f"w{n}": n for n in range(tiny.VOCAB)}
    plain = Tokenizer(models.WordLevel(words, unk_token="w1"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="w0", padding_side=side, model_input_names=["input_ids", "attention_mask"]
    )
    model = tiny.model(NautileForSequenceClassification, pooling="last")
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    texts = ["w5 w6 w7 w8", "w9", "w3 w4"]
    for together, text in zip(classify(texts, batch_size=3), texts, strict=True):
        (single,) = classify(text)
        assert together["label"] == single["label"]
        assert together["score"] == pytest.approx(single["score"], abs=1e-5)


@pytest.mark.parametrize("kind", [NautileModel, NautileForSequenceClassification])
def test_only_language_models_are_taken_for_such(kind: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    register()
    tiny.model(kind).save_pretrained(tmp_path / "other")
    for loader in (AutoModelForCausalLM, NautileForCausalLM):
        with pytest.raises(NautileError, match=f"a {kind.__name__}, no language model"):
            loader.from_pretrained(tmp_path / "other")
    tiny.model(NautileForCausalLM).save_pretrained(tmp_path / "own")
    named = NautileForCausalLM.from_pretrained(
        pretrained_model_name_or_path=tmp_path / "own", config=str(tmp_path / "own"), output_loading_info=True
    )
    assert isinstance(named[0], NautileForCausalLM)


def test_texts_are_cut_as_before_where_the_embedding_was_resized(tmp_path: Path) -> None:
    model = tiny.model(NautileForCausalLM, vocab_size=300)
    model.resize_token_embeddings(300, pad_to_multiple_of=64)
    assert (model.config.vocab_size, vocabulary_of(model.config).size) == (320, 300)
    save(model, tmp_path)
    again = NautileForCausalLM.from_pretrained(tmp_path)
    assert (again.lm_head.weight.shape[0], vocabulary_of(again.config).ranks) == (320, 292)
    again.resize_token_embeddings(300)
    assert again.config.vocab_size == 300
    with pytest.raises(NautileError, match="299 tokens are fewer than the vocabulary's 300"):
        again.resize_token_embeddings(299)
    with pytest.raises(NautileError, match="293 ranks leave no room for control ids"):
        NautileConfig(vocab_size=300, ranks=293)
