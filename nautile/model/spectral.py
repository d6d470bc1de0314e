"""SeqCond Attention as pure functions: the readable reference, the chunked form, and the step.

Letters: see `architecture.py`. The paper's symbols (section 2.2.4) and their names here:

| paper     | here                    | paper        | here                                         |
|-----------|-------------------------|--------------|----------------------------------------------|
| k_t       | `k_BLKH`                | Z, R, I      | `Sums.z_BK`, `.re_BKHM`, `.im_BKHM`          |
| s_t       | `s_BLK`                 | θ            | `Spectrum.theta_KHM`                         |
| α_t       | `w_BLK`                 | ω            | `Spectrum.omega_KHM`                         |
| q_t       | `q_BLQHM2`, last re, im | η            | `Spectrum.eta_K`                             |
| γ, β      | `scale_K`, `bias_K`     | λ            | `slope_K`; `Spectrum.fade_K` where sums fade |
| r_t, i_t  | `re_BKCHM`, `im_BKCHM`  | o^re, o^im   | `o_BLKJ`, J = 2H, re before im               |

One recurrence serves both kinds of decay: `S_t = exp(-fade) · S_{t-1} + w_t k_t exp(iφ_t)`.
`decay="relative"`: fade = λ and w is the content gate. `decay="boundary"`: fade = 0 and w carries the decay.
Rows are right-padded and documents packed in one row are numbered by `document_BL` (see `layout.py`).
All sums are float32, whatever the inputs are.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

THETA_MIN, THETA_SPAN = 0.001, 2.999
WEIGHT_CLIP = (1e-4, 5000.0)
MASS_FLOOR = 1e-4
CHUNK = 128
CACHED_CHUNK = 64  # on a CPU without gradients: what a chunk needs fits the cache


class Sums(NamedTuple):
    """The memory of a prefix: constant in its length. float32."""

    z_BK: Tensor
    re_BKHM: Tensor
    im_BKHM: Tensor


class Spectrum(NamedTuple):
    """What a layer's parameters say about its spectral grid. float32."""

    eta_K: Tensor
    theta_KHM: Tensor
    omega_KHM: Tensor
    fade_K: Tensor


def spectral_grid(raw_KHM: Tensor) -> Tensor:
    """θ in (0.001, 3]: increasing along M, or one bounded point a channel where M = 1."""
    if raw_KHM.shape[-1] == 1:
        return THETA_MIN + THETA_SPAN * torch.sigmoid(raw_KHM)
    steps = F.softplus(raw_KHM) + 1e-4
    return THETA_MIN + THETA_SPAN * steps.cumsum(-1) / steps.sum(-1, keepdim=True)


def quadrature(raw_KHM: Tensor) -> Tensor:
    """ω: positive, summing to one over the spectral points M."""
    positive = torch.exp(raw_KHM)
    return positive / (positive.sum(-1, keepdim=True) + 1e-6)


def content_gate(s_BLK: Tensor, scale_K: Tensor, bias_K: Tensor) -> Tensor:
    """softplus(γ s + β), the weight that a token earns by its content. float32."""
    return F.softplus(scale_K.float() * s_BLK.float() + bias_K.float())


def boundary_weights(gate_BLK: Tensor, slope_K: Tensor, positions_BL: Tensor, maxlen: int, clip: bool) -> Tensor:
    """Step 2 of the release: the gate times exp(-λ d(t)), d(t) = max(maxlen - 1 - t, 0), then clipped."""
    distance_BL = (maxlen - 1 - positions_BL).clamp(min=0).float()
    w_BLK = gate_BLK * torch.exp(-slope_K.float() * distance_BL[..., None])
    return w_BLK.clamp(*WEIGHT_CLIP) if clip else w_BLK


def anchor_weights(gate_BLK: Tensor, slope_K: Tensor, positions_BL: Tensor, clip: bool) -> Tensor:
    """The gate times exp(-λ t): heads that hold on to the beginning of the sequence."""
    w_BLK = gate_BLK * torch.exp(-slope_K.float() * positions_BL.float()[..., None])
    return w_BLK.clamp(*WEIGHT_CLIP) if clip else w_BLK


def _encode(k_BKCH: Tensor, w_BKC: Tensor, spectrum: Spectrum) -> tuple[Tensor, Tensor]:
    """Step 3: α k exp(iφ), real and imaginary part (B,K,C,H,M). φ = softsign(η k) · θ."""
    k = k_BKCH.float()[..., None]
    phase = F.softsign(spectrum.eta_K.float()[:, None, None, None] * k) * spectrum.theta_KHM[:, None]
    weighted = w_BKC.float()[..., None, None] * k
    return weighted * torch.cos(phase), weighted * torch.sin(phase)


def _read(z_BKC: Tensor, re_BKCHM: Tensor, im_BKCHM: Tensor, q_BLQHM2: Tensor, spectrum: Spectrum) -> Tensor:
    """Step 5: the Hermitian match of state and query, integrated over M. Returns o (B,C,K,2H), float32."""
    K, H = re_BKCHM.shape[1], re_BKCHM.shape[3]
    q = q_BLQHM2.float().transpose(1, 2).repeat_interleave(K // q_BLQHM2.shape[2], dim=1)
    q_re, q_im = q.unbind(-1)
    measure = spectrum.omega_KHM[:, None] / H**0.5
    mass = z_BKC.clamp(min=MASS_FLOOR)[..., None]
    o_re = ((re_BKCHM * q_re + im_BKCHM * q_im) * measure).sum(-1) / mass
    o_im = ((im_BKCHM * q_re - re_BKCHM * q_im) * measure).sum(-1) / mass
    return torch.cat([o_re, o_im], dim=-1).transpose(1, 2)


def _heads_first(k_BLKH: Tensor, w_BLK: Tensor) -> tuple[Tensor, Tensor]:
    return k_BLKH.transpose(1, 2), w_BLK.transpose(1, 2).float()


def sca_reference(
    k_BLKH: Tensor, w_BLK: Tensor, q_BLQHM2: Tensor, spectrum: Spectrum, document_BL: Tensor | None = None
) -> Tensor:
    """Steps 3 to 5 by their definition: every token sums over all tokens before it. O(L²), for reading and tests.

    Returns o (B,L,K,2H), float32.
    """
    L = k_BLKH.shape[1]
    k, w = _heads_first(k_BLKH, w_BLK)
    re, im = _encode(k, w, spectrum)
    age = torch.arange(L, device=k.device)[:, None] - torch.arange(L, device=k.device)
    share_KLL = torch.exp(-spectrum.fade_K[:, None, None] * age.clamp(min=0)) * (age >= 0)
    share_BKLL = share_KLL.expand(k.shape[0], -1, -1, -1)
    if document_BL is not None:
        share_BKLL = share_BKLL * (document_BL[:, None, :, None] == document_BL[:, None, None, :])
    z = torch.einsum("bkts,bks->bkt", share_BKLL, w)
    re = torch.einsum("bkts,bkshm->bkthm", share_BKLL, re)
    im = torch.einsum("bkts,bkshm->bkthm", share_BKLL, im)
    return _read(z, re, im, q_BLQHM2, spectrum)


def sca_step(k_BLKH: Tensor, w_BLK: Tensor, q_BLQHM2: Tensor, spectrum: Spectrum, sums: Sums) -> tuple[Tensor, Sums]:
    """One token (L = 1) after a prefix: constant time and memory. Returns o (B,1,K,2H) and the new sums."""
    k, w = _heads_first(k_BLKH, w_BLK)
    re, im = _encode(k, w, spectrum)
    keep_K = torch.exp(-spectrum.fade_K)
    new = Sums(
        keep_K * sums.z_BK + w[:, :, 0],
        keep_K[:, None, None] * sums.re_BKHM + re[:, :, 0],
        keep_K[:, None, None] * sums.im_BKHM + im[:, :, 0],
    )
    return _read(new.z_BK[:, :, None], new.re_BKHM[:, :, None], new.im_BKHM[:, :, None], q_BLQHM2, spectrum), new


def sca_chunked(
    k_BLKH: Tensor,
    w_BLK: Tensor,
    q_BLQHM2: Tensor,
    spectrum: Spectrum,
    *,
    document_BL: Tensor | None = None,
    lengths_B: Tensor | None = None,
    sums: Sums | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Sums]:
    """Steps 3 to 5, chunk by chunk: matrix products inside a chunk, the sums between chunks.

    `lengths_B` counts each row's real tokens (the rest is padding on the right; it must not enter the sums);
    `document_BL` numbers packed documents; `sums` is the memory of what came before. A `chunk` of None is of the size
    that the device likes. No tensor of size (B,L,K,H,M)
    is made: what a chunk needs is (B,C,K,H,M), recomputed in the backward pass when there are several chunks.

    Returns o (B,L,K,2H) and the sums at each row's end, float32.
    """
    L = k_BLKH.shape[1]
    cached = k_BLKH.device.type == "cpu" and not torch.is_grad_enabled()
    chunk = chunk or (CACHED_CHUNK if cached else CHUNK)
    recompute = torch.is_grad_enabled() and chunk < L
    outputs, document_B = [], None
    parts = zip(*(x.split(chunk, dim=1) for x in (k_BLKH, w_BLK, q_BLQHM2)), strict=True)
    for start, (k, w, q) in zip(range(0, L, chunk), parts, strict=True):
        end = start + k.shape[1]
        lengths = None if lengths_B is None else (lengths_B - start).clamp(0, end - start)
        document_BC = None if document_BL is None else document_BL[:, start:end]
        inputs = (k, w, q, spectrum, sums, lengths, document_BC, document_B)
        o, sums = checkpoint(_chunk, *inputs, use_reentrant=False) if recompute else _chunk(*inputs)
        document_B = None if document_BL is None else document_BL[:, end - 1]
        outputs.append(o)
    assert sums is not None, "L is at least 1"
    return torch.cat(outputs, dim=1), sums


def _chunk(
    k_BCKH: Tensor,
    w_BCK: Tensor,
    q_BCQHM2: Tensor,
    spectrum: Spectrum,
    sums: Sums | None,
    lengths_B: Tensor | None,
    document_BC: Tensor | None,
    document_B: Tensor | None,
) -> tuple[Tensor, Sums]:
    """One chunk after `sums`, which belong to the document `document_B`; one spectral point at a time."""
    k, w = (part.contiguous() for part in _heads_first(k_BCKH, w_BCK))
    k = k.float()
    H = spectrum.theta_KHM.shape[1]
    q = q_BCQHM2.permute(0, 2, 4, 5, 1, 3).contiguous().float()  # in this order: half the time
    if (shared := k.shape[1] // q.shape[1]) > 1:
        q = q.repeat_interleave(shared, dim=1)
    points = [point.unbind(2) for point in q.unbind(2)]  # not by index: its gradient fills a whole q for each
    decay = _ChunkDecay.of(spectrum.fade_K, k.shape[2], lengths_B, document_BC, document_B)
    weighted, squashed = w[..., None] * k, F.softsign(spectrum.eta_K[:, None, None] * k)
    z, z_after = decay.carry(w[..., None], None if sums is None else sums.z_BK[..., None])
    o_re, o_im, after = torch.zeros_like(k), torch.zeros_like(k), []
    for m, (q_re, q_im) in enumerate(points):
        phase = squashed * spectrum.theta_KHM[:, None, :, m]
        re, re_after = decay.carry(weighted * torch.cos(phase), None if sums is None else sums.re_BKHM[..., m])
        im, im_after = decay.carry(weighted * torch.sin(phase), None if sums is None else sums.im_BKHM[..., m])
        measure = spectrum.omega_KHM[:, None, :, m] / H**0.5
        q_re, q_im = q_re * measure, q_im * measure
        o_re = o_re.addcmul(re, q_re).addcmul(im, q_im)
        o_im = o_im.addcmul(im, q_re).addcmul(re, q_im, value=-1)
        after.append((re_after, im_after))
    o = torch.cat([o_re, o_im], dim=-1) / z.clamp(min=MASS_FLOOR)
    re_after, im_after = (torch.stack(part, dim=-1) for part in zip(*after, strict=True))
    return o.transpose(1, 2), Sums(z_after[..., 0], re_after, im_after)


class _ChunkDecay(NamedTuple):
    """How much of what survives in a chunk; a leading 1 stands for B where all rows are alike."""

    within: Tensor  # (B,K,C,C) from an earlier token to a later one
    entering: Tensor  # (B,K,C) from the sums before the chunk to a token
    leaving: Tensor  # (B,K,C) from a token to the sums after the chunk
    passing: Tensor  # (B,K) from the sums before to the sums after

    def carry(self, part_BKCX: Tensor, before_BKX: Tensor | None) -> tuple[Tensor, Tensor]:
        """The running sums of `part` at each token of the chunk, and the sums after it."""
        inside = self.within @ part_BKCX
        after = (self.leaving[..., None, :] @ part_BKCX)[:, :, 0]
        if before_BKX is not None:
            inside = inside + self.entering[..., None] * before_BKX[:, :, None]
            after = after + self.passing[..., None] * before_BKX
        return inside, after

    @classmethod
    def of(
        cls,
        fade_K: Tensor,
        C: int,
        lengths_B: Tensor | None,
        document_BC: Tensor | None,
        document_B: Tensor | None,
    ) -> "_ChunkDecay":
        step = torch.arange(C, device=fade_K.device)
        ends = torch.full_like(step[:1], C) if lengths_B is None else lengths_B
        fade = fade_K[None, :, None]
        age = step[:, None] - step
        to_end = ends[:, None, None] - 1 - step
        within = torch.exp(-fade[..., None] * age.clamp(min=0)) * (age >= 0)
        entering = torch.exp(-fade * (step + 1))
        leaving = torch.exp(-fade * to_end.clamp(min=0)) * (to_end >= 0)
        passing = torch.exp(-fade[..., 0] * ends[:, None])
        if document_BC is not None:
            last_B1 = document_BC[:, -1:]
            within = within * (document_BC[:, None, :, None] == document_BC[:, None, None, :])
            leaving = leaving * (document_BC == last_B1)[:, None]
            if document_B is not None:
                entering = entering * (document_BC == document_B[:, None])[:, None]
                passing = passing * (last_B1 == document_B[:, None])
        return cls(within, entering, leaving, passing)
