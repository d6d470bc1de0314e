"""The folder of a model that judges: whether the run which wrote it is finished, and its base still the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nautile.errors import NautileError
from nautile.model.places import fingerprint

CHECKPOINTS, MARK, FINISHED = "checkpoints", "run.json", "head.json"


def unfinished(folder: Path) -> bool:
    """Whether a run in the folder was begun and is not done."""
    return (folder / CHECKPOINTS / MARK).is_file()


def check_base(place: Path, base: str, about: Mapping[str, Any]) -> None:
    """Raise NautileError where the base is not the one that the head or adapter was made on."""
    known = about.get("base_digest")
    if known and (found := fingerprint(base)) and found != known:
        raise NautileError(f"{place}: was made on other weights of {base} than those there now; fine-tune it again")
