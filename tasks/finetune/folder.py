"""The folder of a run: begun, gone on with, finished, or refused; what it replaces is kept until it is finished."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nautile.errors import NautileError
from nautile.tasks.finetune.options import Options, write_config
from nautile.tasks.finetune.split import Split
from nautile.tasks.heads.folder import CHECKPOINTS, FINISHED, MARK, unfinished
from nautile.tasks.locks import locked

PLACES = {"data", "output", "validation", "encoding", "delimiter"}  # what is found there so is compared instead
OURS = (
    "config.yaml", "metrics.jsonl", "metrics.json", "curves.png", "confusion.png", "report.md", "README.md",
    "adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors", "tokenizer_config.json",
    "chat_template.jinja", "head.safetensors", FINISHED,
)  # fmt: skip
Known = dict[str, Any]


def identity(options: Options, split: Split, base_digest: str) -> Known:
    """What must be the same for a run to be gone on with: options, the base's weights, rows."""
    return {"options": options.model_dump(exclude=PLACES), "base": base_digest, "rows": fingerprint(split)}


def check(folder: Path, known: Known, base: str, overwrite: bool) -> None:
    """Raise NautileError where the run cannot be made in the folder; nothing is changed.

    Refused are a folder that holds something else, a finished run, or an unfinished one of other options, another
    base or other rows; with `overwrite` only the first, and a place for what is replaced that is not free.
    """
    if folder.resolve() in (Path(base), *Path(base).parents):
        raise NautileError(f"{folder}: holds the base; name another folder for the run")
    _check_runs(folder, known, overwrite)


def _check_runs(folder: Path, known: Known, overwrite: bool) -> None:
    mark = _mark(folder)
    if mark is None and folder.is_dir() and any(folder.iterdir()) and not (folder / FINISHED).is_file():
        raise NautileError(f"{folder}: is not empty and holds no run; name a new folder")
    if mark is None and (folder / FINISHED).is_file() and not overwrite:
        raise NautileError(f"{folder}: holds a finished run; name another folder, or overwrite it")
    if mark is not None and _can_go_on(folder) and not overwrite:
        _same(folder, mark, known)
    if _replaces(folder, mark, overwrite) and previous(folder).exists():
        raise NautileError(f"{previous(folder)}: is where the old run would be kept meanwhile; move or remove it")


@contextmanager
def begun(folder: Path, options: Options, known: Known, overwrite: bool) -> Iterator[None]:
    """The folder, ready for a run that `check` lets pass: anew, or to go on.

    A run that ended before its first checkpoint leaves nothing to go on from: it is begun anew. A run that is replaced
    is set aside; it comes back if the new one ends before its first checkpoint, and goes when that is finished.

    Raises:
        NautileError: a folder that cannot be made, or that another run is writing; from within, with the place of the
            run set aside added.
    """
    _there(folder)
    with locked(folder, "another run is writing this folder; wait for it, or name another"):
        _check_runs(folder, known, overwrite)  # again: what was there may have been finished since
        mark = _mark(folder)
        goes_on = mark is not None and _can_go_on(folder) and not overwrite
        replaces = _replaces(folder, mark, overwrite)
        kept = replaces or (mark is not None and bool(mark.get("replaces")))
        try:
            if not goes_on:
                _make(folder, replaces)
                _write(folder / CHECKPOINTS / MARK, json.dumps({**known, "replaces": kept}, ensure_ascii=False))
                write_config(options, folder / "config.yaml")
            yield
        except NautileError as error:
            raise NautileError("; ".join([str(error), *_give_up(folder, kept)])) from None
        except BaseException as error:
            for told in _give_up(folder, kept):
                error.add_note(told)
            raise


def previous(folder: Path) -> Path:
    """Where the run is kept that another one is about to replace."""
    place = folder.resolve()
    return place.with_name(f"{place.name}.previous")


def finish(folder: Path, head: str) -> None:
    """Write head.json, the last file of a run, and drop the checkpoints and the run that it replaces."""
    mark = _mark(folder) or {}
    _write(folder / FINISHED, head)
    if mark.get("replaces"):
        shutil.rmtree(previous(folder), ignore_errors=True)
    (folder / CHECKPOINTS / MARK).unlink()
    shutil.rmtree(folder / CHECKPOINTS)


def fingerprint(split: Split) -> str:
    """What the rows are, in a digest: their texts, labels and sides."""
    digest = hashlib.sha256(json.dumps([split.train.labels, split.train.kind]).encode())
    for part in (split.train, split.valid):
        digest.update(json.dumps(part.texts).encode())
        digest.update(part.truth.tobytes())
    return digest.hexdigest()


def _there(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> NautileError:
    return NautileError(f"{folder}: cannot be written to ({error.strerror}); name another folder")


def _make(folder: Path, replaces: bool) -> None:
    """The folder without a run; one that is replaced is set aside."""
    try:
        if replaces:
            _move(folder, previous(folder))
        _clear(folder)
        (folder / CHECKPOINTS).mkdir()
    except OSError as error:
        raise _unwritable(folder, error) from None


def _give_up(folder: Path, kept: bool) -> list[str]:
    """Put the run back that was set aside, unless the new one can be gone on with: then say where it is."""
    if not kept or not previous(folder).exists():
        return []
    if _can_go_on(folder):
        return [f"the run that was there is kept in {previous(folder)}"]
    _clear(folder)
    _move(previous(folder), folder)
    previous(folder).rmdir()
    return []


def _mark(folder: Path) -> Known | None:
    """What was written down of the unfinished run that is in the folder."""
    mark = folder / CHECKPOINTS / MARK
    found: Known | None = json.loads(mark.read_text(encoding="utf-8")) if unfinished(folder) else None
    return found


def _can_go_on(folder: Path) -> bool:
    return any((folder / CHECKPOINTS).glob("checkpoint-*"))


def _replaces(folder: Path, mark: Known | None, overwrite: bool) -> bool:
    """Whether there is a run to set aside: not one that itself replaces another, which is kept already."""
    if mark is None:
        return overwrite and (folder / FINISHED).is_file()
    return overwrite and _can_go_on(folder) and not mark.get("replaces")


def _same(folder: Path, before: Known, now: Known) -> None:
    was, wanted = before["options"], json.loads(json.dumps(now["options"]))
    if changed := [name for name in wanted if wanted[name] != was.get(name)]:
        told = ", ".join(f"{name} was {was.get(name)!r}" for name in changed)
        raise NautileError(f"{folder}: holds an unfinished run of other options ({told}); repeat them, or overwrite it")
    if before.get("base") != now["base"]:
        raise NautileError(
            f"{folder}: holds an unfinished run from other weights than those now in {wanted['base']}; "
            "bring them back, or overwrite it"
        )
    if before["rows"] != now["rows"]:
        raise NautileError(f"{folder}: holds an unfinished run on other rows; give the same data, or overwrite it")


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    unready = path.with_name(f"{path.name}.tmp")
    unready.write_text(text, encoding="utf-8")
    unready.replace(path)


def _move(source: Path, target: Path) -> None:
    """Move what a run has written, its head last."""
    target.mkdir(exist_ok=True)
    for name in (CHECKPOINTS, *OURS):
        if (source / name).exists():
            shutil.move(source / name, target / name)


def _clear(folder: Path) -> None:
    """Remove what a run has written, and nothing else."""
    for name in OURS:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
