"""Train nautile-mini with its sentiment head, and measure it.

python -m nautile.tasks.heads.sentiment train DATA RUN        # resumes; DATA holds sst2/, imdb/ … (see TRAINING)
python -m nautile.tasks.heads.sentiment evaluate DATA [MODEL]
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from nautile.engine.memory import keep_pages
from nautile.model.checkpoints import save
from nautile.model.config import NautileConfig
from nautile.model.heads import NautileForSequenceClassification
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.heads.embeddings import teacher_embeddings
from nautile.tasks.heads.sentiment_data import LABELS, NEUTRAL, Example, read_training
from nautile.tasks.judge import load_judge
from nautile.tasks.training import Run, Sample, Schedule

app = typer.Typer(help=__doc__, no_args_is_help=True, rich_markup_mode=None)
Data = Annotated[Path, typer.Argument(help="folder of the sentiment sets, NAME/SPLIT.jsonl.xz")]


def fresh_model(vocabulary: Vocabulary, seed: int, taught: bool) -> NautileForSequenceClassification:
    """nautile-mini at random, its token embeddings from the teacher if `taught`."""
    torch.manual_seed(seed)
    config = NautileConfig.preset(
        "nautile-mini",
        vocab_size=vocabulary.size,
        id2label=dict(enumerate(LABELS)),
        label2id={label: n for n, label in enumerate(LABELS)},
    )
    model = NautileForSequenceClassification(config)
    if not taught:
        return model
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(teacher_embeddings(vocabulary, config.d_model))
    return model


def tokenise(examples: Sequence[Example], vocabulary: Vocabulary) -> list[Sample]:
    """Samples for training; each distinct text is encoded once."""
    texts = list(dict.fromkeys(example.text for example in examples))
    ids = dict(zip(texts, vocabulary.encode_batch(texts), strict=True))
    return [
        Sample(ids[e.text], e.label, tuple(e.has_neutral or label != NEUTRAL for label in range(len(LABELS))))
        for e in examples
    ]


@app.callback()
def commands() -> None:
    """Train or measure the sentiment head."""


@app.command()
def train(
    data: Data,
    run: Annotated[Path, typer.Argument(help="folder of the run: log, checkpoint, and the model in model/")],
    steps: int = Schedule.steps,
    seed: int = Schedule.seed,
    learning_rate: float = Schedule.learning_rate,
) -> None:
    """Train; a run that was killed goes on when started again."""
    keep_pages()
    vocabulary = Vocabulary("nautile", 32_000)
    samples = tokenise(read_training(data), vocabulary)
    schedule = Schedule(steps=steps, seed=seed, learning_rate=learning_rate)
    model = fresh_model(vocabulary, seed, taught=not (run / "checkpoint.pt").exists())
    trainer = Run(model, samples, schedule, run)
    console = Console(stderr=True)
    trainer.train(lambda record: console.print(json.dumps(record)))
    save(model.to(torch.bfloat16), run / "model")


@app.command()
def evaluate(data: Data, model: Annotated[str, typer.Argument(help="name or folder")] = "nautile-mini") -> None:
    """Print accuracy, macro-F1 and the neutral label's precision and recall on the dev splits, beside VADER."""
    from nautile.tasks.heads.sentiment_measure import measure

    table = Table(title=f"sentiment, dev splits: {model}")
    for heading in ("set (rows)", "system", "accuracy", "macro-F1", "neutral precision", "neutral recall"):
        table.add_column(heading, justify="left" if heading in ("set (rows)", "system") else "right")
    for name, systems in measure(load_judge("sentiment", model), data).items():
        for system, scores in systems.items():
            table.add_row(name, system, *("" if score is None else f"{score:.3f}" for score in scores))
    Console(width=110).print(table)


if __name__ == "__main__":
    app()
