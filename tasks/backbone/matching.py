"""Train zero-shot's matching head alone: the backbone only reads, so that a step costs a third and all else stays.

python -m nautile.tasks.backbone.matching CORPUS DATA RUN FOLDER --minutes 30  # RUN: .texts .vectors .requests; resumes
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from nautile.engine.processor import prepare_training
from nautile.tasks.backbone.export import new_student, save_matching, take_over
from nautile.tasks.backbone.heads.rows import topic_rows
from nautile.tasks.backbone.label_sets import read_label_sets
from nautile.tasks.backbone.objectives import Embedding, NamedLabels, SoftLabels
from nautile.tasks.backbone.run import Part, Run, adamw
from nautile.tasks.backbone.train import taught_by
from nautile.tasks.backbone.vectors import Vectors


def main(
    corpus: Annotated[Path, typer.Argument(help="folder of NAME.jsonl.xz")],
    data: Annotated[Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz")],
    run: Annotated[Path, typer.Argument(help="folder of the run: its texts and vectors; gets matching/")],
    folder: Annotated[Path, typer.Argument(help="checkpoint folder whose matching head is trained on and replaced")],
    minutes: float = 30,
    learning_rate: float = 1e-3,
    device: str = "cpu",
    encoder: Annotated[Path | None, typer.Option(help="folder of all-MiniLM-L6-v2, in place of the package")] = None,
    seed: int = 0,
) -> None:
    """Train the head; the same command resumes, with more --minutes as well."""
    prepare_training()
    torch.manual_seed(seed)
    student = new_student()
    take_over(student, folder)
    student.to(device).requires_grad_(requires_grad=False)
    student.matching.requires_grad_()
    taught, requests = (
        taught_by(run / f"{name}.json", Vectors(run / f"{vectors}.f16"), student)
        for name, vectors in (("texts", "vectors"), ("requests", "requests"))
    )
    topic_rows(data, corpus, run, encoder)
    objectives = {
        "embedding": Part(Embedding(taught, 3200)),
        "soft labels": Part(SoftLabels((taught, requests), 3200)),
        "named labels": Part(NamedLabels(read_label_sets(data, corpus, run), 64), weight=0.5),
    }
    (run / "matching").mkdir(exist_ok=True)
    training = Run(
        student, [adamw(student.matching.named_parameters(), learning_rate)], run / "matching", minutes, seed
    )
    training.train(objectives)
    student.load_state_dict({**student.state_dict(), **training.average})
    save_matching(student, folder)


if __name__ == "__main__":
    typer.run(main)
