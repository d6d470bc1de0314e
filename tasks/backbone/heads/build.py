"""Fit the built-in heads on a backbone: sentiment learned with it, the others by `nautile.finetune`, method "head".

python -m nautile.tasks.backbone.heads.build RUN DATA CORPUS FOLDER      # RUN of .backbone.train; FOLDER ships
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console

from nautile.engine.reader import Reader
from nautile.model.checkpoints import load
from nautile.tasks.backbone.export import export
from nautile.tasks.backbone.heads.rows import CALIBRATION, OUT_OF_SCOPE, ROWS, part
from nautile.tasks.backbone.heads.sentiment import fit_sentiment
from nautile.tasks.calibrate import calibrate_on
from nautile.tasks.finetune.run import finetune
from nautile.tasks.heads.head import Head, load_head
from nautile.tasks.labelled import read_labelled
from nautile.tasks.question import BASE, TASKS

KEPT = ("head.json", "head.safetensors")


def fit(task: str, base: Path, data: Path, corpus: Path, run: Path) -> None:
    """Fit one head and put its two files beside the base; what else came of it stays in `run/heads`."""
    frame = ROWS[task](data, corpus, run)
    out_of_scope = OUT_OF_SCOPE if task == "intent" else None
    train, validation = part(frame)
    folder = finetune(
        train, validation=validation, base=str(base), method="head", output=str(run / "heads" / task),
        out_of_scope=out_of_scope, monitor="log_loss", refit=True, overwrite=True,
        neighbours=False,  # what ships holds no rows
    )  # fmt: skip
    place = base / "heads" / task
    place.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(folder / name, place / name)
    head = load_head(place)
    if task in CALIBRATION:
        head = calibrated(head, base, CALIBRATION[task](data), f"half of the dev split of its {task} rows")
    replace(head, about={**head.about, "base": BASE}).save(place)


def calibrated(head: Head, base: Path, frame: pd.DataFrame, source: str) -> Head:
    """The head with the calibration that other rows give."""
    known = read_labelled(frame, kind=head.kind, labels=head.labels)
    found = Reader(load(base))(known.texts, words=head.words_SC is not None)
    logits_NC = head.logits(found.vectors_ND, found.words_NS)
    fitted = calibrate_on(logits_NC, known.truth, head.kind, f"{len(known.texts):,} rows, {source}", known.texts)
    Console(stderr=True).print(f"{source}: {fitted.scaling}, ECE {fitted.ece:.3f}")
    return replace(head, calibration=fitted)


def main(
    run: Annotated[Path, typer.Argument(help="the backbone's run")],
    data: Annotated[Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz")],
    corpus: Annotated[Path, typer.Argument(help="folder of NAME.jsonl.xz")],
    folder: Annotated[Path, typer.Argument(help="checkpoint folder to write, heads/ in it")],
    task: Annotated[list[str] | None, typer.Option(help="only these heads (default: all)")] = None,
    keep_backbone: Annotated[bool, typer.Option("--keep-backbone", help="the folder's own, not the run's")] = False,
) -> None:
    """Export the backbone and fit the heads."""
    if not keep_backbone:
        export(run, folder)
    for name in task or TASKS:
        Console(stderr=True).rule(name)
        if name == "sentiment":
            fit_sentiment(run, folder, data)
        else:
            fit(name, folder, data, corpus, run)


if __name__ == "__main__":
    typer.run(main)
