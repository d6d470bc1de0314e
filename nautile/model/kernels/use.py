"""The kernels in the model, chosen call by call for tensors that they can work on."""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from nautile.errors import NautileError
from nautile.model import sca, spectral
from nautile.model.spectral import Spectrum, Sums

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_plain_conv_silu = sca.conv_silu


def use_kernels(enabled: bool = True) -> bool:
    """Use the kernels in this process from now on, for every model; or no longer. Results change by rounding only.

    They take tensors on a GPU, and on a CPU where Triton interprets; all others, float64 too, go the usual way. Returns
    what held before.

    Raises:
        NautileError: Triton is not installed.
    """
    if enabled and find_spec("triton") is None:
        raise NautileError('GPU kernels need Triton, which is there for Linux: pip install "nautile[gpu]"')
    before = sca.sca_step is _step
    sca.sca_chunked = _chunked if enabled else spectral.sca_chunked
    sca.sca_step = _step if enabled else spectral.sca_step
    sca.conv_silu = _conv_silu if enabled else _plain_conv_silu
    return before


def _fits(x: Tensor) -> bool:
    import triton

    return (
        x.numel() > 0
        and x.dtype in DTYPES
        and (x.is_cuda or (x.device.type == "cpu" and triton.knobs.runtime.interpret))
    )


def _chunked(k_BLKH: Tensor, w_BLK: Tensor, q_BLQHM2: Tensor, spectrum: Spectrum, **rows: Any) -> tuple[Tensor, Sums]:
    if not _fits(k_BLKH):
        return spectral.sca_chunked(k_BLKH, w_BLK, q_BLQHM2, spectrum, **rows)
    from nautile.model.kernels.scan import sca_scan

    return sca_scan(k_BLKH, w_BLK, q_BLQHM2, spectrum, **rows)


def _step(k_BLKH: Tensor, w_BLK: Tensor, q_BLQHM2: Tensor, spectrum: Spectrum, sums: Sums) -> tuple[Tensor, Sums]:
    inputs = (k_BLKH, w_BLK, q_BLQHM2, *spectrum, *sums)
    if not _fits(k_BLKH) or (torch.is_grad_enabled() and any(part.requires_grad for part in inputs)):
        return spectral.sca_step(k_BLKH, w_BLK, q_BLQHM2, spectrum, sums)
    from nautile.model.kernels.step import sca_step

    return sca_step(k_BLKH, w_BLK, q_BLQHM2, spectrum, sums)


def _conv_silu(
    z_BLP: Tensor, kernel_P1c: Tensor, tail_BTP: Tensor | None = None, document_BL: Tensor | None = None
) -> Tensor:
    if not _fits(z_BLP):
        return _plain_conv_silu(z_BLP, kernel_P1c, tail_BTP, document_BL)
    from nautile.model.kernels.conv import conv_silu

    return conv_silu(z_BLP, kernel_P1c, tail_BTP, document_BL)
