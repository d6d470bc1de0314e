"""Pictures of runs: training loss and held-out bits per byte over the tokens read."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nautile.errors import NautileError
from nautile.pretraining.held_out import MIXTURE
from nautile.pretraining.log import METRICS, read_metrics

MANY = 6


def draw(folders: Sequence[Path], output: Path) -> None:
    """Write one picture of one or several runs; raises NautileError for a run without figures."""
    if output.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise NautileError(f"{output}: pictures are .png, .svg or .pdf")
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for folder in folders:
        records = read_metrics(folder)
        if not any(record["kind"] == "train" for record in records):
            raise NautileError(f"{folder}: {METRICS} has no figures of training yet")
        losses = [(record["tokens"] / 1e6, record["loss"]) for record in records if record["kind"] == "train"]
        left.plot(*zip(*losses, strict=True), label=folder.name, linewidth=1)
        for source, points in _held_out(records).items():
            right.plot(*zip(*points, strict=True), marker=".", label=f"{folder.name}: {source}")
    for axes, title in ((left, "training loss (nats a token)"), (right, "held-out bits a byte")):
        axes.set(title=title, xlabel="million tokens")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(output, dpi=120)


def _held_out(records: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Points (million tokens, bits a byte) of each source; of the mixture alone, where there are many."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        if record["kind"] == "evaluation":
            points[record["source"]].append((record["tokens"] / 1e6, record["bits_per_byte"]))
    return {MIXTURE: points[MIXTURE]} if len(points) > MANY and MIXTURE in points else points
