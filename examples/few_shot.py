"""Few-shot classification: so many rows a class, several draws, `nautile.Classifier` beside MiniLM + LR.

python examples/few_shot.py TRAIN TEST --rows 10 --draws 5        # JSONL with text and label; extra `train`
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import nautile
from nautile.tasks.evaluate.baselines import train_baseline
from nautile.tasks.labelled import Labelled, read_labelled


def draw(rows: Labelled, count: int, seed: int) -> Labelled:
    """So many random rows of each class."""
    order = np.random.default_rng(seed).permutation(len(rows.texts))
    chosen = np.concatenate([[n for n in order if rows.truth[n] == label][:count] for label in range(len(rows.labels))])
    return rows._replace(texts=[rows.texts[n] for n in chosen], truth=rows.truth[chosen])


def main(
    train: Annotated[Path, typer.Argument(help="labelled rows to draw from")],
    test: Annotated[Path, typer.Argument(help="labelled rows to measure on")],
    rows: int = 10,
    draws: int = 5,
    names: Annotated[bool, typer.Option(help="let nautile learn from the classes' names as well")] = True,
) -> None:
    """Print the accuracy of both on each draw, and their means."""
    pool = read_labelled(train)
    held_out = read_labelled(test, labels=pool.labels)
    table = Table("draw", "nautile", "MiniLM + LR", title=f"accuracy, {rows} rows a class, {test}")
    found = []
    for seed in range(draws):
        examples = draw(pool, rows, seed)
        labels = np.array(pool.labels)
        ours = nautile.Classifier("linear", names=names, random_state=seed).fit(examples.texts, labels[examples.truth])
        score = ours.score(held_out.texts, labels[held_out.truth])
        baseline = train_baseline("minilm", examples).measure(held_out.texts).argmax(axis=1)
        found.append((score, float((baseline == held_out.truth).mean())))
        table.add_row(str(seed), *(f"{value:.4f}" for value in found[-1]))
    table.add_row("mean", *(f"{value:.4f}" for value in np.mean(found, axis=0)), style="bold")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
