"""The folder of a run: begun, gone on with, finished, or refused."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from nautile.errors import NautileError
from nautile.tasks.finetune.options import Options, write_config
from nautile.tasks.finetune.split import Split

CHECKPOINTS, MARK, FINISHED = "checkpoints", "run.json", "head.json"
PLACES = {"data", "output", "validation"}  # where things lie; what is in them is compared instead
OURS = (
    "config.yaml", "metrics.jsonl", "metrics.json", "curves.png", "confusion.png", "report.md", "README.md",
    "adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors", "tokenizer_config.json",
    "chat_template.jinja", "head.safetensors", FINISHED,
)  # fmt: skip


def begin(folder: Path, options: Options, split: Split, overwrite: bool) -> None:
    """Make the folder ready: a new one, or that of an unfinished run of the same options and rows.

    A run that ended before its first checkpoint leaves nothing to go on from: it is begun anew.

    Raises:
        NautileError: a folder that holds something else, a finished run, or one of other options or rows.
    """
    mark = folder / CHECKPOINTS / MARK
    if folder.exists() and not folder.is_dir():
        raise NautileError(f"{folder}: is a file; name a folder")
    known = {"options": options.model_dump(exclude=PLACES), "rows": fingerprint(split)}
    if mark.is_file() and any(mark.parent.glob("checkpoint-*")) and not overwrite:
        _same(folder, json.loads(mark.read_text(encoding="utf-8")), known)
        return
    if (folder / FINISHED).is_file() and not mark.is_file() and not overwrite:
        raise NautileError(f"{folder}: holds a finished run; name another folder, or overwrite it")
    if folder.is_dir() and any(folder.iterdir()):
        if not mark.is_file() and not (folder / FINISHED).is_file():
            raise NautileError(f"{folder}: is not empty and holds no run; name a new folder")
        _clear(folder)
    mark.parent.mkdir(parents=True, exist_ok=True)
    _write(mark, json.dumps(known, ensure_ascii=False))
    write_config(options, folder / "config.yaml")


def finish(folder: Path, head: dict[str, Any]) -> None:
    """Write head.json, the last file of a run, and drop the checkpoints."""
    _write(folder / FINISHED, json.dumps(head, indent=1, ensure_ascii=False) + "\n")
    (folder / CHECKPOINTS / MARK).unlink()
    shutil.rmtree(folder / CHECKPOINTS)


def fingerprint(split: Split) -> str:
    """What the rows are, in a digest: their texts, labels and sides."""
    digest = hashlib.sha256(json.dumps([split.train.labels, split.train.kind]).encode())
    for part in (split.train, split.valid):
        digest.update(json.dumps(part.texts).encode())
        digest.update(part.truth.tobytes())
    return digest.hexdigest()


def _same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    was, wanted = before["options"], json.loads(json.dumps(now["options"]))
    if changed := [name for name in wanted if wanted[name] != was.get(name)]:
        told = ", ".join(f"{name} was {was.get(name)!r}" for name in changed)
        raise NautileError(f"{folder}: holds an unfinished run of other options ({told}); repeat them, or overwrite it")
    if before["rows"] != now["rows"]:
        raise NautileError(f"{folder}: holds an unfinished run on other rows; give the same data, or overwrite it")


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    unready = path.with_name(f"{path.name}.tmp")
    unready.write_text(text, encoding="utf-8")
    unready.replace(path)


def _clear(folder: Path) -> None:
    """Remove what a run has written, and nothing else."""
    for name in OURS:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
