"""The model in Flax (nnx), parameter for parameter the PyTorch one's. Letters: `nautile/model/architecture.py`.

Rows hold packed documents: `document_BL` numbers them 1, 2, 3, … in the order of the row, padding (0) comes last.
Parameters are float32; activations are computed in `dtype`, sums, norms and softmax in float32. Every parameter names
its logical axes (metadata `axes`), which `sharding.py` maps to the mesh.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from nautile.errors import NautileError
from nautile.model.architecture import (
    ANCHOR_START,
    DECAY_START,
    EMBEDDING_STD,
    QK_EPS,
    THETA_MAX,
    THETA_MIN,
    Architecture,
)
from nautile.pretraining import spectral

GATED_NORM_EPS = 1e-6

Remat = Literal["none", "dots", "blocks"]
"""What the backward pass computes again: nothing; all but matrix products; whole blocks."""

_KEPT = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "blocks": jax.checkpoint_policies.nothing_saveable,
}


class Layout(NamedTuple):
    """Where the tokens of a row stand: document numbers and positions from each document's start, (B,L)."""

    document_BL: Array
    position_BL: Array


def lay_out(document_BL: Array) -> Layout:
    """Positions from document numbers; trailing padding counts as part of the last document."""
    document_BL = jax.lax.cummax(document_BL, axis=1)
    step_L = jnp.arange(document_BL.shape[1])
    first_BL = jnp.pad(document_BL[:, 1:] != document_BL[:, :-1], [(0, 0), (1, 0)], constant_values=True)
    start_BL = jax.lax.cummax(jnp.where(first_BL, step_L, 0), axis=1)
    return Layout(document_BL, step_L - start_BL)


def _normal(std: float, *axes: str | None) -> nnx.Initializer:
    return nnx.with_metadata(nnx.initializers.normal(std), axes=axes)


def linear(
    fan_in: int, fan_out: int, axes: tuple[str | None, str | None], dtype: Any, rngs: nnx.Rngs,
    bias: bool = False, branch_ends: int = 1,
) -> nnx.Linear:  # fmt: skip
    """A projection that keeps its input's scale; `branch_ends` (twice the depth) shrinks those that end a branch."""
    init = _normal((fan_in * branch_ends) ** -0.5, *axes)
    zeros = nnx.with_metadata(nnx.initializers.zeros, axes=axes[1:])
    return nnx.Linear(fan_in, fan_out, use_bias=bias, kernel_init=init, bias_init=zeros, dtype=dtype, rngs=rngs)


def rms_norm(x: Array, eps: float) -> Array:
    """To unit mean square over the last axis, in float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)


class RMSNorm(nnx.Module):
    """RMS norm with a learned scale; the result has the input's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        self.scale = nnx.Param(jnp.ones(width), axes=("embed",))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        """The same shape in and out."""
        return (rms_norm(x, self.eps) * self.scale[...]).astype(x.dtype)


def causal_conv(z_BLP: Array, kernel_cP: Array, document_BL: Array) -> Array:
    """Depthwise convolution over the last c tokens; a tap that would reach into another document reads zero."""
    c = kernel_cP.shape[0]
    out = z_BLP * kernel_cP[c - 1]
    for back in range(1, c):
        shifted = jnp.pad(z_BLP, [(0, 0), (back, 0), (0, 0)])[:, :-back]
        same = jnp.pad(document_BL, [(0, 0), (back, 0)], constant_values=-1)[:, :-back] == document_BL
        out = out + jnp.where(same[..., None], shifted, 0) * kernel_cP[c - 1 - back]
    return out


class SCA(nnx.Module):
    """SeqCond Attention, D to D. Paper: Algorithm 1."""

    def __init__(self, a: Architecture, dtype: Any, rngs: nnx.Rngs) -> None:
        self.architecture, self.dtype = a, dtype
        K, Q, H, M = a.memory_heads, a.query_heads, a.head_width, a.spectral_points
        J, R = 2 * H, 2 * a.readout_expand * H

        def param(value: np.ndarray | Array, *axes: str | None) -> nnx.Param:
            return nnx.Param(jnp.asarray(value, jnp.float32), axes=axes)

        def normal(std: float, *shape: int) -> Array:
            return jax.random.normal(rngs.params(), shape) * std

        self.in_proj = linear(a.d_model, a.projection_width, ("embed", "heads"), dtype, rngs)
        self.conv = param(normal((2 / a.conv_kernel) ** 0.5, a.conv_kernel, a.projection_width), None, "heads")
        self.theta_raw = param(np.broadcast_to(_theta_start(a), (K, H, M)), "heads", None, None)
        self.w_int_raw = param(np.zeros((Q, K // Q, H, M)), "heads", None, None, None)
        self.decay_slopes = param(_softplus_inverse(np.geomspace(*DECAY_START, K - a.anchor_heads)), None)
        self.anchor_slopes = nnx.data(
            param(_softplus_inverse(np.geomspace(*ANCHOR_START, a.anchor_heads)), None) if a.anchor_heads else None
        )
        self.score_scale, self.score_bias = param(np.ones(K), None), param(np.zeros(K), None)
        self.phase_scale = param(np.ones(K), None)
        self.gate_proj = linear(a.d_model, K * J, ("embed", "heads"), dtype, rngs)
        self.gated_norm = param(np.ones(K * J), "heads")
        self.readout = param(normal(J**-0.5, K, J, R), "heads", None, None)
        self.out_proj = linear(
            a.readout_width, a.d_model, ("heads", "embed"), dtype, rngs, branch_ends=2 * a.num_layers
        )

    def __call__(self, x_BLD: Array, layout: Layout) -> Array:
        """Mix the tokens of x (the block's normed input) causally within their documents."""
        k_BLKH, s_BLK, q_BLQHM2 = self._project(x_BLD, layout.document_BL)
        w_BLK = self._weights(s_BLK, layout.position_BL)
        o_BLKJ, _ = spectral.sca_chunked(k_BLKH, w_BLK, q_BLQHM2, self.spectrum(), layout.document_BL)
        return self._fuse(o_BLKJ, x_BLD)

    def spectrum(self) -> spectral.Spectrum:
        """θ, ω, η and the fading of the sums, derived from the parameters."""
        a = self.architecture
        slopes_K = jax.nn.softplus(self.decay_slopes[...])
        fade_K = slopes_K if a.decay == "relative" else jnp.zeros_like(slopes_K)
        omega = spectral.quadrature(self.w_int_raw[...])
        return spectral.Spectrum(
            self.phase_scale[...],
            spectral.spectral_grid(self.theta_raw[...]),
            omega.reshape(-1, *omega.shape[2:]),
            jnp.pad(fade_K, (0, a.anchor_heads)),
        )

    def _project(self, x_BLD: Array, document_BL: Array) -> tuple[Array, Array, Array]:
        a = self.architecture
        K, H = a.memory_heads, a.head_width
        z_BLP = self.in_proj(x_BLD)
        mixed = jax.nn.silu(causal_conv(z_BLP, self.conv[...].astype(z_BLP.dtype), document_BL))
        k, s, q = jnp.split(mixed, [K * H, K * H + K], axis=-1)
        B, L = s.shape[:2]
        return k.reshape(B, L, K, H), s, q.reshape(B, L, a.query_heads, H, a.spectral_points, 2)

    def _weights(self, s_BLK: Array, position_BL: Array) -> Array:
        a = self.architecture
        gate_BLK = spectral.content_gate(s_BLK, self.score_scale[...], self.score_bias[...])
        decaying, anchored = jnp.split(gate_BLK, [a.memory_heads - a.anchor_heads], axis=-1)
        if a.decay == "boundary":
            slopes_K = jax.nn.softplus(self.decay_slopes[...])
            decaying = spectral.boundary_weights(decaying, slopes_K, position_BL, a.maxlen, a.clip_weights)
        if self.anchor_slopes is None:
            return decaying
        slopes_K = jax.nn.softplus(self.anchor_slopes[...])
        anchored = spectral.anchor_weights(anchored, slopes_K, position_BL, a.clip_weights)
        return jnp.concatenate([decaying, anchored], axis=-1)

    def _fuse(self, o_BLKJ: Array, x_BLD: Array) -> Array:
        B, L, K, J = o_BLKJ.shape
        gate = self.gate_proj(x_BLD)
        gated = o_BLKJ.reshape(B, L, K * J) * jax.nn.silu(gate.astype(jnp.float32))
        o = (rms_norm(gated, GATED_NORM_EPS) * self.gated_norm[...]).astype(gate.dtype).reshape(B, L, K, J)
        y = jnp.einsum("blkj,kjr->blkr", o, self.readout[...].astype(o.dtype))
        v, g = jnp.split(y, 2, axis=-1)
        return self.out_proj((v * jax.nn.sigmoid(g)).reshape(B, L, -1))


def _softplus_inverse(x: np.ndarray) -> np.ndarray:
    return x + np.log(-np.expm1(-x))


def _theta_start(a: Architecture) -> np.ndarray:
    """θ geometric over the spectral points, or over the heads where there is one point."""
    if a.spectral_points > 1:
        return _softplus_inverse(np.geomspace(THETA_MIN, THETA_MAX, a.spectral_points))
    grid = np.geomspace(THETA_MIN, THETA_MAX, a.memory_heads)
    share = ((grid - THETA_MIN) / (THETA_MAX - THETA_MIN)).clip(1e-4, 1 - 1e-4)
    return np.log(share / (1 - share))[:, None, None]


def rotate(x_BLNE: Array, position_BL: Array, base: float) -> Array:
    """Rotary embedding, first half with second half, then unit RMS over the head (no learned scale)."""
    E = x_BLNE.shape[-1]
    frequency = base ** -(jnp.arange(0, E, 2, dtype=jnp.float32) / E)
    angle = position_BL[..., None, None].astype(jnp.float32) * frequency
    first, second = jnp.split(x_BLNE.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rms_norm(turned, QK_EPS).astype(x_BLNE.dtype)


class Attention(nnx.Module):
    """Grouped-query causal attention within documents, D to D."""

    def __init__(self, a: Architecture, dtype: Any, rngs: nnx.Rngs) -> None:
        self.architecture = a
        inner, kv = a.num_heads * a.attention_width, a.num_kv_heads * a.attention_width
        self.q_proj = linear(a.d_model, inner, ("embed", "heads"), dtype, rngs)
        self.k_proj = linear(a.d_model, kv, ("embed", "heads"), dtype, rngs)
        self.v_proj = linear(a.d_model, kv, ("embed", "heads"), dtype, rngs)
        self.out_proj = linear(inner, a.d_model, ("heads", "embed"), dtype, rngs, branch_ends=2 * a.num_layers)

    def __call__(self, x_BLD: Array, layout: Layout) -> Array:
        """Mix the tokens of x (the block's normed input)."""
        B, L = x_BLD.shape[:2]
        heads = (B, L, -1, self.architecture.attention_width)
        q, k, v = (project(x_BLD).reshape(heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        base = self.architecture.rope_base
        q, k = rotate(q, layout.position_BL, base), rotate(k, layout.position_BL, base)
        same = layout.document_BL[:, None, :, None] == layout.document_BL[:, None, None, :]
        y = jax.nn.dot_product_attention(q, k, v, mask=same, is_causal=True)
        return self.out_proj(y.reshape(B, L, -1))


class FeedForward(nnx.Module):
    """`ff_out(silu(v) · u)` with `u, v = ff_in(x)`; both projections have biases."""

    def __init__(self, a: Architecture, dtype: Any, rngs: nnx.Rngs) -> None:
        depth = 2 * a.num_layers
        self.ff_in = linear(a.d_model, 2 * a.d_ff, ("embed", "mlp"), dtype, rngs, bias=True)
        self.ff_out = linear(a.d_ff, a.d_model, ("mlp", "embed"), dtype, rngs, bias=True, branch_ends=depth)

    def __call__(self, x: Array) -> Array:
        """The same width in and out."""
        u, v = jnp.split(self.ff_in(x), 2, axis=-1)
        return self.ff_out(jax.nn.silu(v) * u)


class SCABlock(nnx.Module):
    """`x + SCA(norm(x))`."""

    def __init__(self, a: Architecture, dtype: Any, rngs: nnx.Rngs) -> None:
        self.norm = RMSNorm(a.d_model, a.norm_eps)
        self.sca = SCA(a, dtype, rngs)

    def __call__(self, x_BLD: Array, layout: Layout) -> Array:
        """One layer."""
        return x_BLD + self.sca(self.norm(x_BLD), layout)


class AttentionBlock(nnx.Module):
    """`x + attention(norm1(x))`, then `x + feed_forward(norm2(x))`."""

    def __init__(self, a: Architecture, dtype: Any, rngs: nnx.Rngs) -> None:
        self.norm1 = RMSNorm(a.d_model, a.norm_eps)
        self.attention = Attention(a, dtype, rngs)
        self.norm2 = RMSNorm(a.d_model, a.norm_eps)
        self.feed_forward = FeedForward(a, dtype, rngs)

    def __call__(self, x_BLD: Array, layout: Layout) -> Array:
        """One layer."""
        x_BLD = x_BLD + self.attention(self.norm1(x_BLD), layout)
        return x_BLD + self.feed_forward(self.norm2(x_BLD))


class NautileLM(nnx.Module):
    """Next-token logits; input and output embedding are one."""

    def __init__(self, a: Architecture, rngs: nnx.Rngs, dtype: Any = jnp.float32, remat: Remat = "none") -> None:
        if a.pairs:
            raise NautileError(f"vectors of token pairs (pairs={a.pairs}) are not to be had in JAX")
        self.architecture, self.dtype, self.remat = a, dtype, remat
        self.embed = nnx.Param(jax.random.normal(rngs.params(), (a.vocab_size, a.d_model)) * EMBEDDING_STD,
                               axes=("vocab", "embed"))  # fmt: skip
        kinds = {"sca": SCABlock, "attention": AttentionBlock}
        self.blocks = nnx.List([kinds[kind](a, dtype, rngs) for kind in a.layer_kinds])
        self.norm = nnx.data(RMSNorm(a.d_model, a.norm_eps) if a.final_norm else None)

    def __call__(
        self,
        ids_BL: Array,
        document_BL: Array | None = None,
        place: Callable[[Array], Array] = lambda x_BLD: x_BLD,
    ) -> Array:
        """Logits (B,L,V), float32. Without `document_BL` every row is one document.

        `place` says between the layers where on a mesh the activations live.
        """
        layout = lay_out(jnp.ones_like(ids_BL) if document_BL is None else document_BL)
        table = self.embed[...].astype(self.dtype)
        x_BLD = place(table[ids_BL])
        for block in self.blocks:
            run = type(block).__call__
            if self.remat != "none":
                run = nnx.remat(run, policy=_KEPT[self.remat])
            x_BLD = place(run(block, x_BLD, layout))
        if self.norm is not None:
            x_BLD = self.norm(x_BLD)
        return jnp.einsum("bld,vd->blv", x_BLD, table, preferred_element_type=jnp.float32)
