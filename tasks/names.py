"""What a label may be called, and that a file or folder has a name."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nautile.errors import NautileError

RESERVED = ("label", "confidence", "set", "windows", "note", "legal_mass", "agreement")
SEPARATOR = "; "  # between the labels of one row


def check_labels(labels: Sequence[str], joined: bool = False) -> None:
    """Raise NautileError unless the labels can be columns of a result, and where `joined`, parts of one cell."""
    if not labels:
        raise NautileError("there are no labels: give at least one")
    if odd := [label for label in labels if not isinstance(label, str) or not label.strip() or label in RESERVED]:
        raise NautileError(f"labels must be texts, not empty and none of {', '.join(RESERVED)}: {odd[:5]}")
    if twice := sorted(label for label, times in Counter(labels).items() if times > 1):
        raise NautileError(f"labels must be distinct; more than once: {twice[:5]}")
    if joined and (cut := [label for label in labels if SEPARATOR in label]):
        raise NautileError(
            f"several labels of one text are joined by {SEPARATOR!r}, so no label may hold it: {cut[:5]}"
        )


def named(what: str, name: str | None) -> Path | None:
    """The path of a name, if one is given; raises NautileError for an empty one: as a path, the current folder."""
    if name == "":
        raise NautileError(f"{what} is an empty name; leave it out, or name a file or folder")
    return None if name is None else Path(name)
