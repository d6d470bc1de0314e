"""The base of a run: what may be one, and the name by which others will find it."""

from pathlib import Path

from nautile.errors import NautileError
from nautile.model.places import SHIPPED, locate, part_at


def check_base(base: str) -> None:
    """Raise NautileError where `base` is no model, or what was tuned from one and has no weights of its own."""
    if (part := part_at(Path(locate(base)))) is not None:
        raise NautileError(f"{base}: holds {part}, which cannot be tuned further; give the model it was made from")


def lasting(base: str) -> str:
    """The base by a name that holds in every folder: a path made absolute; a shipped name or hub id as it is."""
    place = Path(locate(base))
    return str(place.resolve()) if base not in SHIPPED and place.exists() else base
