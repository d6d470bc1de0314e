"""SCA's chunks, compiled (torch.compile), for processors where that pays: measure first (CONTRIBUTING.md has figures).

The first steps compile for some minutes, once for each kind of call.
"""

import os
import shutil
from functools import cache
from typing import Any

import torch
import torch._dynamo

from nautile.errors import NautileError
from nautile.model import spectral

KINDS = 64  # of calls: with and without gradients, memory, lengths, of one row or of as many rows as heads
_plain = spectral._span


def compile_sca(enabled: bool = True) -> None:
    """Use the compiled function in this process from now on, for every model; or no longer.

    Results change by rounding only.

    Raises:
        NautileError: no C++ compiler is there.
    """
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++", "cl"]
    if enabled and not any(map(shutil.which, compilers)):
        raise NautileError(f"compiling needs a C++ compiler; not found: {', '.join(compilers)}")
    spectral._span = _compiled() if enabled else _plain


@cache
def _compiled() -> Any:
    torch._dynamo.config.recompile_limit = KINDS
    return torch.compile(_plain, dynamic=True)
