"""Fifths of the rows, always the same, so that all cross-fitted figures of one set of rows are of the same parts."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

FOLDS = 5


def folds_of(rows: int) -> NDArray[np.int64]:
    """(rows): the fold of each row."""
    return np.random.default_rng(0).permutation(rows) % FOLDS


def folds_of_texts(texts: Sequence[Hashable]) -> NDArray[np.int64]:
    """(N): the same for texts, or what stands for them; copies fall into one fold."""
    place = {text: n for n, text in enumerate(dict.fromkeys(texts))}
    return folds_of(len(place))[[place[text] for text in texts]]
