"""The elementwise parts of SCA, compiled (torch.compile): a training step on a CPU takes about a third less time.

For processes that train a while: the first steps compile for about a minute, and a C++ compiler must be there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nautile.model import sca, spectral


def compile_sca() -> None:
    """Use compiled functions in this process from now on, for every model; results change by rounding only."""
    spectral._chunk = torch.compile(spectral._chunk, dynamic=True)
    whole, taps = sca.causal_conv, torch.compile(conv_by_taps, dynamic=True)

    def causal_conv(
        z_BLP: Tensor, kernel_P1c: Tensor, tail_BTP: Tensor | None = None, document_BL: Tensor | None = None
    ) -> Tensor:
        return taps(z_BLP, kernel_P1c, tail_BTP) if document_BL is None else whole(z_BLP, kernel_P1c, None, document_BL)

    sca.causal_conv = causal_conv


def conv_by_taps(z_BLP: Tensor, kernel_P1c: Tensor, tail_BTP: Tensor | None) -> Tensor:
    """`causal_conv` of unpacked rows as a sum over its taps, which fuses where a convolution does not."""
    L, c = z_BLP.shape[1], kernel_P1c.shape[-1]
    padded = F.pad(z_BLP, (0, 0, c - 1, 0)) if tail_BTP is None else torch.cat([tail_BTP, z_BLP], dim=1)
    out = padded[:, :L] * kernel_P1c[:, 0, 0]
    for tap in range(1, c):
        out = out + padded[:, tap : tap + L] * kernel_P1c[:, 0, tap]
    return out
