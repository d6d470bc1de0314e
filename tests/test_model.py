"""The whole model: its size, its equations, how it starts, how it is stored and trained, and what it refuses."""

from pathlib import Path
from typing import Any

import oracle
import pytest
import tiny
import torch
from tiny import BOUNDARY, RELATIVE, UNCLIPPED, close, pad, tokens
from torch import nn

from nautile.errors import NautileError
from nautile.model.config import NautileConfig
from nautile.model.heads import (
    NautileForCausalLM,
    NautileForSequenceClassification,
    NautileForTokenClassification,
)
from nautile.model.model import NautileModel
from nautile.model.spectral import CHUNK

HEADS = [NautileForCausalLM, NautileForSequenceClassification, NautileForTokenClassification]
EQUATIONS: dict[str, dict[str, Any]] = {
    "relative": RELATIVE,
    "boundary": BOUNDARY,
    "unclipped": UNCLIPPED,
    "past-maxlen": {**BOUNDARY, "maxlen": 10},
    "one-point": {"spectral_points": 1},
    "three-points": {"spectral_points": 3, "query_heads": 4},
    "one-query-head": {"query_heads": 1, "final_norm": False},
    "anchors": {"anchor_heads": 2},
    "anchors-boundary": {**BOUNDARY, "anchor_heads": 1},
    "only-anchors": {"anchor_heads": 4},
    "conv-of-one": {"conv_kernel": 1},
    "widths": {"conv_kernel": 2, "expand": 1.5, "readout_expand": 2, "num_kv_heads": 1},
    "six-layers": {**BOUNDARY, "num_layers": 6},
}


def doubles(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().double().requires_grad_() for name, p in model.named_parameters()}


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_nautile_370m_has_exactly_the_papers_parameters() -> None:
    with torch.device("meta"):
        model = NautileForCausalLM(NautileConfig.preset("nautile-370m"))
    assert size(model) == 371_901_088
    assert size(model.get_input_embeddings()) == 102_707_200
    sizes = [size(block) for block in model.model.blocks]
    assert sizes == [11_316_352, 11_316_352, 11_016_532] * 8


def test_nautile_370m_has_the_released_shapes() -> None:
    with torch.device("meta"):
        sca, _, attention = NautileModel(NautileConfig.preset("nautile-370m", num_layers=3)).blocks
    shapes = {name: tuple(p.shape) for name, p in [*sca.named_parameters(), *attention.named_parameters()]}
    assert shapes["sca.in_proj.weight"] == (5136, 1024)
    assert shapes["sca.conv_weight"] == (5136, 1, 4)
    assert shapes["sca.theta_raw"] == (16, 64, 2)
    assert shapes["sca.readout"] == (16, 128, 384)
    assert shapes["sca.out_proj.weight"] == (1024, 3072)
    assert shapes["feed_forward.ff_in.weight"] == (5460, 1024)
    assert shapes["attention.k_proj.weight"] == (256, 1024)


@pytest.mark.parametrize("name", EQUATIONS)
def test_logits_follow_the_equations(name: str) -> None:
    """Against a second implementation in float64, written from the equations alone."""
    model, ids = tiny.model(**EQUATIONS[name]), tokens(2, 20)
    with torch.no_grad():
        got = model(ids).logits
        want = torch.stack([oracle.logits(doubles(model), model.config, row) for row in ids])
    close(got, want.float())


@pytest.mark.parametrize("name", ["relative", "boundary", "three-points", "anchors-boundary"])
def test_gradients_follow_the_equations(name: str) -> None:
    model, ids = tiny.model(**EQUATIONS[name]), tokens(12)
    exact = doubles(model)
    oracle.logits(exact, model.config, ids).square().mean().backward()
    model(ids[None]).logits.square().mean().backward()
    for parameter, p in model.named_parameters():
        close(p.grad, exact[parameter].grad.float(), parameter)


def test_decays_agree_without_clip_and_differ_with_it() -> None:
    """decay="boundary" without clip is decay="relative" while the sums stay above the floor."""
    relative, unclipped, clipped = (tiny.model(**changes) for changes in (RELATIVE, UNCLIPPED, BOUNDARY))
    ids = tokens(2, 90)
    with torch.no_grad():
        for model in (relative, unclipped, clipped):
            for block in model.model.blocks[:2]:
                block.sca.decay_slopes.copy_(torch.tensor([-7.0, -6.0, -5.0, -4.0]))
        close(unclipped(ids).logits, relative(ids).logits)
        for model in (relative, clipped):
            for block in model.model.blocks[:2]:
                block.sca.decay_slopes.fill_(-2.0)
        assert (clipped(ids).logits - relative(ids).logits).abs().max() > 0.1


def test_weights_of_anchors_are_clipped_too() -> None:
    model, ids = tiny.model(**BOUNDARY, anchor_heads=2), tokens(20)
    with torch.no_grad():
        for block in model.model.blocks[:2]:
            block.sca.anchor_slopes.copy_(torch.tensor([0.5, 2.0]))
        close(model(ids[None]).logits[0], oracle.logits(doubles(model), model.config, ids).float())


def test_parameters_start_as_the_architecture_says() -> None:
    model = NautileForCausalLM(tiny.config(anchor_heads=1))
    layer = model.model.blocks[0].sca
    close(nn.functional.softplus(layer.decay_slopes), torch.tensor([0.001, 0.01, 0.1]))
    close(nn.functional.softplus(layer.anchor_slopes), torch.tensor([0.01]))
    spectrum = layer.spectrum()
    close(spectrum.theta_KHM[..., -1], torch.full_like(spectrum.theta_KHM[..., -1], 3.0))
    close(spectrum.omega_KHM, torch.full_like(spectrum.omega_KHM, 0.5))
    assert spectrum.fade_K[-1] == 0
    single = NautileModel(tiny.config(spectral_points=1)).blocks[0].sca.spectrum().theta_KHM
    assert 0.001 < single.min() < 0.002
    assert 2.99 < single.max() <= 3.0


@pytest.mark.parametrize("kind", HEADS)
def test_end_of_a_residual_branch_starts_small(kind: type) -> None:
    """Pitfall 20: post_init() ran, children before parents."""
    model = kind(tiny.config(d_model=128, d_ff=256, num_layers=6))
    for name, parameter in model.named_parameters():
        if name.endswith(("out_proj.weight", "ff_out.weight")):
            assert parameter.std().item() == pytest.approx((12 * parameter.shape[1]) ** -0.5, rel=0.1)
    assert model.get_input_embeddings().weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_input_and_output_embedding_are_one(tmp_path: Path) -> None:
    """Pitfall 20: tied after construction, after loading and after resizing."""
    model = tiny.model()
    assert isinstance(NautileForCausalLM._tied_weights_keys, dict)
    model.save_pretrained(tmp_path)
    loaded = NautileForCausalLM.from_pretrained(tmp_path)
    for one in (model, loaded):
        assert one.lm_head.weight is one.model.embed_tokens.weight
    ids = tokens(1, 5)
    before = model(ids).logits
    model.resize_token_embeddings(tiny.VOCAB + 6)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.vocab_size == tiny.VOCAB + 6
    close(model(ids).logits[..., : tiny.VOCAB], before)
    assert model(ids, labels=torch.full_like(ids, tiny.VOCAB + 5)).loss.isfinite()


@pytest.mark.parametrize("kind", [*HEADS, NautileModel])
@pytest.mark.parametrize("changes", [{**BOUNDARY, "anchor_heads": 1, "num_labels": 3}, {"spectral_points": 1}])
def test_stored_and_loaded_models_are_equal(kind: type, changes: dict[str, Any], tmp_path: Path) -> None:
    """Pitfalls 18 and 20: nothing is missing, nothing is left over, nothing starts anew."""
    model = tiny.model(kind, **changes)
    model.save_pretrained(tmp_path)
    loaded, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert loaded.config.architecture() == model.config.architecture()
    with torch.no_grad():
        assert torch.equal(loaded(tokens(2, 9))[0], model(tokens(2, 9))[0])


def test_state_dict_holds_parameters_only() -> None:
    """Pitfall 18: no caches, before or after use."""
    model = tiny.model()
    model(tokens(2, 9), use_cache=True)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters(remove_duplicate=False)}
    assert not list(model.named_buffers())


@pytest.mark.parametrize("changes", [BOUNDARY, {"anchor_heads": 1}], ids=["boundary", "anchors"])
def test_a_parameter_changed_in_place_counts_at_once(changes: dict[str, Any]) -> None:
    """Pitfall 18: θ, ω, λ and all others are read anew at each call, also by a step from an old state."""
    model, ids = tiny.model(**changes), tokens(1, 9)
    model(ids)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            state = model(ids, use_cache=True).cache
            old = model(ids).logits, model(ids[:, :1], cache=state.snapshot()).logits
            parameter.add_(torch.linspace(0.1, 0.3, parameter.numel()).view_as(parameter))
            new = model(ids).logits, model(ids[:, :1], cache=state.snapshot()).logits
        assert not torch.equal(old[0], new[0]), name
        stored = "decay_slopes" in name and model.config.decay == "relative"
        assert stored or not torch.equal(old[1], new[1]), name


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("changes", [RELATIVE, BOUNDARY], ids=["relative", "boundary"])
def test_gradient_checkpointing_gives_equal_gradients(changes: dict[str, Any], reentrant: bool) -> None:
    """Pitfall 19: with padding, over two chunks (which are recomputed themselves)."""
    ids, mask = pad([tokens(CHUNK + 6), tokens(3)], "left")
    labels = ids.masked_fill(mask == 0, -100)
    gradients = []
    for checkpointing in (False, True):
        model = tiny.model(**changes).train()
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
        model(ids, attention_mask=mask, labels=labels).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, want in gradients[0].items():
        close(gradients[1][name], want, name)


def test_checkpointed_layers_are_really_recomputed() -> None:
    model, calls = tiny.model().train(), []
    model.model.blocks[0].sca.register_forward_pre_hook(lambda *_: calls.append(1))
    model.activation_checkpointing_enable()
    model(tokens(1, 5), labels=tokens(1, 5)).loss.backward()
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": "none"}, "decay must be"),
        ({"clip_weights": True}, "clip_weights needs"),
        ({"query_heads": 3}, "multiple of query_heads"),
        ({"num_kv_heads": 3}, "multiple of num_kv_heads"),
        ({"d_model": 36}, "even multiple of num_heads"),
        ({"anchor_heads": 5}, "anchor_heads must lie"),
        ({"pooling": "max"}, "pooling must be one of"),
    ],
)
def test_contradictory_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NautileError, match=message):
        tiny.config(**changes)


def test_inputs_that_make_no_sense_are_refused() -> None:
    model, ids = tiny.model(), tokens(2, 3)
    with pytest.raises(NautileError, match="either input_ids or inputs_embeds"):
        model()
    with pytest.raises(NautileError, match="no tokens"):
        model(ids[:, :0])
    with pytest.raises(NautileError, match="attention_mask must have shape"):
        model(ids, attention_mask=torch.ones(2, 2))
