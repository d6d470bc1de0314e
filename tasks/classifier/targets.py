"""What scikit-learn hands over as y: one class a row, an indicator matrix, or a list of labels a row; and back."""

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from nautile.errors import NautileError
from nautile.tasks.cells import read_cell
from nautile.tasks.kinds import Array, Kind

Form = Literal["class", "indicator", "lists"]
COLLECTIONS = (list, tuple, set, frozenset, np.ndarray)


class Targets(NamedTuple):
    """Truth (N,C) of `classes` (C), in the form that y came in and predictions go out; dtype that of an indicator."""

    classes: np.ndarray
    truth_NC: Array
    form: Form
    dtype: str = "int64"

    @property
    def kind(self) -> Kind:
        """Kind of judgment."""
        return "single" if self.form == "class" else "multi"


def read_targets(y: Any, multi_label: bool) -> Targets:
    """The classes of y, sorted, and what is true of each row.

    Raises:
        NautileError: no y, or one of several columns without `multi_label`, or one column with it.
        ValueError: scikit-learn's own words on NaN and continuous targets.
    """
    if y is None:
        raise NautileError("Classifier requires y to be passed, but the target y is None")
    if multi_label:
        return _lists(y) if _holds_lists(y) else _indicator(y)
    if _holds_lists(y):
        raise NautileError("y holds a list of labels for each text; give multi_label=True")
    column = _column(y)
    assert_all_finite(column, input_name="y")
    check_classification_targets(column)
    classes, index_N = np.unique(column, return_inverse=True)
    return Targets(classes, np.eye(len(classes))[index_N], "class")


def _column(y: Any) -> np.ndarray:
    """One class a row, in NumPy's own types; nothing that is missing becomes a text, and no number does."""
    found = _without_nulls(y) if hasattr(y, "shape") else np.asarray(y, dtype=object)
    if found.ndim == 2 and found.shape[1] > 1:
        raise NautileError(f"y has {found.shape[1]} columns; for several labels a text give multi_label=True")
    column: np.ndarray = column_or_1d(found, warn=True)
    if column.dtype.kind == "O":
        if missing := np.flatnonzero(pd.isna(column)).tolist():
            raise NautileError(f"y holds no label in rows {missing[:5]}; fill them or leave these rows out")
        if len({isinstance(label, str) for label in column}) > 1:
            raise NautileError("y mixes texts and numbers as labels; give all in one type")
    return column if hasattr(y, "shape") else np.asarray(column.tolist())


def _without_nulls(y: Any) -> Any:
    """A Series of pandas' nullable or Arrow's numbers, if none is missing, as NumPy's: else all would become floats."""
    dtype = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
    return y.to_numpy(dtype) if dtype is not None and dtype.kind in "biuf" and not y.isna().any() else y


def _holds_lists(y: Any) -> bool:
    """Whether rows are collections of labels, rather than of zeros and ones."""
    rows = [row for row in y if isinstance(row, COLLECTIONS)] if _walks(y) else []
    if not rows:
        return False
    widths = {len(row) for row in rows}
    if any(isinstance(row, set | frozenset) for row in rows) or len(widths) > 1 or widths == {0}:
        return True
    if any(value not in (0, 1) for row in rows for value in row):
        return True
    if widths == {1} and not isinstance(y, np.ndarray):
        raise NautileError("y holds a lone 0 or 1 in each list, label or mark: name labels in words, or give an array")
    return False


def _walks(y: Any) -> bool:
    return not hasattr(y, "columns") and getattr(y, "ndim", 1) == 1 and hasattr(y, "__iter__")


def label_lists(y: Any) -> list[Any]:
    """The labels of each row.

    Raises:
        NautileError: a row that is no collection of labels, or holds a missing one.
    """
    rows = [[row] if isinstance(row, str) else row for row in y]
    if wrong := [n for n, row in enumerate(rows) if not isinstance(row, COLLECTIONS)]:
        raise NautileError(f"y holds no labels in rows {wrong[:5]}; give an empty list where none applies")
    if missing := [n for n, row in enumerate(rows) if any(read_cell(label).note == "missing" for label in row)]:
        raise NautileError(f"y holds a missing label in rows {missing[:5]}; leave it out")
    return rows


def _lists(y: Any) -> Targets:
    rows = label_lists(y)
    found = [label for row in rows for label in row]
    if not found:
        raise NautileError("y holds no label at all; there is nothing to learn")
    if len({isinstance(label, str) for label in found}) > 1:
        raise NautileError("y mixes texts and numbers as labels; give all in one type")
    classes = np.unique(found)
    place = {label: n for n, label in enumerate(classes.tolist())}
    truth_NC = np.zeros((len(rows), len(classes)))
    for n, row in enumerate(rows):
        truth_NC[n, [place[label] for label in row]] = 1
    return Targets(classes, truth_NC, "lists")


def _indicator(y: Any) -> Targets:
    given = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
    if given.ndim != 2:
        raise NautileError("multi_label=True takes y as an indicator matrix or a list of labels for each text")
    if not np.isin(given, (0, 1)).all():
        raise NautileError("an indicator matrix y holds zeros and ones only")
    names = np.asarray(y.columns) if hasattr(y, "columns") else np.arange(given.shape[1])
    return Targets(names, given.astype(float), "indicator", str(given.dtype))


def as_given(targets: Targets, chosen_NC: np.ndarray) -> np.ndarray:
    """Predictions, (N,C) booleans, in the form of y: classes, an indicator matrix, or an array of tuples of labels."""
    if targets.form == "class":
        found: np.ndarray = targets.classes[chosen_NC.argmax(axis=1)]
        return found
    if targets.form == "indicator":
        return chosen_NC.astype(targets.dtype)
    rows = np.empty(len(chosen_NC), dtype=object)
    rows[:] = [tuple(targets.classes[row].tolist()) for row in chosen_NC]
    return rows


def merge(parts: list[Targets], classes: Any = None) -> Targets:
    """Rows of several batches as one, over all their classes and those of `classes`.

    Raises:
        NautileError: batches of different forms or kinds of labels.
    """
    first = parts[0]
    if any(part.form != first.form for part in parts):
        raise NautileError("y comes in another form than before; give all batches in one form")
    if first.form == "indicator":
        if any(not np.array_equal(part.classes, first.classes) for part in parts):
            raise NautileError("y has other columns than before; give every batch all labels")
        return first._replace(truth_NC=np.vstack([part.truth_NC for part in parts]))
    named = [part.classes for part in parts] + ([] if classes is None else [np.asarray(classes)])
    if len({"text" if names.dtype.kind in "OUS" else "number" for names in named if len(names)}) > 1:
        raise NautileError("labels are texts in one batch and numbers in another; give all in one type")
    known = np.unique(np.concatenate([names for names in named if len(names)] or named))
    truth_NC = np.zeros((sum(len(part.truth_NC) for part in parts), len(known)))
    row = 0
    for part in parts:
        truth_NC[row : row + len(part.truth_NC), np.searchsorted(known, part.classes)] = part.truth_NC
        row += len(part.truth_NC)
    return first._replace(classes=known, truth_NC=truth_NC)
