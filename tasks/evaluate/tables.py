"""The tables of figures, as text cells, for a report and for a terminal alike."""

from nautile.tasks.evaluate.results import Comparison, Estimate, Figures
from nautile.tasks.sheets import Sheet

NAMES = {
    "accuracy": "accuracy",
    "subset_accuracy": "rows with all labels right",
    "in_scope_accuracy": "accuracy in scope",
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "mean_absolute_error": "mean absolute error, in steps",
    "quadratic_kappa": "quadratic kappa",
    "ece": "ECE",
    "risk_coverage_area": "area under risk-coverage",
    "out_of_scope_auroc": "out-of-scope AUROC",
}


def brief(figures: Figures) -> list[tuple[str, Estimate]]:
    """The few figures that sum up; of several labels a text whole rows and not cells, most of which are empty."""
    found = figures.headline
    right = ("subset_accuracy", "micro_f1") if "subset_accuracy" in found else ("accuracy",)
    return [(NAMES[name], found[name]) for name in (*right, "macro_f1", "ece")]


def sheets(figures: Figures) -> list[Sheet]:
    """All tables of one model's figures."""
    parts = [headline(figures), coverage(figures), prediction_sets(figures), per_class(figures), confused(figures)]
    return [sheet for sheet in parts if sheet.rows]


def headline(figures: Figures) -> Sheet:
    """The single figures."""
    found = figures.headline
    rows = [(said, f"{found[name].value:.4f}", span(found[name])) for name, said in NAMES.items() if name in found]
    after = [name for name, *_ in rows].index(NAMES["ece"]) + 1
    rows.insert(after, ("ECE of a perfectly calibrated model", f"{figures.ece_by_chance:.4f}", ""))
    return Sheet("Figures", ("figure", "value", "95 % interval"), rows)


def coverage(figures: Figures) -> Sheet:
    """Accuracy at each share of rows answered."""
    rows = [
        (f"{p.coverage:.0%}", f"{p.threshold:.4f}", f"{p.accuracy.value:.4f}", span(p.accuracy))
        for p in figures.coverage
    ]
    return Sheet("Accuracy by coverage", ("rows answered", "from confidence", "accuracy", "95 % interval"), rows)


def prediction_sets(figures: Figures) -> Sheet:
    """How often sets held the truth, and how large they were."""
    rows = [
        (f"{s.coverage:.0%}", f"{s.held.value:.1%}", span(s.held, "{:.1%}"), f"{s.size.value:.2f}", f"{s.empty:.1%}")
        for s in figures.sets or ()
    ]
    return Sheet("Prediction sets", ("coverage asked", "held the truth", "95 % interval", "mean size", "empty"), rows)


def per_class(figures: Figures) -> Sheet:
    """One row a label."""
    rows = [
        (c.label, f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", f"{c.support:,}", f"{c.given:,}")
        for c in figures.per_class
    ]
    return Sheet("Labels", ("label", "precision", "recall", "F1", "rows", "given"), rows)


def confused(figures: Figures) -> Sheet:
    """The most confused pairs."""
    rows = [(f"{pair.truth} → {pair.given}", f"{pair.rows:,}") for pair in figures.confused]
    return Sheet("Most confused", ("true label → label given", "rows"), rows)


def comparison(found: Comparison, figures: Figures) -> Sheet:
    """Two models side by side."""
    accuracy = "subset_accuracy" if figures.kind == "multi" else "accuracy"
    rows = []
    for name, difference in ((accuracy, found.accuracy), ("macro_f1", found.macro_f1)):
        first, second = figures.headline[name], found.opponent_figures.headline[name]
        rows.append(
            (
                NAMES[name],
                f"{first.value:.4f}",
                f"{second.value:.4f}",
                f"{difference.value:+.4f}",
                span(difference, "{:+.4f}"),
            )
        )
    columns = ("figure", found.name, found.opponent, "difference", "95 % interval")
    return Sheet(f"Against {found.opponent}", columns, rows)


def span(estimate: Estimate, form: str = "{:.4f}") -> str:
    """An interval in words."""
    if estimate.low is None or estimate.high is None:
        return "–"
    return f"{form.format(estimate.low)} to {form.format(estimate.high)}"
