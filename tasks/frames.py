"""From whatever holds texts to a frame of results on the same index."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
from rich.console import Console

from nautile.errors import NautileError
from nautile.tasks.files.chunks import CHUNK_ROWS
from nautile.tasks.files.tally import order_remark
from nautile.tasks.once import Once
from nautile.tasks.progress import Meter
from nautile.tasks.row_judge import RowJudge

SHOW_PROGRESS_FROM = 1000
DTYPES: dict[pa.DataType, Any] = {pa.float64(): "float64", pa.int64(): "int64", pa.string(): object}


def judged_frame(judge: RowJudge, texts: Any, column: str | None, progress: bool | None) -> pd.DataFrame:
    """The judge's columns for `texts`, on the input's own index.

    `attrs["remark"]` says how far the probabilities can be trusted, and how often the order of labels decides.
    """
    values, index = texts_of(texts, column)
    shown = len(values) >= SHOW_PROGRESS_FROM and Console(stderr=True).is_terminal if progress is None else progress
    once, parts = Once(judge), []
    with Meter(visible=shown) as meter:
        meter.begin(len(values))
        for start in range(0, max(1, len(values)), CHUNK_ROWS):
            columns = once(values[start : start + CHUNK_ROWS], lambda rows: meter.advance(rows, judged=True))
            typed = {name: pd.Series(columns[name], dtype=DTYPES[kind]) for name, kind in judge.columns.items()}
            parts.append(pd.DataFrame(typed))
    result = pd.concat(parts, ignore_index=True).set_axis(index, axis=0)
    turned = (result["agreement"] < 1).sum() if "agreement" in judge.columns else 0
    result.attrs["remark"] = "; ".join(filter(None, (judge.remark, order_remark(int(turned)))))
    return result


def texts_of(texts: Any, column: str | None = None) -> tuple[list[Any], pd.Index]:
    """The cells of a string, a list, a Series, an Arrow array or a frame's column, and their index.

    Raises:
        NautileError: what holds no texts, or an unknown or missing column.
    """
    if isinstance(texts, pd.DataFrame):
        return _column(texts, column)
    if column is not None:
        raise NautileError(f"column={column!r} needs a DataFrame, not a {type(texts).__name__}")
    if isinstance(texts, pd.Series):
        return texts.tolist(), texts.index
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        texts = texts.to_pylist()
    flat = isinstance(texts, Iterable) and not isinstance(texts, bytes | Mapping | pa.Table)
    if not flat or getattr(texts, "ndim", 1) != 1:
        kind = type(texts).__name__
        raise NautileError(f"texts must be a string, an iterable of strings, a Series or a DataFrame, not {kind}")
    values = [texts] if isinstance(texts, str) else list(texts)
    return values, pd.RangeIndex(len(values))


def _column(frame: pd.DataFrame, column: str | None) -> tuple[list[Any], pd.Index]:
    names = ", ".join(map(str, frame.columns))
    if column is None:
        raise NautileError(f"say which column holds the texts, column=…; there are: {names}")
    if not isinstance(column, Hashable) or column not in frame.columns:
        raise NautileError(f"no column {column!r}; there are: {names}")
    values = frame[column]
    if isinstance(values, pd.DataFrame):
        raise NautileError(f"{values.shape[1]} columns are named {column!r}; rename all but one")
    return values.tolist(), frame.index
