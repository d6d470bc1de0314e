"""The summary at the end of a run, on standard error."""

from pathlib import Path

from rich.console import Console

from nautile.tasks.finetune.outcome import Outcome


def summary(outcome: Outcome, folder: Path) -> list[str]:
    """A few lines: what was trained, how well it does, what to know."""
    split, training, found = outcome.split, outcome.training, outcome.figures
    best = f", best at update {training.best_update:,}" if training.best_update else ""
    updates = f"{training.updates:,} updates{best}, " if training.updates else ""
    lines = [
        f"{folder}: {outcome.options.method}, {len(split.train.labels)} labels, {len(split.train.texts):,} rows, "
        f"{updates}{training.seconds:.0f} s"
    ]
    if found is not None:
        lines.append(
            f"validation ({len(split.valid.texts):,} rows): accuracy {found.accuracy.value:.3f}, "
            f"macro-F1 {found.macro_f1.value:.3f}, ECE {found.ece.value:.3f}"
        )
    return [*lines, *outcome.notes]


def show(outcome: Outcome, folder: Path) -> None:
    """Write it to standard error."""
    console = Console(stderr=True, highlight=False)
    for line in summary(outcome, folder):
        console.print(line, markup=False, soft_wrap=True)
