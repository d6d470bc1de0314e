"""SCA's chunks, compiled (torch.compile): a training step on a CPU takes some percent less time.

For processes that train a while: the first steps compile for about a minute, and a C++ compiler must be there.
"""

import torch

from nautile.model import spectral


def compile_sca() -> None:
    """Use the compiled function in this process from now on, for every model; results change by rounding only."""
    spectral._chunk = torch.compile(spectral._chunk, dynamic=True)
