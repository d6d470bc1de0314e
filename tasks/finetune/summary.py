"""The summary at the end of a run, on standard error."""

from pathlib import Path

from rich.console import Console

from nautile.tasks.evaluate.results import Figures
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
            f"{_validation(outcome)} ({len(split.valid.texts):,} rows): {_right(found)}, "
            f"macro-F1 {found.macro_f1.value:.3f}, ECE {found.ece.value:.3f}"
        )
    return [*lines, *outcome.notes]


def _validation(outcome: Outcome) -> str:
    return "validation, each fifth by a head of all other rows" if outcome.options.refit else "validation"


def _right(found: Figures) -> str:
    """Accuracy, for "multi" of whole rows and not of cells, most of which are empty."""
    if found.subset_accuracy is None or found.micro_f1 is None:
        return f"accuracy {found.accuracy.value:.3f}"
    return f"rows with all labels right {found.subset_accuracy.value:.3f}, micro-F1 {found.micro_f1.value:.3f}"


def show(outcome: Outcome, folder: Path) -> None:
    """Write it to standard error."""
    console = Console(stderr=True, highlight=False)
    for line in summary(outcome, folder):
        console.print(line, markup=False, soft_wrap=True)
