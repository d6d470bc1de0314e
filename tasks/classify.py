"""`classify`: labels for the texts of a string, a list, a Series or a DataFrame, on the input's own index."""

from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from rich.console import Console

from nautile.errors import NautileError
from nautile.tasks.judge import Judge, load_judge
from nautile.tasks.progress import Meter

CHUNK_ROWS = 2048
SHOW_PROGRESS_FROM = 1000


@lru_cache(maxsize=4)
def _cached_judge(task: str, model: str | None) -> Judge:
    return load_judge(task, model)


def classify(
    texts: str | Iterable[Any] | pd.Series | pd.DataFrame,
    column: str | None = None,
    *,
    task: str = "sentiment",
    model: str | Path | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Label each text.

    Args:
        texts: one string, any iterable of strings, a Series, or a DataFrame with `column`.
        column: the DataFrame's column that holds the texts.
        task: a built-in task: "sentiment" (negative, neutral, positive).
        model: a checkpoint with a sequence classification head instead of the built-in one.
        progress: show a bar; by default from 1,000 texts on, where standard error is a terminal.

    Returns:
        A DataFrame on the input's index: `label`, `confidence`, one probability column a label, `windows` (how many
        windows the text was read in; more than one for a long text), and `note`. A row that holds no text keeps its
        place, without label, and `note` says why.

    Raises:
        NautileError: an unknown task, model or column.
    """
    values, index = _values(texts, column)
    judge = _cached_judge(str(task), None if model is None else str(model))
    shown = len(values) >= SHOW_PROGRESS_FROM and Console(stderr=True).is_terminal if progress is None else progress
    parts = []
    with Meter(visible=shown) as meter:
        meter.begin(len(values))
        for start in range(0, max(1, len(values)), CHUNK_ROWS):
            columns = judge(values[start : start + CHUNK_ROWS], lambda rows: meter.advance(rows, judged=True))
            parts.append(pd.DataFrame(columns))
    result = pd.concat(parts, ignore_index=True)
    kinds: dict[pa.DataType, Any] = {pa.float64(): "float64", pa.int64(): "int64", pa.string(): object}
    return result.astype({name: kinds[kind] for name, kind in judge.columns.items()}).set_axis(index, axis=0)


def _values(texts: Any, column: str | None) -> tuple[list[Any], pd.Index]:
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
