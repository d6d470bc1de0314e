"""SCA on a CPU without gradients: the compiled loop of `loops.py`, where numba is there (extra `cpu`) and it pays."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

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


def use_loop(enabled: bool = True) -> None:
    """Take the loop in this process wherever it fits, as it does from the start; or no longer.

    Results change by rounding only.
    """
    global _wanted
    _wanted = enabled


def fits(z_BLP: Tensor, document_BL: Tensor | None) -> bool:
    """Whether the loop takes the projected tokens: enough of them, on a CPU, not packed, and without gradients."""
    return (
        _wanted
        and z_BLP.device.type == "cpu"
        and z_BLP.numel() >= LEAST
        and z_BLP.dtype in DTYPES
        and document_BL is None
        and not torch.is_grad_enabled()
        and type(z_BLP) is Tensor  # not a stand-in that only has a shape
        and not torch.compiler.is_compiling()
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
    from nautile.model.kernels.loops import mixing, normalise

    (B, L, P), (K, H, M), c = z_BLP.shape, spectrum.theta_KHM.shape, kernel_P1c.shape[-1]
    after = _written_to(sums, B, spectrum)
    lengths_B = torch.full((B,), L) if lengths_B is None else lengths_B
    tail_BTP = z_BLP.new_zeros(B, c - 1, P) if tail_BTP is None else tail_BTP
    o_BLJ, square_BLG = torch.empty(gate_BLJ.shape), torch.empty(B, L, _groups(B, K, torch.get_num_threads()))
    normed_BLJ = o_BLJ if gate_BLJ.dtype == torch.float32 else torch.empty_like(gate_BLJ)
    theta_KMH, omega_KMH = spectrum.theta_KHM.transpose(1, 2), spectrum.omega_KHM.transpose(1, 2) / H**0.5
    tokens = z_BLP, tail_BTP, kernel_P1c[:, 0].t().float(), gate_BLJ, w_BLK
    head = spectrum.eta_K, theta_KMH, omega_KMH, torch.exp(-spectrum.fade_K)
    outputs = _arrays(o_BLJ, square_BLG)
    with _one_at_a_time, _as_many_threads():
        mixing(H, M, c)(*_arrays(*tokens, *head), queries, *_arrays(lengths_B, *after), *outputs)
        normalise(*outputs, *_arrays(norm.weight_J.float()), np.float32(norm.eps), *_arrays(normed_BLJ))
    return normed_BLJ, after


@contextmanager
def _as_many_threads() -> Iterator[None]:
    """numba with torch's number of threads; where both share an OpenMP, numba's first call would change torch's."""
    import numba

    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _written_to(sums: Sums | None, rows: int, spectrum: Spectrum) -> Sums:
    """A copy of the sums, or zeros: what a state has read is never written again."""
    if sums is None:
        re, im = (torch.zeros(rows, *spectrum.theta_KHM.shape) for _ in range(2))
        return Sums(torch.zeros(rows, *spectrum.eta_K.shape), re, im)
    return Sums(*(part.clone(memory_format=torch.contiguous_format) for part in sums))


def _groups(rows: int, heads: int, threads: int) -> int:
    """Into how many groups the heads of a row are cut, so that threads are about equally busy."""
    cuts = [G for G in range(1, heads + 1) if heads % G == 0]
    return next((G for G in cuts if rows * G % threads == 0 or rows * G >= 4 * threads), heads)


def _arrays(*tensors: Tensor) -> list[Any]:
    """Their numbers, shared where they lie in order; those of bfloat16 as bits."""
    dense = (tensor.detach().contiguous() for tensor in tensors)
    return [(x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy() for x in dense]
