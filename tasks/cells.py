"""What a cell holds: a text to judge, or why there is none."""

import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

# Anything but white space, controls and format characters such as the zero-width space and the byte order mark.
VISIBLE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff]")


class Cell(NamedTuple):
    """What can be said of one row before the model reads it: its text, or why there is none."""

    text: str | None
    note: str


def read_cell(value: Any) -> Cell:
    """The text of a cell; None, NaN, empty text and what is not text are told apart."""
    if isinstance(value, str):
        return Cell(value, "") if VISIBLE.search(value) else Cell(None, "empty text")
    if (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, float | np.floating) and value != value)
    ):
        return Cell(None, "missing")
    return Cell(None, f"not text: {type(value).__name__}")
