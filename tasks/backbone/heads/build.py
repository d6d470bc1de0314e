"""Fit the built-in heads on a backbone: sentiment learned with it, the others by `nautile.finetune`, method "head".

python -m nautile.tasks.backbone.heads.build RUN DATA CORPUS FOLDER      # RUN of .backbone.train; FOLDER ships
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nautile.errors import NautileError
from nautile.tasks.backbone.export import export
from nautile.tasks.backbone.heads.calibration import CALIBRATION, calibrated
from nautile.tasks.backbone.heads.rows import OUT_OF_SCOPE, ROWS, part
from nautile.tasks.backbone.heads.sentiment import sentiment_head
from nautile.tasks.finetune.run import finetune
from nautile.tasks.heads.head import Head, load_head
from nautile.tasks.question import BASE, TASKS


def fitted(task: str, base: Path, data: Path, corpus: Path, run: Path) -> Head:
    """A head as `finetune` fits it; what else came of it stays in `run/heads`."""
    train, validation = part(ROWS[task](data, corpus, run))
    folder = finetune(
        train, validation=validation, base=str(base), method="head", output=str(run / "heads" / task),
        out_of_scope=OUT_OF_SCOPE if task == "intent" else None, monitor="log_loss", refit=True, overwrite=True,
        neighbours=False,  # what ships holds no rows
    )  # fmt: skip
    return load_head(folder)


def main(
    run: Annotated[Path, typer.Argument(help="the backbone's run")],
    data: Annotated[Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz")],
    corpus: Annotated[Path, typer.Argument(help="folder of NAME.jsonl.xz")],
    folder: Annotated[Path, typer.Argument(help="checkpoint folder to write, heads/ in it")],
    task: Annotated[list[str] | None, typer.Option(help="only these heads (default: all)")] = None,
    keep_backbone: Annotated[bool, typer.Option("--keep-backbone", help="the folder's own, not the run's")] = False,
    keep_heads: Annotated[bool, typer.Option("--keep-heads", help="calibrate them anew; topic stays")] = False,
) -> None:
    """Export the backbone, fit the heads and calibrate them."""
    tasks = task or (tuple(CALIBRATION) if keep_heads else TASKS)
    if unknown := [name for name in tasks if name not in TASKS]:
        raise NautileError(f"--task {unknown[0]}: there are {', '.join(TASKS)}")
    if keep_heads and (fixed := [name for name in tasks if name not in CALIBRATION]):
        raise NautileError(f"{fixed[0]} is calibrated as it is fitted; leave out --keep-heads for it")
    if not keep_backbone and not keep_heads:
        export(run, folder)
    for name in tasks:
        Console(stderr=True).rule(name)
        if keep_heads:
            head = load_head(folder / "heads" / name)
        elif name == "sentiment":
            head = sentiment_head(run, folder)
        else:
            head = fitted(name, folder, data, corpus, run)
        if name in CALIBRATION:
            head = calibrated(head, name, folder, data)
        replace(head, about={**head.about, "base": BASE}).save(folder / "heads" / name)


if __name__ == "__main__":
    typer.run(main)
