"""Findings as tables for a terminal, as speed.json, and as a picture of their ratios."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from nautile.errors import NautileError
from nautile.tasks.bench.speed.results import Figure, Findings, Ratio
from nautile.tasks.bench.speed.timing import Spread
from nautile.tasks.extras import require
from nautile.tasks.sheets import Sheet, print_sheet, say

DPI = 120
BAR_INCHES = 0.22
SHADES = ("#2b6ca3", "#c0713d", "#4f8a5b", "#7d5ba6", "#9aa5ad")


def sheets(findings: Findings) -> list[Sheet]:
    """A table a case: its figures, then its ratios; the title says what the machine gave in the same rounds."""
    cases = dict.fromkeys((one.benchmark, one.case) for one in findings.figures)
    return [_sheet(findings, *case) for case in cases]


def show(findings: Findings) -> None:
    """Print the tables, what they rest on, and what was left out."""
    console = Console(highlight=False)
    for sheet in sheets(findings):
        print_sheet(console, sheet)
    for line in ("", findings.about, *findings.notes):
        say(console, line)


def said(spread: Spread) -> str:
    """A median with its quartiles: 1.23 [1.20, 1.31]."""
    if spread.low == spread.high:
        return short(spread.median)
    return f"{short(spread.median)} [{short(spread.low)}, {short(spread.high)}]"


def short(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def save(findings: Findings, folder: Path) -> list[str]:
    """Write speed.json and, where there are ratios and matplotlib, speed.png; returns what there is to say of it."""
    (folder / "speed.json").write_text(findings.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if not findings.ratios:
        return ["speed.png is left out: there are no ratios to draw"]
    try:
        ratios_png(findings.ratios, folder / "speed.png")
    except NautileError as missing:
        return [f"speed.png is left out: {missing}"]
    return []


def ratios_png(ratios: Sequence[Ratio], path: Path) -> None:
    """A bar a ratio, with its quartiles, on a logarithmic axis that starts from one: equal.

    Raises:
        NautileError: without matplotlib.
    """
    require("finetune", "matplotlib", purpose="drawing figures")
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas((10, 1.4 + BAR_INCHES * len(ratios)), layout="constrained")
    axes = canvas.subplots()
    for shade, name in zip(SHADES, dict.fromkeys(one.benchmark for one in ratios), strict=False):
        mine = {place: one.value for place, one in enumerate(ratios) if one.benchmark == name}
        lengths = [value.median - 1 for value in mine.values()]
        reach = [[v.median - v.low for v in mine.values()], [v.high - v.median for v in mine.values()]]
        axes.barh(list(mine), lengths, left=1, xerr=reach, color=shade, height=0.7, capsize=2, label=name)
    labels = [f"{one.case}: {one.of} / {one.against}, {one.unit}" for one in ratios]
    axes.set_yticks(range(len(ratios)), labels, fontsize=7, parse_math=False)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="ratio: median and quartiles of the rounds")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8)
    canvas.savefig(path, dpi=DPI)


def _sheet(findings: Findings, benchmark: str, case: str) -> Sheet:
    figures = [one for one in findings.figures if (one.benchmark, one.case) == (benchmark, case)]
    ratios = [one for one in findings.ratios if (one.benchmark, one.case) == (benchmark, case)]
    roof = next((one.roof for one in figures if one.roof is not None), None)
    rates = f" (matrix product {said(roof.gemm)} GFLOP/s, copy {said(roof.bandwidth)} GB/s)" if roof else ""
    rows = [*map(_row, figures), *((f"{one.of} / {one.against}", said(one.value), one.unit, "") for one in ratios)]
    return Sheet(f"{benchmark}: {case}{rates}", ("contender", "figure", "unit", "share of roofline"), rows, prose=True)


def _row(figure: Figure) -> tuple[str, ...]:
    return (figure.contender, said(figure.value), figure.unit, said(figure.roof.share) if figure.roof else "")
