"""Cells as text and as JSON: what a value looks like in a file that has no type for it."""

import base64
import json
import math
import re
from datetime import date, time
from typing import Any

_HALVES = re.compile("[\ud800-\udfff]")


def has_halves(text: str) -> bool:
    """Whether `text` holds half of a surrogate pair, which no encoding can write."""
    return not text.isascii() and _HALVES.search(text) is not None


def mended(text: str) -> str:
    """`text` with U+FFFD in place of every lone half of a surrogate pair."""
    return _HALVES.sub("\ufffd", text) if has_halves(text) else text


def distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What a JSON object holds, for `object_pairs_hook`; raises ValueError where a key stands in it twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object, so one of its values would be lost")
    return found


def plain(value: object) -> object:
    """`value` in the types JSON knows: dates as ISO 8601, bytes as base64, NaN and infinity as null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, date | time) else str(value)


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=plain)


def as_json(value: object) -> str:
    """`value` as one line of strict JSON; a lone half of a surrogate pair stays the escape it was."""
    try:
        text = _ENCODER.encode(value)
    except ValueError:
        text = _ENCODER.encode(plain(value))
    return json.dumps(plain(value), allow_nan=False) if has_halves(text) else text


def as_text(value: object) -> str:
    """`value` as the text of one cell: strings as they are, None as "", everything else as its JSON text."""
    if isinstance(value, float) or type(value) is int:  # most cells of results
        return repr(value)
    if isinstance(value, str):
        return mended(value)
    if value is None:
        return ""
    simple = plain(value)
    return mended(simple if isinstance(simple, str) else as_json(simple))
