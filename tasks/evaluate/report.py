"""A readable report, in Markdown."""

from collections.abc import Sequence

from nautile.tasks.evaluate.results import Comparison, Figures
from nautile.tasks.evaluate.tables import comparison, sheets
from nautile.tasks.sheets import as_markdown
from nautile.tasks.wording import counted

PICTURES = {"confusion.png": "Confusion", "reliability.png": "Reliability", "coverage.png": "Accuracy by coverage"}


def markdown(
    figures: Figures,
    title: str,
    notes: Sequence[str] = (),
    comparisons: Sequence[Comparison] = (),
    pictures: bool = False,
) -> str:
    """The report; with `pictures` it shows the files that `plots` writes beside it."""
    parts = [f"# {title}", about(figures), "".join(f"- {note}\n" for note in notes).rstrip()]
    first, *rest = sheets(figures)
    parts.append(as_markdown(first))
    for found in comparisons:
        parts += [as_markdown(comparison(found, figures)), found.verdict]
    if pictures:
        parts += [f"![{said}]({name})" for name, said in PICTURES.items()]
    parts += [as_markdown(sheet) for sheet in rest]
    return "\n\n".join(part for part in parts if part) + "\n"


def about(figures: Figures) -> str:
    """What the figures rest on, in words."""
    known = f"The probabilities were calibrated on {figures.calibrated}." if figures.calibrated else NOT_CALIBRATED
    how = f"Intervals: {counted(figures.resamples, 'bootstrap resample')} of the rows, seed {figures.seed}."
    unseen = len(figures.labels) - len(figures.per_class)
    silent = f" {unseen} of its labels neither occur nor were given." if unseen else ""
    said = f"{counted(figures.rows, 'row')}, {counted(len(figures.labels), 'label')}.{silent} {known}"
    return f"{said} {how}" if figures.resamples else said


NOT_CALIBRATED = "The probabilities are not calibrated: take them as scores, and ECE as how far they are off."
