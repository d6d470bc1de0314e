"""Judging models by name. A head on a backbone needs no model of transformers, which takes seconds to import."""

from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from nautile.engine.reader import Reader
from nautile.errors import NautileError
from nautile.model.backbone import read_backbone
from nautile.model.places import Stamp, locate, stamp
from nautile.tasks.heads.folder import check_base, unfinished
from nautile.tasks.heads.head import Head, load_head
from nautile.tasks.heads.precision import convert, dtype_of, settled
from nautile.tasks.question import BASE, check_device, check_precision, check_task

KEPT = 4  # models kept in memory


def load_task(task: str, precision: str = "float32", device: str = "cpu") -> tuple[Reader, Head]:
    """A built-in task: its head, and the reader of the shared backbone, or of its own where it has one.

    Raises:
        NautileError: an unknown task.
    """
    check_task(task)
    return load_judging(Path(locate(BASE)) / "heads" / task, precision, device)


def load_judging(model: str | Path, precision: str = "float32", device: str = "cpu") -> tuple[Reader, Head]:
    """The reader and head of a fine-tuned folder (adapter, head or checkpoint), or of a checkpoint with labels.

    The backbone is in `precision` on `device`, the head in float32 on the CPU.

    Raises:
        NautileError: no such model, a damaged one, one without labels, or one whose base has changed.
    """
    check_precision(precision)
    check_device(device)
    return _load_judging(str(locate(model)), stamp(model), *settled(precision, device))


@lru_cache(maxsize=KEPT)
def _load_judging(model: str, stamp: Stamp, precision: str, device: str) -> tuple[Reader, Head]:
    place = Path(model)
    if unfinished(place):
        raise NautileError(f"{model}: an unfinished run of nautile finetune; its command, given again, goes on with it")
    if (place / "head.safetensors").is_file():
        head = load_head(place)
        base = str(head.about.get("base", BASE))
        check_base(place, base, head.about)
        return base_reader(base, precision, device), head
    from nautile.tasks.heads.tuned import load_tuned

    scored, head = load_tuned(model)
    return _reader_in(precision, device, scored), head


def base_reader(base: str, precision: str = "float32", device: str = "cpu") -> Reader:
    """The reader of a base model; several heads share it as long as its files stay as they are."""
    check_precision(precision)
    check_device(device)
    return _base_reader(base, stamp(base), *settled(precision, device))


@lru_cache(maxsize=KEPT)
def _base_reader(base: str, stamp: Stamp, precision: str, device: str) -> Reader:
    if (plain := read_backbone(Path(locate(base)), dtype_of(precision))) is not None:
        return _reader_in(precision, device, plain)
    from nautile.model.checkpoints import load

    return _reader_in(precision, device, load(base, dtype_of(precision)))


def _reader_in(precision: str, device: str, model: nn.Module) -> Reader:
    reader = Reader(model)
    convert(reader.model, precision)
    reader.model.to(torch.device(device))
    return reader
