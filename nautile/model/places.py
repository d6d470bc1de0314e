"""Where checkpoints are, what their folders hold, and whether they are still the same: without torch."""

import hashlib
import json
import os
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from nautile.errors import NautileError

SHIPPED = ("nautile-mini",)
PARTS = ("*", "heads/*/*", "language/*")  # of a checkpoint's folder
Stamp = tuple[str, tuple[tuple[str, int, int], ...]]


def locate(model: str | Path) -> str:
    """Where a checkpoint is: the path of a folder or file, or the hub id "owner/name" it must be.

    Raises:
        NautileError: a name that is neither shipped nor a path nor of the form of a hub id.
    """
    if not isinstance(model, str | os.PathLike):
        raise NautileError(f"a model is given by its name or path, not as {model!r}")
    if str(model) in SHIPPED:
        return str(files("nautile") / "assets" / str(model))
    if _exists(model):
        return str(model)
    if isinstance(model, str) and model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return model
    raise NautileError(
        f"unknown model {str(model)!r}: give {' or '.join(map(repr, SHIPPED))}, the path of a checkpoint, or a hub id"
    )


def stamp(model: str | Path) -> Stamp:
    """Tells a model's files by path, size and time of change, so that caches notice another; a hub id tells itself."""
    if str(model) not in SHIPPED and not _exists(model):
        return str(model), ()
    place = Path(locate(model))
    inside = sorted(path for pattern in PARTS for path in place.glob(pattern) if path.is_file())
    found = inside if place.is_dir() else [place]
    seen = [(path, path.stat()) for path in found]
    return str(place.resolve()), tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in seen)


def fingerprint(model: str | Path) -> str:
    """A digest of a checkpoint's weights, wherever they lie; empty for a hub id, whose weights are elsewhere."""
    place = Path(locate(model))
    if not _exists(place):
        return ""
    weights = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
    digest = hashlib.sha256()
    for path in weights:
        stat = path.stat()
        digest.update(_digest(str(path), stat.st_size, stat.st_mtime_ns))
    return digest.hexdigest()[:16]


@lru_cache(maxsize=64)
def _digest(path: str, size: int, changed: int) -> bytes:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_config(file: Path) -> dict[str, Any]:
    """The object in a config.json; raises NautileError for anything else."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise NautileError(f"{file}: not a readable JSON file ({error})") from None
    if not isinstance(config, dict):
        raise NautileError(f"{file}: holds a JSON {type(config).__name__}, not an object")
    return config


def part_at(place: Path) -> str | None:
    """What a folder holds that was tuned on a model and needs that one's weights; None for anything else."""
    parts = {"adapter_config.json": "an adapter", "head.safetensors": "a head"}
    return next((what for file, what in parts.items() if (place / file).is_file()), None)


def check_new(folder: Path) -> None:
    """Raise NautileError where something is already there; an empty folder is nothing."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise NautileError(f"{folder}: exists already; give a new or empty folder")


def make_readable(folder: Path) -> None:
    """Give a folder's weight files the mode that new files get: safetensors writes them for their owner alone."""
    os.umask(mask := os.umask(0))
    for path in folder.glob("*.safetensors"):
        path.chmod(0o666 & ~mask)


def _exists(path: str | Path) -> bool:
    try:
        return path != "" and Path(path).exists()  # as a path, an empty name would be the current folder
    except OSError:  # a name too long to be a path
        return False
