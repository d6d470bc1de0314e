"""Pictures of judged rows: confusion, reliability, accuracy over coverage."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nautile.tasks.calibrate import BINS
from nautile.tasks.evaluate.bootstrap import wilson
from nautile.tasks.evaluate.measures import bins_of
from nautile.tasks.evaluate.scores import Judged
from nautile.tasks.extras import require
from nautile.tasks.kinds import Array
from nautile.tasks.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NUMBERS = 12  # labels up to which the cells of a confusion matrix carry their counts
MOST_NAMES = 45  # labels up to which they are named
LONGEST_NAME = 24
DPI = 120
BLUE, GREY = "#2b6ca3", "#9aa5ad"


def confusion_png(judged: Judged, path: Path) -> None:
    """Shares of each true label's rows by the label given; for "multi" of the rows that were given each label too."""
    counts_CC = _confusion(judged)
    support = _support(judged)
    shares = counts_CC / np.maximum(1, support)[:, None]
    classes = len(judged.labels)
    side = float(np.clip(2.2 + 0.62 * classes, 4.5, 11))
    figure, axes = _figure(side + 0.8, side)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="share of the true label's rows")
    axes.set(xlabel="label given", ylabel="true label", title=counted(len(judged.truth), "row"))
    if classes > MOST_NAMES:
        axes.set(xticks=[], yticks=[], xlabel=f"label given ({classes} labels)")
    else:
        names = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in judged.labels]
        size = 9 if classes <= MOST_NUMBERS else 7
        slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if classes > 3 else {}
        axes.set_xticks(range(classes), names, fontsize=size, parse_math=False, **slant)
        axes.set_yticks(range(classes), names, fontsize=size, parse_math=False)
    if classes <= MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts_CC):
            shade = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, f"{int(count):,}", ha="center", va="center", color=shade, fontsize=9)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")


def reliability_png(judged: Judged, path: Path) -> None:
    """How often the model was right at each confidence, over how many decisions there were of it."""
    sure, right = judged.sure[0].ravel(), judged.sure[1].ravel()
    place = bins_of(sure)
    rows = np.bincount(place, minlength=BINS)
    filled = rows > 0
    said, came = (np.bincount(place, part, BINS)[filled] / rows[filled] for part in (sure, right))
    figure, upper, lower = _two_storeys()
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    upper.errorbar(
        said,
        came,
        yerr=_bars(came, rows[filled]),
        color=BLUE,
        marker="o",
        markersize=4,
        linewidth=1.2,
        capsize=2,
        label="measured, with 95 % intervals",
    )
    upper.set(ylabel="share that came true", ylim=(-0.02, 1.02), xlim=(0, 1))
    upper.legend(loc="upper left", frameon=False, fontsize=9)
    lower.bar((np.arange(BINS) + 0.5) / BINS, rows, width=0.9 / BINS, color=GREY)
    lower.set(xlabel="probability" if judged.kind == "multi" else "confidence", ylabel="decisions", yscale="log")
    figure.savefig(path, dpi=DPI, bbox_inches="tight")


def coverage_png(judged: Judged, path: Path) -> None:
    """Accuracy over the share of rows answered, the most confident first."""
    order = np.argsort(-judged.confidence, kind="stable")
    answered = np.arange(1, len(order) + 1)
    accuracy = judged.right[order].cumsum() / answered
    shown = answered >= min(len(order), 20)
    figure, axes = _figure(6.4, 4.4)
    error = _bars(accuracy[shown], answered[shown])
    share = answered[shown] / len(order)
    axes.fill_between(
        share, accuracy[shown] - error[0], accuracy[shown] + error[1], color=BLUE, alpha=0.15, linewidth=0
    )
    axes.plot(share, accuracy[shown], color=BLUE, linewidth=1.6, marker="o" if shown.sum() == 1 else "")
    axes.axhline(accuracy[-1], color=GREY, linestyle="--", linewidth=1)
    axes.set(xlabel="share of rows answered", ylabel="accuracy", xlim=(0, 1.01))
    axes.set_title(f"{accuracy[-1]:.3f} when all {len(order):,} rows are answered", fontsize=10)
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")


def _confusion(judged: Judged) -> Array:
    classes = len(judged.labels)
    if judged.kind == "multi":
        together: Array = judged.truth.T.astype(float) @ judged.given.astype(float)
        return together
    flat = np.bincount(judged.truth * classes + judged.given, minlength=classes**2)
    return flat.reshape(classes, classes).astype(float)


def _support(judged: Judged) -> Array:
    if judged.kind == "multi":
        return np.asarray(judged.truth.sum(axis=0), dtype=float)
    return np.bincount(judged.truth, minlength=len(judged.labels)).astype(float)


def _bars(share: Array, rows: NDArray[Any]) -> Array:
    """(2,K): how far the 95 % interval of a share reaches below and above it."""
    low, high = wilson(share * rows, rows)
    return np.maximum(0, np.stack([share - low, high - share]))


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    require("finetune", "matplotlib", purpose="drawing figures")
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots()


def _two_storeys() -> "tuple[Figure, Axes, Axes]":
    require("finetune", "matplotlib", purpose="drawing figures")
    from matplotlib.figure import Figure

    figure = Figure((5.6, 6.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    return figure, upper, lower
