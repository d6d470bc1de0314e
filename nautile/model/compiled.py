"""SCA's chunks, compiled (torch.compile), for processes that train a while.

The first steps compile for some minutes, once for each kind of call, and a C++ compiler must be there.
"""

import torch
import torch._dynamo

from nautile.model import spectral

KINDS = 64  # of calls: with and without gradients, memory, lengths, of one row or of as many rows as heads


def compile_sca() -> None:
    """Use the compiled function in this process from now on, for every model; results change by rounding only."""
    torch._dynamo.config.recompile_limit = KINDS
    spectral._chunk = torch.compile(spectral._chunk, dynamic=True)
