"""JSON Lines: one object a line, read as strict JSON and written back as it was, but for digits beyond a double's."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Never

from nautile.errors import NautileError
from nautile.tasks.files.chunks import ListChunk, grouped
from nautile.tasks.files.values import distinct_keys, has_halves

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class _Line:
    number: int
    cells: dict[str, object]
    broken: bool


def read_json_lines(lines: Iterable[str], name: str, limit: int | None) -> tuple[list[str], Iterator[ListChunk]]:
    """The columns of the first chunk in the order they appear, and the chunks; a missing key is None.

    Blank lines are no rows. Raises NautileError that names the line: broken JSON, no object, a key twice in one
    object, NaN or Infinity, a number beyond float64, a key that the first chunk doesn't have.
    """
    groups = grouped(islice(_parsed(lines, name), limit))
    first = next(groups, None)
    if first is None:
        raise NautileError(f"{name} is empty: it holds no JSON object")
    columns = list(dict.fromkeys(key for line in first for key in line.cells))
    if not columns:
        raise NautileError(f"{name}: the objects have no keys, so there is no text")
    if has_halves("".join(columns)):
        raise NautileError(f"{name}: a key holds half of a surrogate pair; rename it")
    return columns, (_chunk(group, columns, name) for group in chain([first], groups))


def _chunk(group: list[_Line], columns: list[str], name: str) -> ListChunk:
    known = set(columns)
    for line in group:
        if not line.cells.keys() <= known:
            key = next(key for key in line.cells if key not in known)
            raise NautileError(
                f"{name}, line {line.number}: the key {key!r} is not among the columns of the first rows "
                f"({', '.join(columns[:20])}); give it to the first row too, null if need be"
            )
    rows = [[line.cells.get(column) for column in columns] for line in group]
    return ListChunk(columns, rows, sum(line.broken for line in group))


def _parsed(lines: Iterable[str], name: str) -> Iterator[tuple[_Line, int]]:
    for number, text in enumerate(lines, start=1):
        if text.isspace():
            continue
        try:
            cells = _DECODER.decode(text)
        except json.JSONDecodeError as error:
            raise NautileError(f"{name}, line {number}: broken JSON, {error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise NautileError(f"{name}, line {number}: {error}") from error
        if not isinstance(cells, dict):
            raise NautileError(f"{name}, line {number}: no JSON object; JSON Lines holds one {{...}} on every line")
        broken = _SURROGATE_ESCAPE.search(text) is not None and has_halves(json.dumps(cells, ensure_ascii=False))
        yield _Line(number, cells, broken), len(text)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits} is beyond float64; make it a string")
    return number


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON; write null")


_DECODER = json.JSONDecoder(object_pairs_hook=distinct_keys, parse_float=_finite, parse_constant=_no_constant)
