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

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nautile.model.architecture import MASS_FLOOR, THETA_MAX, THETA_MIN, WEIGHT_CLIP

CHUNK = 128
CPU_CHUNK = 16  # on a CPU without gradients, where many chunks are computed at once
SPAN = 1 << 19  # numbers of a (B,S,K,H) tensor that are computed at once without gradients


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
        return THETA_MIN + (THETA_MAX - THETA_MIN) * torch.sigmoid(raw_KHM)
    steps = F.softplus(raw_KHM) + 1e-4
    return THETA_MIN + (THETA_MAX - THETA_MIN) * steps.cumsum(-1) / steps.sum(-1, keepdim=True)


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
    that the device likes. No tensor of size (B,L,K,H,M) is made: a span of chunks is computed at once, of only one
    where there are gradients, and that is computed again in the backward pass.

    Returns o (B,L,K,2H) and the sums at each row's end, float32.
    """
    B, L, K, H = k_BLKH.shape
    training = torch.is_grad_enabled()
    chunk = chunk or (CPU_CHUNK if k_BLKH.device.type == "cpu" and not training else CHUNK)
    span = chunk if training else chunk * max(1, SPAN // (B * chunk * K * H))
    outputs, document_B = [], None
    parts = zip(*(x.split(span, dim=1) for x in (k_BLKH, w_BLK, q_BLQHM2)), strict=True)
    for start, (k, w, q) in zip(range(0, L, span), parts, strict=True):
        end = start + k.shape[1]
        lengths = None if lengths_B is None else (lengths_B - start).clamp(0, end - start)
        document_BS = None if document_BL is None else document_BL[:, start:end]
        inputs = (k, w, q, spectrum, sums, lengths, document_BS, document_B, chunk)
        o, sums = checkpoint(_span, *inputs, use_reentrant=False) if training and span < L else _span(*inputs)
        document_B = None if document_BL is None else document_BL[:, end - 1]
        outputs.append(o)
    assert sums is not None, "L is at least 1"
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), sums


def _span(
    k_BSKH: Tensor,
    w_BSK: Tensor,
    q_BSQHM2: Tensor,
    spectrum: Spectrum,
    sums: Sums | None,
    lengths_B: Tensor | None,
    document_BS: Tensor | None,
    document_B: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Sums]:
    """Some chunks after `sums`, which belong to the document `document_B`; one spectral point at a time.

    Chunks are rows (R = B·n) of C tokens.
    """
    B, S = k_BSKH.shape[:2]
    n = -(-S // chunk)
    C = -(-S // n)
    if missing := n * C - S:
        k_BSKH, w_BSK, q_BSQHM2 = (_lengthen(x, missing) for x in (k_BSKH, w_BSK, q_BSQHM2))
        document_BS = None if document_BS is None else _lengthen(document_BS, missing)
        lengths_B = k_BSKH.new_full((B,), S, dtype=torch.long) if lengths_B is None else lengths_B
    decay = _SpanDecay.of(spectrum.fade_K, n, C, lengths_B, document_BS, document_B)
    k, w = (part.contiguous() for part in _heads_first(_rows(k_BSKH, C), _rows(w_BSK, C)))
    k = k.float()
    weighted, squashed = w[..., None] * k, F.softsign(spectrum.eta_K[:, None, None] * k)
    z, z_after = decay.carry(w[..., None], None if sums is None else sums.z_BK[..., None])
    o_re, o_im, after = torch.zeros_like(k), torch.zeros_like(k), []
    for m, (q_re, q_im) in enumerate(_points(_rows(q_BSQHM2, C), spectrum)):
        phase = squashed * spectrum.theta_KHM[:, None, :, m]
        re, re_after = decay.carry(weighted * torch.cos(phase), None if sums is None else sums.re_BKHM[..., m])
        im, im_after = decay.carry(weighted * torch.sin(phase), None if sums is None else sums.im_BKHM[..., m])
        o_re.addcmul_(re, q_re).addcmul_(im, q_im)
        o_im.addcmul_(im, q_re).addcmul_(re, q_im, value=-1)
        after.append((re_after, im_after))
    share = z.clamp(min=MASS_FLOOR).reciprocal()
    o_RCKJ = torch.cat([(part * share).transpose(1, 2) for part in (o_re, o_im)], dim=-1)
    o_BSKJ = o_RCKJ.unflatten(0, (B, n)).flatten(1, 2)
    re_after, im_after = (torch.stack(part, dim=-1) for part in zip(*after, strict=True))
    return o_BSKJ[:, :S], Sums(z_after[..., 0], re_after, im_after)


def _lengthen(x_BS: Tensor, by: int) -> Tensor:
    return torch.cat([x_BS, x_BS[:, -1:].expand(-1, by, *x_BS.shape[2:])], dim=1)


def _rows(x_BS: Tensor, C: int) -> Tensor:
    return x_BS.unflatten(1, (-1, C)).flatten(0, 1)


def _points(q_RCQHM2: Tensor, spectrum: Spectrum) -> Iterator[tuple[Tensor, Tensor]]:
    """The queries of each spectral point, re and im (R,K,C,H), times its measure. float32."""
    Q, H = q_RCQHM2.shape[2:4]
    measure_QgHM = (spectrum.omega_KHM / H**0.5).unflatten(0, (Q, -1))
    in_order = q_RCQHM2.permute(0, 4, 5, 2, 1, 3)
    q_RM2QCH = in_order.to(torch.float32, memory_format=torch.contiguous_format)
    for m, pair in enumerate(q_RM2QCH.unbind(1)):  # not by index: its gradient fills a whole q for each
        re, im = (part[:, :, None] * measure_QgHM[:, :, None, :, m] for part in pair.unbind(1))
        yield re.flatten(1, 2), im.flatten(1, 2)


class _Decay(NamedTuple):
    """How much of what came before survives at each of T places; a leading 1 stands for all rows alike."""

    within: Tensor  # (B,K,T,T) from an earlier place to a later one
    entering: Tensor  # (B,K,T) from before the first place

    @classmethod
    def of(cls, fade_K: Tensor, T: int, document_BT: Tensor | None, document_B: Tensor | None) -> "_Decay":
        """Places of T documents, after `document_B`: nothing passes from one document to another."""
        place = torch.arange(T, device=fade_K.device)
        age, fade = place[:, None] - place, fade_K[None, :, None]
        within = torch.exp(-fade[..., None] * age.clamp(min=0)) * (age >= 0)
        entering = torch.exp(-fade * (place + 1))
        if document_BT is not None:
            within = within * (document_BT[:, None, :, None] == document_BT[:, None, None, :])
            if document_B is not None:
                entering = entering * (document_BT == document_B[:, None])[:, None]
        return cls(within, entering)

    def carry(self, part_BKTX: Tensor, before_BKX: Tensor | None) -> Tensor:
        """The running sums of `part` at each place, after `before`."""
        return self.enter(self.within @ part_BKTX, before_BKX)

    def enter(self, inside_BKTX: Tensor, before_BKX: Tensor | None) -> Tensor:
        """Add what survives of `before`, in place."""
        if before_BKX is None:
            return inside_BKTX
        return inside_BKTX.addcmul_(self.entering[..., None], before_BKX[:, :, None])


class _SpanDecay(NamedTuple):
    """The decay over n chunks of C tokens, R = B·n: the same recurrence twice, in each chunk and over their ends."""

    tokens: _Decay  # rows are R
    chunks: _Decay  # rows are B
    lengths_B: Tensor | None

    @classmethod
    def of(
        cls,
        fade_K: Tensor,
        n: int,
        C: int,
        lengths_B: Tensor | None,
        document_BS: Tensor | None,
        document_B: Tensor | None,
    ) -> "_SpanDecay":
        if document_BS is None:
            return cls(_Decay.of(fade_K, C, None, None), _Decay.of(C * fade_K, n, None, None), lengths_B)
        document_RC = _rows(document_BS, C)
        end_Bn = document_RC[:, -1].unflatten(0, (-1, n))
        first_B = end_Bn[:, 0] if document_B is None else document_B
        before_R = torch.cat([first_B[:, None], end_Bn[:, :-1]], dim=1).flatten()
        tokens = _Decay.of(fade_K, C, document_RC, before_R)
        return cls(tokens, _Decay.of(C * fade_K, n, end_Bn, document_B), lengths_B)

    def carry(self, part_RKCX: Tensor, before_BKX: Tensor | None) -> tuple[Tensor, Tensor]:
        """The running sums of `part` at each token, after `before`, and those at each row's last real token."""
        running_RKCX, n = self.tokens.within @ part_RKCX, self.chunks.entering.shape[-1]
        before_RKX = before_BKX
        if n > 1:
            end_BKnX = running_RKCX[:, :, -1].unflatten(0, (-1, n)).transpose(1, 2)
            after_BKnX = self.chunks.carry(end_BKnX, before_BKX)
            first_BKX = torch.zeros_like(after_BKnX[:, :, 0]) if before_BKX is None else before_BKX
            before_BKnX = torch.cat([first_BKX[:, :, None], after_BKnX[:, :, :-1]], dim=2)
            before_RKX = before_BKnX.transpose(1, 2).flatten(0, 1)
        running_RKCX = self.tokens.enter(running_RKCX, before_RKX)
        return running_RKCX, self._last(running_RKCX.unflatten(0, (-1, n)), before_BKX)

    def _last(self, running_BnKCX: Tensor, before_BKX: Tensor | None) -> Tensor:
        if self.lengths_B is None:
            return running_BnKCX[:, -1, :, -1]
        at_B, C = (self.lengths_B - 1).clamp(min=0), running_BnKCX.shape[3]
        last_BKX = running_BnKCX[torch.arange(len(at_B), device=at_B.device), at_B // C, :, at_B % C]
        return last_BKX.where((self.lengths_B > 0)[:, None, None], 0.0 if before_BKX is None else before_BKX)
