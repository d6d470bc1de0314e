"""What scikit-learn hands over as X: a column of texts, in any of the shapes that it comes in."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from nautile.errors import NautileError
from nautile.tasks.cells import read_cell
from nautile.tasks.wording import few

EMPTY = ("error", "zero")


def texts_of(X: Any, empty: str = "error") -> list[str | None]:
    """The texts of a list, array, Series, or a frame or 2-D array of one column; None where a row has none.

    Raises:
        NautileError: what holds no texts, and with `empty="error"` rows without one, named by their position.
    """
    if empty not in EMPTY:
        raise NautileError(f"unknown empty={empty!r}; choose one of {', '.join(map(repr, EMPTY))}")
    cells = [read_cell(value) for value in _column(X)]
    if not cells:
        raise NautileError("X holds 0 texts, at least 1 is needed")
    wrong = [n for n, cell in enumerate(cells) if cell.text is None and (empty == "error" or "not text" in cell.note)]
    if wrong:
        told = few([f"{n} ({cells[n].note})" for n in wrong])
        remedy = "turn them into texts" if "not text" in cells[wrong[0]].note else 'fill them, or give empty="zero"'
        raise NautileError(f"{len(wrong)} of {len(cells)} rows of X hold no text: {told}; {remedy}")
    return [cell.text for cell in cells]


def _column(X: Any) -> list[Any]:
    if hasattr(X, "toarray"):
        raise NautileError("X is a sparse matrix; give the texts themselves")
    if isinstance(X, str | bytes | Mapping):
        raise NautileError(f"X must be a list of texts, not one {type(X).__name__}")
    if isinstance(X, pd.Series):
        return X.tolist()
    if isinstance(X, pd.DataFrame):
        _one_column(X.shape)
        return X.iloc[:, 0].tolist()
    if hasattr(X, "to_pylist"):
        return list(X.to_pylist())
    if not isinstance(X, np.ndarray) and not hasattr(X, "__array__"):
        if not isinstance(X, Iterable):
            raise NautileError(f"X must be a list of texts, not a {type(X).__name__}")
        X = list(X)
        if not any(isinstance(row, list | tuple | np.ndarray) for row in X):
            return X
        X = _rectangle(X)
    X = np.asarray(X)
    _one_column(X.shape)
    return X.ravel().tolist()


def _rectangle(rows: list[Any]) -> np.ndarray:
    if len({len(row) if isinstance(row, list | tuple | np.ndarray) else -1 for row in rows}) > 1:
        raise NautileError("X mixes texts and lists; give one text a row")
    return np.array([list(row) for row in rows], dtype=object)


def _one_column(shape: tuple[int, ...]) -> None:
    if len(shape) == 0 or len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        raise NautileError(f"X has the shape {shape}; give one column of texts, such as df['text']")
