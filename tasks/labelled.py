"""Labelled rows from a frame, a file or a Hugging Face dataset: texts, and the truth as indices into the labels."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd

from nautile.errors import NautileError
from nautile.tasks.cells import read_cell
from nautile.tasks.files.delimited import Dialect
from nautile.tasks.files.formats import format_of
from nautile.tasks.files.readers import FileSource
from nautile.tasks.files.values import mended
from nautile.tasks.kinds import Kind
from nautile.tasks.names import RESERVED, check_labels
from nautile.tasks.wording import counted, few

SHOWN = 5
_FLAG = re.compile("(?:pass|name its encoding with) --.*")
_FLAG_OF_OTHERS = re.compile("pass --(?!encoding|delimiter).*")
_REMEDY = "save it as comma-separated UTF-8, or read it with pandas and pass the DataFrame"


class Labelled(NamedTuple):
    """Texts, their truth (N) as indices into `labels`, for "multi" (N,C) booleans, and what was left out, in words."""

    texts: list[str]
    truth: np.ndarray
    labels: tuple[str, ...]
    kind: Kind
    notes: list[str]

    def where(self, kept_N: np.ndarray) -> "Labelled":
        """The rows that are kept, of all labels."""
        texts = [text for text, kept in zip(self.texts, kept_N, strict=True) if kept]
        return self._replace(texts=texts, truth=self.truth[kept_N])


@dataclass(frozen=True)
class _Columns:
    """The cells of the two columns, what to call the source, and the names of integer labels where it has some."""

    name: str
    texts: Sequence[Any]
    cells: Sequence[Any]
    names: Sequence[str] | None = None


class Layout(NamedTuple):
    """How a file of text is written: its encoding, and what parts the cells of a line (None: as its suffix says)."""

    encoding: str = "utf-8"
    delimiter: str | None = None

    def check(self) -> None:
        """Raise NautileError for what is no text."""
        if not isinstance(self.encoding, str) or not self.encoding:
            raise NautileError(f"encoding must be a name such as 'utf-8', not {self.encoding!r}")
        if not isinstance(self.delimiter, str | None):
            raise NautileError(f"delimiter must be one character, not {self.delimiter!r}")


class _Row(NamedTuple):
    number: int
    text: str
    given: tuple[str, ...]


def read_labelled(
    source: Any,
    text: str = "text",
    label: str = "label",
    kind: Kind | None = None,
    labels: Sequence[str] | None = None,
    separator: str = ";",
    fewest_labels: int = 2,
    of_results: bool = True,
    layout: Layout | None = None,
) -> Labelled:
    """Read labelled rows; those without a text or a label are left out, counted in `notes`.

    Halves of surrogate pairs, which no file can hold, become U+FFFD in texts and labels.

    Args:
        source: a DataFrame, the path of a .csv, .tsv, .jsonl or .parquet file (text also .gz, .bz2, .xz), or a
            Hugging Face dataset.
        text: the column of texts.
        label: the column of labels; where it is absent, `labels` is taken.
        kind: of judgment; by default "multi" where labels are lists, else "single".
        labels: all labels, in order. Without it the labels of the data, sorted.
        separator: between the labels of a cell that is text, for "multi". An empty list means "none of them".
        fewest_labels: that there must be, where a row has one label.
        of_results: whether the labels will be columns of results, which not every name can be; else they are compared
            with those of a model, which has its kind.
        layout: of a text file, where the caller's user can say it; other sources have none.

    Raises:
        NautileError: what cannot be read, columns that are not there, labels that are unknown or too few.
    """
    if kind is not None and kind not in get_args(Kind):
        raise NautileError(f"unknown kind {kind!r}; choose one of {', '.join(get_args(Kind))}")
    if not isinstance(separator, str) or not separator:
        raise NautileError(f"separator must be a text such as ';', not {separator!r}")
    if layout is not None:
        layout.check()
    columns = _columns(source, text, label, layout)
    listed = next((_listed(cell) for cell in columns.cells if not _missing(cell)), False)
    kind = kind or ("multi" if listed else "single")
    rows, notes = _rows(columns, kind, separator, of_results)
    if not rows:
        raise NautileError(f"{columns.name}: no row has both a text and a label; look at the columns {text}, {label}")
    known = _labels(columns, rows, kind, labels, notes)
    if of_results:
        _check_names(columns.name, known, kind)
    _check_known(columns.name, rows, known)
    if kind != "multi" and len(known) < fewest_labels:
        raise NautileError(f"{columns.name}: all rows have the label {known[0]!r}; there must be two labels at least")
    return Labelled([row.text for row in rows], _truth(rows, known, kind), known, kind, notes)


def label_name(value: str | Real | np.bool_) -> str:
    """The name of a label that is text, a number or a boolean: 2.0 is "2"."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return mended(str(value)).strip()


def _columns(source: Any, text: str, label: str, layout: Layout | None) -> _Columns:
    if isinstance(source, str) and not source:
        raise NautileError("the file of labelled rows has an empty name; name a file")
    if isinstance(source, str | Path):
        return _file_columns(Path(source), text, label, layout)
    names = None
    if isinstance(source, pd.DataFrame):
        frame, name = source, "the DataFrame"
    elif hasattr(source, "to_pandas"):
        frame, name = source.to_pandas(), "the dataset"
        names = _class_names(source, _label_column(list(frame.columns), label, name))
    elif isinstance(source, Mapping) and all(hasattr(part, "to_pandas") for part in source.values()):
        raise NautileError(f"the dataset has several splits: give one of them, such as data[{next(iter(source))!r}]")
    else:
        raise NautileError(
            f"data must be a DataFrame, the path of a file or a Hugging Face dataset, not {type(source).__name__}"
        )
    label = _label_column(list(frame.columns), label, name)
    _column(list(frame.columns), text, name)
    return _Columns(name, _cells(frame, text), _cells(frame, label), names)


def _cells(frame: pd.DataFrame, column: str) -> list[Any]:
    values = frame[column]
    if isinstance(values, pd.DataFrame):
        raise NautileError(f"{values.shape[1]} columns are named {column!r}; rename all but one")
    return values.tolist()


def _file_columns(path: Path, text: str, label: str, layout: Layout | None) -> _Columns:
    try:
        texts, cells = _file_cells(path, text, label, layout or Layout())
    except NautileError as error:
        raise NautileError((_FLAG_OF_OTHERS if layout else _FLAG).sub(_REMEDY, str(error))) from None
    return _Columns(str(path), texts, cells)


def _file_cells(path: Path, text: str, label: str, layout: Layout) -> tuple[list[Any], list[Any]]:
    texts: list[Any] = []
    cells: list[Any] = []
    format = format_of(path)
    dialect = Dialect.of(format.kind, layout.delimiter)
    with FileSource(path, format, layout.encoding, dialect).open() as rows:
        _column(rows.columns, text, str(path))
        label = _label_column(rows.columns, label, str(path))
        for chunk in rows.chunks:
            texts += chunk.values(text)
            cells += chunk.values(label)
    return texts, cells


def _column(there: Sequence[Any], wanted: str, name: str) -> str:
    if wanted not in there:
        raise NautileError(f"{name} has no column {wanted!r}; there are: {', '.join(map(str, there[:20]))}")
    return wanted


def _label_column(there: Sequence[Any], wanted: str, name: str) -> str:
    return "labels" if wanted == "label" and wanted not in there and "labels" in there else _column(there, wanted, name)


def _class_names(dataset: Any, label: str) -> Sequence[str] | None:
    """The names that a Hugging Face dataset has for its integer labels."""
    feature = (getattr(dataset, "features", None) or {}).get(label)
    names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
    return [label_name(str(name)) for name in names] if names else None


def _listed(cell: Any) -> bool:
    return isinstance(cell, list | tuple | set | np.ndarray)


def _missing(cell: Any) -> bool:
    return not _listed(cell) and (read_cell(cell).note == "missing" or (isinstance(cell, str) and not cell.strip()))


def _rows(columns: _Columns, kind: Kind, separator: str, free: bool) -> tuple[list[_Row], list[str]]:
    rows, textless, unlabelled = [], 0, 0
    for number, (value, cell) in enumerate(zip(columns.texts, columns.cells, strict=True), start=1):
        text = read_cell(value).text
        if text is None:
            textless += 1
        elif _missing(cell):
            unlabelled += 1
        else:
            rows.append(_Row(number, mended(text), _given(cell, columns, kind, separator, number, free)))
    counts = ((textless, "text"), (unlabelled, "label"))
    return rows, [f"{counted(count, 'row')} without a {what} left out" for count, what in counts if count]


def _given(cell: Any, columns: _Columns, kind: Kind, separator: str, number: int, free: bool) -> tuple[str, ...]:
    """The labels of one row, each once; `free` says whether the user may change the kind."""
    if kind == "multi" and isinstance(cell, str):
        parts: Iterable[Any] = cell.split(separator)
    elif _listed(cell):
        parts = list(cell)
    else:
        parts = [cell]
    named = (_name(part, columns, number) for part in parts)
    found = tuple(dict.fromkeys(name for name in named if name))
    if kind != "multi" and len(found) != 1:
        raise NautileError(
            f"{columns.name}, row {number}: {counted(len(found), 'label')} in a list, but kind is {kind}, "
            "one label a row; change the row" + ", or the kind to multi" * free
        )
    return found


def _name(value: Any, columns: _Columns, number: int) -> str:
    if not isinstance(value, str | Real | np.bool_):
        raise NautileError(
            f"{columns.name}, row {number}: a label must be text or a number, not {type(value).__name__}; "
            "change the column"
        )
    named = label_name(value)
    if columns.names and isinstance(value, Real) and named.isdecimal() and int(named) < len(columns.names):
        return columns.names[int(named)]
    return named


def _labels(
    columns: _Columns, rows: list[_Row], kind: Kind, given: Sequence[str] | None, notes: list[str]
) -> tuple[str, ...]:
    found = {label for row in rows for label in row.given}
    if given is None:
        if kind == "ordinal":
            raise NautileError(f"ordinal labels need their order: give labels, lowest first; {few(_sorted(found))}")
        known = tuple(columns.names) if columns.names else tuple(_sorted(found))
    else:
        known = _known(given)
        if absent := [label for label in known if label not in found]:
            notes.append(f"no row has the label {few(absent)}")
    return known


def _check_names(name: str, known: tuple[str, ...], kind: Kind) -> None:
    if taken := [label for label in known if label in RESERVED]:
        raise NautileError(
            f"{name}: the label {taken[0]!r} is also a column of every result; rename that label in the data"
        )
    check_labels(known, joined=kind == "multi")


def _known(given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise NautileError(f"labels must be a list of texts, not {given!r}")
    items = list(given)
    if odd := [item for item in items if not isinstance(item, str | Real | np.bool_)]:
        raise NautileError(f"labels must be texts or numbers, not {odd[0]!r}")
    return tuple(map(label_name, items))


def _check_known(name: str, rows: list[_Row], known: tuple[str, ...]) -> None:
    where: dict[str, list[int]] = {}
    for row in rows:
        for label in row.given:
            where.setdefault(label, []).append(row.number)
    if unknown := [label for label in where if label not in set(known)]:
        places = ", ".join(f"{label!r} (row {few(list(map(str, where[label])), SHOWN)})" for label in unknown[:SHOWN])
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise NautileError(f"{name}: labels that are not among those given: {places}{more}; add or correct them")


def _truth(rows: list[_Row], known: tuple[str, ...], kind: Kind) -> np.ndarray:
    index = {label: n for n, label in enumerate(known)}
    if kind != "multi":
        return np.array([index[row.given[0]] for row in rows], dtype=np.int64)
    truth = np.zeros((len(rows), len(known)), dtype=bool)
    for n, row in enumerate(rows):
        truth[n, [index[label] for label in row.given]] = True
    return truth


def _sorted(labels: Iterable[str]) -> list[str]:
    """By value where all are whole numbers, else by spelling."""
    found = sorted(labels)
    return sorted(found, key=int) if all(label.removeprefix("-").isdecimal() for label in found) else found
