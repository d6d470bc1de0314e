"""The curves of a run: loss over the updates, and what validation said."""

from pathlib import Path
from typing import Any

from nautile.tasks.finetune.options import Options

DPI = 120
BLUE, ORANGE, GREY = "#2b6ca3", "#c8641e", "#9aa5ad"


def curves_png(history: list[dict[str, Any]], options: Options, best: int | None, path: Path) -> None:
    """Training and validation loss on the left, macro-F1 and accuracy on the right; a head's over its C."""
    from matplotlib.figure import Figure

    figure = Figure((9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    along = "C" if options.method == "head" else "step"
    _line(left, history, along, "loss", GREY, "training loss")
    _line(left, history, along, "eval_log_loss", ORANGE, "validation log loss")
    _line(right, history, along, "eval_macro_f1", BLUE, "macro-F1")
    _line(right, history, along, "eval_accuracy", GREY, "accuracy")
    for axes in (left, right):
        axes.set_xlabel("regularisation C" if along == "C" else "update")
        axes.grid(alpha=0.25)
        if along == "C":
            axes.set_xscale("log")
        if best is not None:
            axes.axvline(best, color=ORANGE, linestyle=":", linewidth=1)
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
    right.set_title("validation", fontsize=10)
    figure.savefig(path, dpi=DPI)


def _line(axes: Any, history: list[dict[str, Any]], along: str, name: str, colour: str, label: str) -> None:
    """A line; a head's figures with words and with neighbours, at one C, are signs beside it."""
    kinds = ((None, "-", "o", 2.5), ("words", "none", "*", 9), ("neighbours", "none", "D", 5))
    for kind, line, marker, size in kinds:
        points = [(each[along], each[name]) for each in history if name in each and _kind(each) == kind]
        said = f"{label}, with {kind}" if kind else label
        drawn = {"color": colour, "linewidth": 1.4, "linestyle": line, "marker": marker, "markersize": size}
        if points:
            axes.plot(*zip(*points, strict=True), label=said, **drawn)


def _kind(record: dict[str, Any]) -> str | None:
    """The last thing that a head was tried with."""
    return next((kind for kind in ("neighbours", "words") if record.get(kind)), None)
