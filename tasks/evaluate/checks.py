"""What can be refused before anything is loaded or measured."""

import os
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, get_args

from nautile.errors import NautileError
from nautile.tasks.evaluate import MOST_RESAMPLES
from nautile.tasks.evaluate.baselines import check_baselines
from nautile.tasks.evaluate.report import PICTURES
from nautile.tasks.evaluate.results import Summary
from nautile.tasks.extras import require
from nautile.tasks.heads.folder import FINISHED, unfinished
from nautile.tasks.kinds import Kind

FIGURES, REPORT = "figures.json", "report.md"


def check_numbers(kind: Any, resamples: Any, seed: Any) -> None:
    """Raise NautileError for an unknown kind, or what is no count."""
    if kind is not None and kind not in get_args(Kind):
        raise NautileError(f"unknown kind {kind!r}; choose one of {', '.join(get_args(Kind))}")
    for name, value in (("resamples", resamples), ("seed", seed)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
            raise NautileError(f"{name} must be a whole number, 0 or more, not {value!r}")
    if resamples > MOST_RESAMPLES:
        raise NautileError(f"resamples must be {MOST_RESAMPLES:,} at most, not {resamples:,}")


def check_training(baselines: Sequence[str], train: Any) -> None:
    """Raise NautileError for unknown baselines, or baselines and rows to train them on where one lacks the other."""
    if isinstance(baselines, str) or not isinstance(baselines, Sequence):
        raise NautileError(f"baselines must be a list such as ['tfidf'], not {baselines!r}")
    check_baselines(baselines)
    if baselines and train is None:
        raise NautileError("a baseline is trained on labelled rows of its own: give train, rows like the data's")
    if train is not None and not baselines:
        raise NautileError("train is for baselines: name one, tfidf or minilm")


def check_rename(rename: Any) -> None:
    """Raise NautileError for what is no mapping of labels."""
    if rename is not None and not isinstance(rename, Mapping):
        raise NautileError(f"rename must be a dict, the data's name of a label to the model's, not {rename!r}")


def check_output(output: Any) -> None:
    """Raise NautileError where no folder can be at `output`, or it holds something else, or nothing could be drawn."""
    if output is None:
        return
    if not isinstance(output, str | Path) or not str(output):
        raise NautileError(f"output must be the path of a folder, not {output!r}")
    require("finetune", "matplotlib", purpose="drawing figures")
    check_folder(Path(output))
    check_report(Path(output))


def check_report(folder: Path) -> None:
    """Raise NautileError where a report would stand among a model's files, or replace what no evaluation wrote."""
    if unfinished(folder) or (folder / FINISHED).is_file():
        raise NautileError(f"{folder}: holds a fine-tuned model; name another folder")
    taken = [name for name in (FIGURES, REPORT, *PICTURES) if (folder / name).exists()]
    if taken and not _is_evaluation(folder):
        raise NautileError(f"{folder}: holds a {taken[0]} that no evaluation wrote; name another folder")


def _is_evaluation(folder: Path) -> bool:
    try:
        Summary.model_validate_json((folder / FIGURES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def check_folder(folder: Path) -> None:
    """Raise NautileError where a file, or the length of the name, is in the way of the folder."""
    try:
        found = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    except OSError as error:
        raise NautileError(f"{folder}: cannot be a folder ({error.strerror}); name another one") from None
    if not found.is_dir():
        raise NautileError(f"{found}: is a file, where a folder is to be; name another one")


def make_folder(folder: Path) -> None:
    """Make the folder; raises NautileError where that, or writing into it, is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NautileError(f"{folder}: cannot be made ({error.strerror}); name another folder") from None
    if not os.access(folder, os.W_OK):
        raise NautileError(f"{folder}: cannot be written to; name another folder")
