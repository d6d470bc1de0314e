"""How far a student has come towards its teacher, before anything is exported: for ablations and during a training.

python -m nautile.tasks.backbone.compare DATA RUN [RUN …]
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import Tensor

from nautile.tasks.backbone.export import load_student
from nautile.tasks.backbone.objectives import Student
from nautile.tasks.backbone.teacher import Teacher
from nautile.tasks.corpus import rows
from nautile.tasks.sheets import Sheet, print_sheet
from nautile.tasks.zero_shot.labels import spoken

SETS = {"Banking77 test": "intent/banking77/test", "CLINC150 dev": "intent/clinc150/dev"}
OUT_OF_SCOPE = "oos"
BATCH = 64
COLUMNS = ("run", "cosine of texts", "of labels", "accuracy", "teacher's labels", "teacher's texts", "teacher")

Embed = Callable[[Sequence[str]], Tensor]


def embedder(student: Student) -> Embed:
    """Texts to unit vectors (N, 384), each text alone: no label list stands before it."""

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> Tensor:
        parts = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        return torch.cat([student.matching.embed(student.read(part)[0]) for part in parts])

    return embed


def compare(student: Embed, teacher: Embed, texts: Sequence[str], labels: Sequence[str]) -> list[float]:
    """The likeness of both encoders' vectors, and how often the most similar label is right, by whose vectors."""
    names = sorted(set(labels))
    truth = torch.tensor([names.index(label) for label in labels])
    said = [spoken(name) for name in names]
    (own, own_labels), (wanted, wanted_labels) = ((embed(texts), embed(said)) for embed in (student, teacher))
    likeness = [float((own * wanted).sum(-1).mean()), float((own_labels * wanted_labels).sum(-1).mean())]
    pairs = [(own, own_labels), (own, wanted_labels), (wanted, own_labels), (wanted, wanted_labels)]
    return likeness + [float(((one @ two.T).argmax(1) == truth).float().mean()) for one, two in pairs]


def main(
    data: Annotated[Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz")],
    runs: Annotated[list[Path], typer.Argument(help="folders of backbone runs")],
    encoder: Annotated[Path | None, typer.Option(help="folder of all-MiniLM-L6-v2, in place of the package")] = None,
) -> None:
    """Print a table a set: student against teacher, zero-shot by cosine."""
    teacher = Teacher(encoder)
    for title, place in SETS.items():
        known = [row for row in rows(data / f"{place}.jsonl.xz") if row["label"] != OUT_OF_SCOPE]
        texts, labels = [str(row["text"]) for row in known], [str(row["label"]) for row in known]
        found = {str(run): compare(embedder(load_student(run)), teacher, texts, labels) for run in runs}
        table = [(name, *(f"{figure:.3f}" for figure in figures)) for name, figures in found.items()]
        print_sheet(Console(), Sheet(title, COLUMNS, table))


if __name__ == "__main__":
    typer.run(main)
