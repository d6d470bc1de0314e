"""The summary at the end of a run, on standard error."""

from pathlib import Path

from rich.console import Console

from nautile.tasks.evaluate.tables import brief
from nautile.tasks.finetune.outcome import Outcome


def summary(outcome: Outcome, folder: Path) -> list[str]:
    """A few lines: what was trained, how well it does, what to know."""
    split, training, found = outcome.split, outcome.training, outcome.figures
    best = f", best at update {training.best_update:,}" if training.best_update else ""
    updates = f"{training.updates:,} updates{best}, " if training.updates else ""
    lines = [
        f"{folder}: {outcome.options.method}, {len(split.train.labels)} labels, {outcome.learned:,} rows, "
        f"{updates}{training.seconds:.0f} s"
    ]
    if found is not None:
        lines.append(
            f"{_validation(outcome)} ({len(split.valid.texts):,} rows): "
            + ", ".join(f"{name} {estimate.value:.3f}" for name, estimate in brief(found))
        )
    return [*lines, *outcome.notes]


def _validation(outcome: Outcome) -> str:
    return "validation, each fifth by a head of all other rows" if outcome.options.refit else "validation"


def show(outcome: Outcome, folder: Path) -> None:
    """Write it to standard error."""
    console = Console(stderr=True, highlight=False)
    for line in summary(outcome, folder):
        console.print(line, markup=False, soft_wrap=True)
