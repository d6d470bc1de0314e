"""SeqCond Attention as pure functions in JAX: the readable reference, the chunked scan, and the step.

Letters and symbols: the tables in `nautile/model/architecture.py` and `nautile/model/spectral.py`, where the same
functions stand in PyTorch. Rows may hold several documents, numbered by `document_BL` in the order of the row; neither
state nor convolution passes from one to the next. All sums are float32, whatever the inputs are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nautile.model.architecture import MASS_FLOOR, THETA_MAX, THETA_MIN, WEIGHT_CLIP

CHUNK = 128


class Sums(NamedTuple):
    """The memory of a prefix: constant in its length. float32."""

    z_BK: Array
    re_BKHM: Array
    im_BKHM: Array


class Spectrum(NamedTuple):
    """What a layer's parameters say about its spectral grid. float32."""

    eta_K: Array
    theta_KHM: Array
    omega_KHM: Array
    fade_K: Array


def spectral_grid(raw_KHM: Array) -> Array:
    """θ in (0.001, 3]: increasing along M, or one bounded point a channel where M = 1."""
    if raw_KHM.shape[-1] == 1:
        return THETA_MIN + (THETA_MAX - THETA_MIN) * jax.nn.sigmoid(raw_KHM)
    steps = jax.nn.softplus(raw_KHM) + 1e-4
    return THETA_MIN + (THETA_MAX - THETA_MIN) * steps.cumsum(-1) / steps.sum(-1, keepdims=True)


def quadrature(raw_KHM: Array) -> Array:
    """ω: positive, summing to one over the spectral points M."""
    positive = jnp.exp(raw_KHM)
    return positive / (positive.sum(-1, keepdims=True) + 1e-6)


def content_gate(s_BLK: Array, scale_K: Array, bias_K: Array) -> Array:
    """softplus(γ s + β), the weight that a token earns by its content. float32."""
    return jax.nn.softplus(scale_K * s_BLK.astype(jnp.float32) + bias_K)


def boundary_weights(gate_BLK: Array, slope_K: Array, positions_BL: Array, maxlen: int, clip: bool) -> Array:
    """Step 2 of the release: the gate times exp(-λ d(t)), d(t) = max(maxlen - 1 - t, 0), then clipped."""
    distance_BL1 = jnp.maximum(maxlen - 1 - positions_BL, 0).astype(jnp.float32)[..., None]
    return _clipped(gate_BLK * jnp.exp(-slope_K * distance_BL1), clip)


def anchor_weights(gate_BLK: Array, slope_K: Array, positions_BL: Array, clip: bool) -> Array:
    """The gate times exp(-λ t): heads that hold on to the beginning of the sequence."""
    return _clipped(gate_BLK * jnp.exp(-slope_K * positions_BL.astype(jnp.float32)[..., None]), clip)


def _clipped(w_BLK: Array, clip: bool) -> Array:
    return jnp.clip(w_BLK, *WEIGHT_CLIP) if clip else w_BLK


def _encode(k_BLKH: Array, w_BLK: Array, spectrum: Spectrum) -> tuple[Array, Array]:
    """Step 3: α k exp(iφ), real and imaginary part (B,L,K,H,M). φ = softsign(η k) · θ."""
    k = k_BLKH.astype(jnp.float32)[..., None]
    phase = jax.nn.soft_sign(spectrum.eta_K[:, None, None] * k) * spectrum.theta_KHM
    weighted = w_BLK[..., None, None] * k
    return weighted * jnp.cos(phase), weighted * jnp.sin(phase)


def _read(sums: Sums, q_BLQHM2: Array, spectrum: Spectrum) -> Array:
    """Step 5 for sums at every token (B,L,…): the Hermitian match, integrated over M. o (B,L,K,2H), float32."""
    z_BLK, re, im = sums
    K, H = re.shape[2], re.shape[3]
    q = jnp.repeat(q_BLQHM2.astype(jnp.float32), K // q_BLQHM2.shape[2], axis=2)
    q_re, q_im = q[..., 0], q[..., 1]
    measure = spectrum.omega_KHM / H**0.5
    mass = jnp.maximum(z_BLK, MASS_FLOOR)[..., None]
    o_re = ((re * q_re + im * q_im) * measure).sum(-1) / mass
    o_im = ((im * q_re - re * q_im) * measure).sum(-1) / mass
    return jnp.concatenate([o_re, o_im], axis=-1)


def sca_reference(
    k_BLKH: Array, w_BLK: Array, q_BLQHM2: Array, spectrum: Spectrum, document_BL: Array | None = None
) -> Array:
    """Steps 3 to 5 by their definition: every token sums over all tokens before it. O(L²), for reading and tests."""
    L = k_BLKH.shape[1]
    re, im = _encode(k_BLKH, w_BLK, spectrum)
    age_LL = jnp.arange(L)[:, None] - jnp.arange(L)
    share_BKLL = (jnp.exp(-spectrum.fade_K[:, None, None] * jnp.maximum(age_LL, 0)) * (age_LL >= 0))[None]
    if document_BL is not None:
        share_BKLL = share_BKLL * (document_BL[:, None, :, None] == document_BL[:, None, None, :])
    share_BKLL = jnp.broadcast_to(share_BKLL, (k_BLKH.shape[0], *share_BKLL.shape[1:]))
    sums = Sums(
        jnp.einsum("bkts,bsk->btk", share_BKLL, w_BLK),
        jnp.einsum("bkts,bskhm->btkhm", share_BKLL, re),
        jnp.einsum("bkts,bskhm->btkhm", share_BKLL, im),
    )
    return _read(sums, q_BLQHM2, spectrum)


def sca_step(k_BLKH: Array, w_BLK: Array, q_BLQHM2: Array, spectrum: Spectrum, sums: Sums) -> tuple[Array, Sums]:
    """One token (L = 1) after a prefix: constant time and memory. Returns o (B,1,K,2H) and the new sums."""
    re, im = _encode(k_BLKH, w_BLK, spectrum)
    keep_K = jnp.exp(-spectrum.fade_K)
    new = Sums(
        keep_K * sums.z_BK + w_BLK[:, 0],
        keep_K[:, None, None] * sums.re_BKHM + re[:, 0],
        keep_K[:, None, None] * sums.im_BKHM + im[:, 0],
    )
    return _read(Sums(*(part[:, None] for part in new)), q_BLQHM2, spectrum), new


def sca_chunked(
    k_BLKH: Array,
    w_BLK: Array,
    q_BLQHM2: Array,
    spectrum: Spectrum,
    document_BL: Array,
    sums: Sums | None = None,
    chunk: int = CHUNK,
) -> tuple[Array, Sums]:
    """Steps 3 to 5 as a scan over chunks: matrix products inside a chunk, the sums carried between chunks.

    `sums` belong to the document of the first token. L is padded here to whole chunks with tokens of no weight.
    Nothing of size (B,L,K,H,M) is kept for the backward pass: a chunk is computed again there.

    Returns o (B,L,K,2H) and the sums after the last token, float32.
    """
    B, L, K, H = k_BLKH.shape
    chunk = min(chunk, L)
    count = -(-L // chunk)
    padded = count * chunk - L
    zeros = jnp.zeros((B, K, H, spectrum.theta_KHM.shape[-1]), jnp.float32)
    first = Sums(zeros[..., 0, 0], zeros, zeros) if sums is None else sums
    real_L = jnp.arange(count * chunk) < L

    def chunks(x: Array, mode: str = "constant") -> Array:
        x = jnp.pad(x, [(0, 0), (0, padded)] + [(0, 0)] * (x.ndim - 2), mode=mode)
        return x.reshape(B, count, chunk, *x.shape[2:]).swapaxes(0, 1)

    inputs = chunks(k_BLKH), chunks(w_BLK), chunks(q_BLQHM2), chunks(document_BL, "edge"), real_L.reshape(count, chunk)
    step = jax.checkpoint(lambda carry, part: _chunk(carry, part, spectrum))
    (last, _), o = jax.lax.scan(step, (first, document_BL[:, 0]), inputs)
    return o.swapaxes(0, 1).reshape(B, count * chunk, K, 2 * H)[:, :L], last


def _chunk(
    carry: tuple[Sums, Array], part: tuple[Array, Array, Array, Array, Array], spectrum: Spectrum
) -> tuple[tuple[Sums, Array], Array]:
    """One chunk after the sums of the document `document_B`; tokens that are not real neither add nor fade."""
    before, document_B = carry
    k, w, q, document_BC, real_C = part
    step_C, ends = jnp.cumsum(real_C), real_C.sum()
    age_CC = step_C[:, None] - step_C
    order_CC = jnp.tril(jnp.ones_like(age_CC, dtype=bool)) & real_C
    fade = spectrum.fade_K[None, :, None]
    same_BCC = document_BC[:, :, None] == document_BC[:, None, :]
    within = jnp.exp(-fade[..., None] * jnp.maximum(age_CC, 0)) * (order_CC & same_BCC)[:, None]
    entering = jnp.exp(-fade * step_C) * (document_BC == document_B[:, None])[:, None]
    leaving = jnp.exp(-fade * (ends - step_C)) * (real_C & (document_BC == document_BC[:, -1:]))[:, None]
    passing = jnp.exp(-fade[..., 0] * ends) * (document_BC[:, -1] == document_B)[:, None]
    re, im = _encode(k, w, spectrum)
    inside = Sums(
        jnp.einsum("bkts,bsk->btk", within, w) + jnp.einsum("bkt,bk->btk", entering, before.z_BK),
        jnp.einsum("bkts,bskhm->btkhm", within, re) + jnp.einsum("bkt,bkhm->btkhm", entering, before.re_BKHM),
        jnp.einsum("bkts,bskhm->btkhm", within, im) + jnp.einsum("bkt,bkhm->btkhm", entering, before.im_BKHM),
    )
    after = Sums(
        jnp.einsum("bks,bsk->bk", leaving, w) + passing * before.z_BK,
        jnp.einsum("bks,bskhm->bkhm", leaving, re) + passing[..., None, None] * before.re_BKHM,
        jnp.einsum("bks,bskhm->bkhm", leaving, im) + passing[..., None, None] * before.im_BKHM,
    )
    return (after, document_BC[:, -1]), _read(inside, q, spectrum)
