"""One model in two frameworks: PyTorch → JAX → PyTorch is exact, logits and gradients agree. Pitfall 22."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from nautile.errors import NautileError
from nautile.model.architecture import Architecture, preset
from nautile.model.config import NautileConfig
from nautile.model.heads import NautileForCausalLM
from nautile.pretraining import spectral
from nautile.pretraining.convert import from_torch, to_torch
from nautile.pretraining.model import SCA, NautileLM, Remat

TINY = {"vocab_size": 64, "d_model": 32, "num_layers": 3, "d_ff": 40, "memory_heads": 4, "query_heads": 4}
VARIANTS = {
    "relative": {},
    "boundary": {"decay": "boundary", "clip_weights": True, "final_norm": False, "maxlen": 64},
    "one point, shared queries, anchors": {"spectral_points": 1, "query_heads": 2, "anchor_heads": 1},
}
TOLERANCE = 1e-4


@nnx.jit
def logits_of(model: NautileLM, ids: jax.Array, segments: jax.Array) -> jax.Array:
    return model(ids, segments)


@nnx.jit
def gradients_of(model: NautileLM, ids: jax.Array, segments: jax.Array, weights: jax.Array) -> nnx.State:
    return nnx.grad(lambda model: (model(ids, segments) * weights).sum())(model)


SLOW = {name: [pytest.mark.slow] * (name != "relative") for name in VARIANTS}  # of compiling


@pytest.fixture(params=[pytest.param(name, marks=SLOW[name], id=name) for name in VARIANTS], scope="module")
def pair(request: pytest.FixtureRequest) -> tuple[NautileForCausalLM, NautileLM]:
    config = NautileConfig.preset("nautile-mini", **{**TINY, **VARIANTS[request.param]})
    ours = NautileForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    theirs = NautileLM(Architecture(**config.architecture()), nnx.Rngs(0))
    from_torch(theirs, ours.state_dict())
    return ours, theirs


def documents(packed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(8, 64, (2, 150))
    segments = torch.ones_like(ids)
    if packed:
        segments[0, 70:], segments[1, 5:], segments[1, 140:] = 2, 2, 0
    return ids, segments


def loss_weights(segments: torch.Tensor) -> torch.Tensor:
    return torch.randn(*segments.shape, 64) * (segments > 0)[..., None]


@pytest.mark.parametrize("packed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_logits_and_gradients_agree(pair: tuple[NautileForCausalLM, NautileLM], packed: bool) -> None:
    ours, theirs = pair
    ids, segments = documents(packed)
    weights = loss_weights(segments) / segments.numel()
    logits = ours(ids, segment_ids=segments).logits
    ours.zero_grad()
    (logits * weights).sum().backward()
    arrays = [jnp.asarray(tensor.numpy()) for tensor in (ids, segments, weights)]
    real = segments.numpy() > 0
    np.testing.assert_allclose(
        np.asarray(logits_of(theirs, *arrays[:2]))[real], logits.detach().numpy()[real], atol=TOLERANCE
    )
    holder = nnx.clone(theirs)
    nnx.update(holder, gradients_of(theirs, *arrays))
    for name, gradient in to_torch(holder).items():
        expected = dict(ours.named_parameters())[name].grad
        assert expected is not None, name
        assert expected.abs().max() > 0, name
        np.testing.assert_allclose(gradient, expected, atol=TOLERANCE)


def test_there_and_back_is_exact(pair: tuple[NautileForCausalLM, NautileLM]) -> None:
    ours, theirs = pair
    tensors = {name: tensor for name, tensor in ours.state_dict().items() if name != "lm_head.weight"}
    back = to_torch(theirs)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_a_tensor_that_does_not_fit_is_named(pair: tuple[NautileForCausalLM, NautileLM]) -> None:
    ours, theirs = pair
    tensors = ours.state_dict()
    tensors["extra"] = tensors.pop("model.blocks.0.norm.weight")
    tensors["model.blocks.2.norm2.weight"] = torch.ones(3)
    with pytest.raises(NautileError, match=r"missing model\.blocks\.0\.norm\.weight.*norm2.*\(3,\).*unexpected extra"):
        from_torch(theirs, tensors)


@pytest.mark.slow
def test_a_document_is_the_same_alone_and_packed_behind_another(pair: tuple[NautileForCausalLM, NautileLM]) -> None:
    _, model = pair
    ids = jax.random.randint(jax.random.key(0), (1, 150), 8, 64)
    packed = logits_of(model, ids, jnp.where(jnp.arange(150) < 75, 1, 2)[None])
    for part in (slice(0, 75), slice(75, 150)):
        alone = logits_of(model, ids[:, part], jnp.ones((1, 75), jnp.int32))
        np.testing.assert_allclose(packed[:, part], alone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["dots", "blocks"])
def test_remat_changes_nothing(policy: Remat) -> None:
    ids, segments = jax.random.randint(jax.random.key(0), (2, 20), 8, 64), jnp.ones((2, 20), jnp.int32)
    architecture = Architecture(**TINY)
    plain, remat = (NautileLM(architecture, nnx.Rngs(0), remat=remat) for remat in ("none", policy))
    first, second = (gradients_of(model, ids, segments, jnp.full((2, 20, 64), 1 / 2560)) for model in (plain, remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), first, second)


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 63, 65, 130])
def test_chunked_and_step_equal_the_reference(length: int) -> None:
    keys = jax.random.split(jax.random.key(0), 6)
    B, K, H, M = 2, 4, 8, 2
    k, w = jax.random.normal(keys[0], (B, length, K, H)), jax.random.uniform(keys[1], (B, length, K))
    q = jax.random.normal(keys[2], (B, length, 2, H, M, 2))
    theta, omega = (jax.random.uniform(key, (K, H, M)) for key in keys[3:5])
    spectrum = spectral.Spectrum(jnp.ones(K), theta, omega, jax.random.uniform(keys[5], (K,)) * 0.3)
    expected = spectral.sca_reference(k, w, q, spectrum)
    found, sums = jax.jit(partial(spectral.sca_chunked, chunk=64))(k, w, q, spectrum, jnp.ones((B, length), jnp.int32))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    zeros, step = jnp.zeros((B, K, H, M)), jax.jit(spectral.sca_step)
    state, outputs = spectral.Sums(zeros[..., 0, 0], zeros, zeros), []
    for t in range(length):
        now = slice(t, t + 1)
        o, state = step(k[:, now], w[:, now], q[:, now], spectrum, state)
        outputs.append(o)
    np.testing.assert_allclose(jnp.concatenate(outputs, axis=1), expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), sums, state)


def test_the_full_size_has_its_parameters_without_its_memory() -> None:
    architecture = Architecture(**preset("nautile-370m"))
    model = nnx.eval_shape(lambda: NautileLM(architecture, nnx.Rngs(0), dtype=jnp.bfloat16))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert count == 371_901_088
    graph, state = nnx.split(model)
    ids = jax.ShapeDtypeStruct((8, 1024), jnp.int32)
    logits = jax.eval_shape(lambda state, ids: nnx.merge(graph, state)(ids), state, ids)
    assert logits.shape == (8, 1024, 100_300)


@pytest.mark.slow
def test_in_bfloat16_the_sums_stay_float32_and_the_logits_close() -> None:
    architecture = Architecture(**{**TINY, "num_layers": 2, "attention_every": 3})
    exact, rounded = (NautileLM(architecture, nnx.Rngs(0), dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
    ids, one = jax.random.randint(jax.random.key(0), (2, 200), 8, 64), jnp.ones((2, 200), jnp.int32)
    expected, found = logits_of(exact, ids, one), logits_of(rounded, ids, one)
    assert found.dtype == jnp.float32
    error = jnp.abs(found - expected)
    assert error.mean() < 0.02 * expected.std()
    assert error[:, -50:].mean() < 2 * error[:, :50].mean(), "the error grows with the length: a sum was rounded"

    def parts(sca: SCA, x_BLD: jax.Array) -> tuple[jax.Array, ...]:
        k, s, q = sca._project(x_BLD, one)
        weights = sca._weights(s, jnp.arange(200)[None])
        o, sums = spectral.sca_chunked(k, weights, q, sca.spectrum(), one)
        return k, q, weights, o, *sums

    found = nnx.eval_shape(parts, rounded.blocks[0].sca, jax.ShapeDtypeStruct((2, 200, 32), jnp.bfloat16))
    assert [str(leaf.dtype) for leaf in found] == ["bfloat16"] * 2 + ["float32"] * 5


def test_vectors_of_pairs_are_refused() -> None:
    with pytest.raises(NautileError, match="token pairs"):
        NautileLM(Architecture(**{**TINY, "pairs": 3}), nnx.Rngs(0))
