"""Train the backbone to a deadline; a run that was killed goes on when started again, with more --minutes as well.

python -m nautile.tasks.backbone.train CORPUS DATA RUN --minutes 120  # RUN: of .texts .vectors .requests .opinions
"""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.optim import Optimizer, SparseAdam

from nautile.engine.processor import prepare_training
from nautile.errors import NautileError
from nautile.tasks.backbone.export import new_student, take_over
from nautile.tasks.backbone.heads.rows import topic_rows
from nautile.tasks.backbone.heads.sentiment_data import LABELS, read_training
from nautile.tasks.backbone.label_sets import read_label_sets
from nautile.tasks.backbone.objectives import Embedding, NamedLabels, Opinions, Sentiment, SoftLabels, Student
from nautile.tasks.backbone.ranks import join, leave, once, processes
from nautile.tasks.backbone.run import BETAS, Part, Run, adamw
from nautile.tasks.backbone.teacher import Teacher, token_embeddings
from nautile.tasks.backbone.texts import save_json
from nautile.tasks.backbone.tokens import choose_pairs, fit_pairs, fit_tokens, sparse_tables
from nautile.tasks.backbone.vectors import Taught, Vectors

PASSES = 6  # over the texts, for the vectors of tokens and pairs alone
BEGIN = "begin.pt"  # the student as it was before its first step, where it began with a checkpoint
PAIR_SPEED = 8.0  # times the rate, for vectors that are met much more rarely than tokens


def optimizers(student: Student, rate: float) -> list[Optimizer]:
    """Vectors of tokens and pairs, most of all parameters, get sparse gradients: a step costs what it touches."""
    sparse = sparse_tables(student)
    dense = [(name, p) for name, p in student.named_parameters() if all(p is not table for table in sparse)]
    rates = (rate, PAIR_SPEED * rate)
    groups = [{"params": [table], "rate": own} for table, own in zip(sparse, rates, strict=False)]
    return [adamw(dense, rate), SparseAdam(groups, betas=BETAS)]


def _begin(folder: Path, options: dict[str, Any]) -> None:
    """Note what the run is made of, or raise NautileError where it was begun with something else."""
    path = folder / "options.json"
    once(lambda: None if path.exists() else save_json(path, options))
    if (known := json.loads(path.read_text())) != options:
        raise NautileError(f"{folder}: was begun with {known}; take another folder for {options}")


def _taught(path: Path, vectors: Vectors, student: Student) -> Taught:
    return Taught(json.loads(path.read_text()), vectors, student.vocabulary)


def main(
    corpus: Annotated[Path, typer.Argument(help="folder of NAME.jsonl.xz")],
    data: Annotated[Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz")],
    folder: Annotated[Path, typer.Argument(help="folder of the run")],
    minutes: float = 120,
    learning_rate: float = 1.5e-3,
    scale: Annotated[int, typer.Option(help="times as many texts a step: 1 for a CPU")] = 1,
    device: str = "cpu",
    encoder: Annotated[Path | None, typer.Option(help="folder of all-MiniLM-L6-v2, in place of the package")] = None,
    begin_with: Annotated[Path | None, typer.Option(help="begin with this checkpoint folder's weights")] = None,
    seed: int = 0,
    without_clinc150: Annotated[
        bool, typer.Option("--without-clinc150", help="leave out its labels, so that zero-shot on it can be measured")
    ] = False,
) -> None:
    """Train; the same command resumes."""
    prepare_training()
    join(device)
    vectors, composed = Vectors(folder / "vectors.f16"), Vectors(folder / "requests.f16")
    opinions = Vectors(folder / "opinions.f16", len(LABELS))
    if not all(map(len, (vectors, composed, opinions))):
        raise NautileError(f"{folder}: run nautile.tasks.backbone.texts, .vectors, .requests and .opinions on it first")
    torch.manual_seed(seed)
    options = {"seed": seed, "rate": learning_rate, "scale": scale, "processes": processes()}
    begun = {
        "corpus": str(corpus),
        "data": str(data),
        "clinc150": not without_clinc150,
        "begin_with": begin_with and str(begin_with),
    }
    _begin(folder, {**begun, **options})
    student = new_student().to(device)
    taught = _taught(folder / "texts.json", vectors, student)
    if not (folder / "checkpoint.pt").exists():
        once(lambda: choose_pairs(student, taught.texts[: len(vectors)]))
        if begin_with is None:
            width = student.backbone.config.d_model
            student.begin(*token_embeddings(student.vocabulary, width, Teacher(encoder)))
            once(lambda: fit_tokens(student, taught, PASSES, seed))
        else:
            if not take_over(student, begin_with):
                once(lambda: fit_pairs(student, taught, PASSES, seed))
            once(lambda: torch.save(student.state_dict(), folder / BEGIN))
    requests = _taught(folder / "requests.json", composed, student)
    judged = _taught(folder / "opinions.json", opinions, student)
    once(lambda: topic_rows(data, corpus, folder, encoder))
    sets = read_label_sets(data, corpus, folder, not without_clinc150)
    objectives = {
        "embedding": Part(Embedding(taught, 800 * scale), share=0.4),
        "soft labels": Part(SoftLabels((taught, requests), 1000 * scale)),
        "named labels": Part(NamedLabels(sets, 32 * scale), share=0.6, weight=0.5),
        "sentiment": Part(Sentiment(read_training(data / "sentiment"), 40 * scale), share=0.4),
        "opinions": Part(Opinions(judged, 800 * scale), share=0.8),
    }
    Run(student, optimizers(student, learning_rate), folder, minutes, seed).train(objectives)
    leave()


if __name__ == "__main__":
    typer.run(main)
