"""Kinds of judgment, and the arrays that hold them."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["single", "ordinal", "multi"]
"""One of the labels; one of them, which have an order; each label by itself."""

Array = NDArray[np.float64]

Truth = NDArray[np.int64] | NDArray[np.bool_]
"""(N): indices of labels; for "multi" (N,C): whether each holds."""
