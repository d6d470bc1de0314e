"""Calibrate a checkpoint that has labels on labelled rows that it has not learned from.

python -m nautile.tasks.heads.recalibrate FOLDER ROWS --source "what the rows are"
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from nautile.errors import NautileError
from nautile.tasks.calibrate import calibrate
from nautile.tasks.heads.loading import load_judging
from nautile.tasks.labelled import read_labelled


def main(
    folder: Annotated[Path, typer.Argument(help="checkpoint, adapter or head; its head.json is written")],
    rows: Annotated[Path, typer.Argument(help="labelled rows, with labels of the model's")],
    source: Annotated[str, typer.Option(help="which rows these are, in words")],
) -> None:
    """Write temperature, thresholds and quantiles of the rows into the folder's head.json."""
    reader, head = load_judging(folder)
    read = read_labelled(rows, kind="multi" if head.kind == "multi" else "single")
    if unknown := sorted(set(read.labels) - set(head.labels)):
        raise NautileError(f"{rows}: labels that the model does not have: {', '.join(unknown[:5])}")
    place = np.array([head.labels.index(label) for label in read.labels])
    truth = place[read.truth]
    if head.kind == "multi":
        truth = np.zeros((len(read.texts), len(head.labels)), dtype=bool)
        truth[:, place] = read.truth
    fitted = calibrate(head.logits(reader(read.texts).vectors_ND), truth, head.kind, source)
    known = {
        "labels": list(head.labels),
        "kind": head.kind,
        "out_of_scope": head.out_of_scope,
        "calibration": fitted.model_dump(),
        "about": head.about,
    }
    (folder / "head.json").write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    Console().print(f"temperature {fitted.temperature:.2f}, ECE {fitted.ece_before:.3f} → {fitted.ece:.3f}")


if __name__ == "__main__":
    typer.run(main)
