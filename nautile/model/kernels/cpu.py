"""SCA on a CPU: the compiled loop of `loops.py` and its gradients, where numba is there (extra `cpu`) and it pays."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nautile.model.spectral import Spectrum, Sums

DTYPES = (torch.float32, torch.bfloat16)
LEAST = 1 << 18  # numbers of z from which it is worth while: some two hundred tokens of nautile-mini
_wanted = True
_one_at_a_time = threading.Lock()  # not every threading layer of numba's may be entered twice


@cache
def has_loops() -> bool:
    """Whether numba is there, and a folder to keep in what it compiles."""
    try:
        import nautile.model.kernels.loops  # noqa: F401
    except (ImportError, RuntimeError):  # the latter where numba finds no such folder
        return False
    return True


def use_loop(enabled: bool = True) -> bool:
    """Take the loop in this process wherever it fits, as it does from the start; or no longer.

    Results change by rounding only; but second derivatives and batched ones (`is_grads_batched`) need it off. Returns
    what held before.
    """
    global _wanted
    before, _wanted = _wanted, enabled
    return before


def fits(z_BLP: Tensor, document_BL: Tensor | None) -> bool:
    """Whether the loop takes the projected tokens: enough of them, on a CPU, not packed."""
    return (
        _wanted
        and z_BLP.device.type == "cpu"
        and z_BLP.numel() >= LEAST
        and z_BLP.dtype in DTYPES
        and document_BL is None
        and type(z_BLP) is Tensor  # not a stand-in that only has a shape
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        and not torch._C._are_functorch_transforms_active()
        and has_loops()
    )


class Norm(NamedTuple):
    """The scale (J) and the ε of step 6's norm."""

    weight_J: Tensor
    eps: float


def mix(
    z_BLP: Tensor,
    gate_BLJ: Tensor,
    w_BLK: Tensor,
    kernel_P1c: Tensor,
    spectrum: Spectrum,
    norm: Norm,
    queries: int,
    *,
    lengths_B: Tensor | None = None,
    tail_BTP: Tensor | None = None,
    sums: Sums | None = None,
) -> tuple[Tensor, Sums]:
    """Step 1 and steps 3 to 6 up to the norm, of keys and queries that stand in z as `SCA._convolve` says.

    `queries` is Q. Returns the normed o (B,L,J) in gate's dtype, J = 2·K·H, zero after a row's end, and the sums there.
    """
    (B, L, P), H = z_BLP.shape, spectrum.theta_KHM.shape[1]
    lengths_B = torch.full((B,), L) if lengths_B is None else lengths_B
    tail_BTP = z_BLP.new_zeros(B, kernel_P1c.shape[-1] - 1, P) if tail_BTP is None else tail_BTP.to(z_BLP.dtype)
    tokens = z_BLP, tail_BTP, kernel_P1c[:, 0].t().float(), gate_BLJ, w_BLK
    theta_KMH, omega_KMH = spectrum.theta_KHM.transpose(1, 2), spectrum.omega_KHM.transpose(1, 2) / H**0.5
    heads = spectrum.eta_K, theta_KMH, omega_KMH, torch.exp(-spectrum.fade_K)
    before = _no_sums(B, spectrum) if sums is None else (part.float() for part in sums)
    inputs = Inputs(*tokens, *heads, norm.weight_J.float(), *before)
    if torch.is_grad_enabled() and any(part.requires_grad for part in inputs):
        kept = (part.clone() if part.is_inference() else part for part in inputs)
        normed_BLJ, *after = _Mix.apply(queries, norm.eps, lengths_B, *kept)
        return normed_BLJ, Sums(*after)
    return _forward(queries, norm.eps, lengths_B, inputs)[:2]


class Inputs(NamedTuple):
    """All that has gradients, as the loop takes it."""

    z_BLP: Tensor
    tail_BTP: Tensor
    kernel_cP: Tensor
    gate_BLJ: Tensor
    w_BLK: Tensor
    eta_K: Tensor
    theta_KMH: Tensor
    omega_KMH: Tensor
    keep_K: Tensor
    norm_J: Tensor
    mass_BK: Tensor
    re_BKHM: Tensor
    im_BKHM: Tensor

    def arrays(self, queries: int, lengths_B: Tensor) -> tuple[Any, Any]:
        """As `loops.Tokens` and `loops.Heads`."""
        from nautile.model.kernels.loops import Heads, Tokens

        z, tail, kernel, gate, w, lengths = _arrays(*self[:5], lengths_B)
        return Tokens(z, tail, kernel, gate, w, lengths, queries), Heads(*_arrays(*self[5:9]))

    @property
    def loop(self) -> tuple[int, int, int]:
        """H, M and c, for which loops are compiled."""
        return self.re_BKHM.shape[2], self.re_BKHM.shape[3], len(self.kernel_cP)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: int, eps: float, lengths_B: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        normed_BLJ, after, scale_BL = _forward(queries, eps, lengths_B, Inputs(*inputs))
        ctx.queries = queries
        ctx.save_for_backward(lengths_B, scale_BL, normed_BLJ, *inputs)
        return normed_BLJ, *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_normed_BLJ: Tensor, *d_after: Tensor) -> tuple[Tensor | None, ...]:
        lengths_B, scale_BL, normed_BLJ, *inputs = ctx.saved_tensors
        pull_BL = (d_normed_BLJ.float() * normed_BLJ).sum(-1) * scale_BL.square() / normed_BLJ.shape[-1]
        return (
            None,
            None,
            None,
            *_backward(ctx.queries, lengths_B, Inputs(*inputs), d_normed_BLJ, scale_BL, pull_BL, d_after),
        )


def _forward(queries: int, eps: float, lengths_B: Tensor, inputs: Inputs) -> tuple[Tensor, Sums, Tensor]:
    """The normed o, the sums after each row, and what the norm multiplied each token by (B,L)."""
    from nautile.model.kernels.loops import mixing, normalise

    gate_BLJ, (B, L, K) = inputs.gate_BLJ, inputs.w_BLK.shape
    after = _copies(inputs[-3:])
    o_BLJ, square_BLG = torch.empty(gate_BLJ.shape), torch.empty(B, L, _groups(B, K, torch.get_num_threads()))
    normed_BLJ = o_BLJ if gate_BLJ.dtype == torch.float32 else torch.empty(gate_BLJ.shape, dtype=gate_BLJ.dtype)
    scale_BL = torch.empty(B, L)
    outputs = _arrays(o_BLJ, square_BLG)
    with _one_at_a_time, _as_many_threads():
        mixing(*inputs.loop)(*inputs.arrays(queries, lengths_B), Sums(*_arrays(*after)), *outputs)
        normalise(*outputs, *_arrays(inputs.norm_J), np.float32(eps), *_arrays(scale_BL, normed_BLJ))
    return normed_BLJ, after, scale_BL


def _backward(
    queries: int,
    lengths_B: Tensor,
    inputs: Inputs,
    d_normed_BLJ: Tensor,
    scale_BL: Tensor,
    pull_BL: Tensor,
    d_after: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """The gradients of the inputs."""
    from nautile.model.kernels.loops_backward import Given, Gradients, unconvolving, unmixing

    B, d_sums = len(lengths_B), _copies(d_after)
    shared = (torch.empty(B, *part.shape) for part in (*inputs[5:9], inputs.norm_J))
    d_gate = torch.zeros(inputs.gate_BLJ.shape, dtype=inputs.gate_BLJ.dtype)
    d_w = torch.zeros(inputs.w_BLK.shape)
    d = Gradients(torch.zeros(inputs.z_BLP.shape), d_gate, d_w, *shared)
    d_tail, d_kernel = torch.empty(inputs.tail_BTP.shape), torch.empty(B, *inputs.kernel_cP.shape)
    tokens, heads = inputs.arrays(queries, lengths_B)
    given = Given(*_arrays(d_normed_BLJ, inputs.norm_J, scale_BL, pull_BL))
    before = Sums(*_arrays(*inputs[-3:]))
    with _one_at_a_time, _as_many_threads():
        unmixing(*inputs.loop)(tokens, heads, before, given, Sums(*_arrays(*d_sums)), Gradients(*_arrays(*d)))
        unconvolving(len(inputs.kernel_cP))(tokens, *_arrays(d.mixed_BLP, d_tail, d_kernel))
    found = d.mixed_BLP, d_tail, d_kernel.sum(0), d_gate, d_w, *(part.sum(0) for part in d[3:]), *d_sums
    return tuple(part.to(x.dtype) for part, x in zip(found, inputs, strict=True))


@contextmanager
def _as_many_threads() -> Iterator[None]:
    """numba with torch's number of threads; where both share an OpenMP, numba's first call would change torch's."""
    import numba

    threads, its_own = torch.get_num_threads(), numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(its_own)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _no_sums(rows: int, spectrum: Spectrum) -> Sums:
    re, im = (torch.zeros(rows, *spectrum.theta_KHM.shape) for _ in range(2))
    return Sums(torch.zeros(rows, *spectrum.eta_K.shape), re, im)


def _copies(parts: Sequence[Tensor]) -> Sums:
    """What a state has read is never written again."""
    return Sums(*(part.clone(memory_format=torch.contiguous_format) for part in parts))


def _groups(rows: int, heads: int, threads: int) -> int:
    """Into how many groups the heads of a row are cut, so that threads are about equally busy."""
    cuts = [G for G in range(1, heads + 1) if heads % G == 0]
    return next((G for G in cuts if rows * G % threads == 0 or rows * G >= 4 * threads), heads)


def _arrays(*tensors: Tensor) -> list[Any]:
    """Their numbers, shared where they lie in order; those of bfloat16 as bits."""
    dense = (tensor.detach().contiguous() for tensor in tensors)
    return [(x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy() for x in dense]
