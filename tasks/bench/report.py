"""What a benchmark found, as it is written to accuracy.json, and as tables for a report and for a terminal."""

from nautile.tasks.bench.reported import Reported
from nautile.tasks.bench.sets import Headline
from nautile.tasks.evaluate.results import Comparison, Estimate, Figures, Result, Summary
from nautile.tasks.evaluate.tables import NAMES
from nautile.tasks.sheets import Sheet, as_markdown

MORE = ("accuracy", "subset_accuracy", "macro_f1", "ece", "in_scope_accuracy", "out_of_scope_auroc")
COVERAGE = 0.9  # asked of the prediction sets that are reported


class Line(Result):
    """One set: the figure that sums it up, and all there is to say of it."""

    name: str
    headline: Headline
    summary: Summary

    @property
    def ours(self) -> Estimate:
        """The model's headline figure."""
        return self.summary.figures.headline[self.headline]

    @property
    def verdicts(self) -> list[str]:
        """One a peer."""
        return [found.verdict for found in self.summary.comparisons]

    def cell(self, peer: str) -> str:
        """A peer's headline figure, nothing where it was not measured; what it judged where that is some rows only."""
        found = next((found for found in self.summary.comparisons if found.opponent == peer), None)
        if found is None:
            return ""
        rows, there = found.opponent_figures.rows, self.there(found)
        return f"{self.theirs(found)} on {rows:,} rows, against {there}" if there else self.theirs(found)

    def theirs(self, found: Comparison) -> str:
        """The opponent's headline figure."""
        return said(found.opponent_figures.headline[self.headline])

    def there(self, found: Comparison) -> str:
        """The model's headline figure on the opponent's rows, where these are not all."""
        theirs = found.opponent_figures
        difference = found.accuracy if self.headline == "accuracy" else found.macro_f1
        partial = theirs.rows < self.summary.figures.rows
        return short(theirs.headline[self.headline].value + difference.value) if partial else ""


class Findings(Reported):
    """One run of `nautile bench accuracy`; `weights` is a digest of the model's."""

    version: str
    model: str
    weights: str
    seed: int
    resamples: int
    left_out: list[str]
    lines: list[Line]

    @property
    def about(self) -> str:
        """What the figures rest on, in words."""
        intervals = f"in brackets 95 % intervals of {self.resamples:,} bootstrap resamples"
        how = intervals if self.resamples else "no intervals"
        return f"nautile {self.version}, {self.model} with weights {self.weights}; {how}, seed {self.seed}."

    @property
    def notes(self) -> list[str]:
        """What was left out or done to rows."""
        return [*self.left_out, *(f"{line.name}: {note}" for line in self.lines for note in line.summary.notes)]

    @property
    def report(self) -> str:
        """Markdown."""
        main = headlines(self)
        verdicts = [" ".join(line.verdicts) for line in self.lines]
        rows = [(*row, verdict) for row, verdict in zip(main.rows, verdicts, strict=True)]
        tables = [as_markdown(Sheet(main.title, (*main.columns, "verdict"), rows, prose=True)), as_markdown(more(self))]
        return "\n\n".join(["# Accuracy", self.about, *tables, "\n".join(f"- {note}" for note in self.notes)]) + "\n"


def headlines(findings: Findings) -> Sheet:
    """One row a set, one column a peer."""
    opponents = [found.opponent for line in findings.lines for found in line.summary.comparisons]
    peers = list(dict.fromkeys(opponents))
    rows = [
        (
            line.name,
            f"{line.summary.figures.rows:,}",
            NAMES[line.headline],
            said(line.ours),
            *(line.cell(peer) for peer in peers),
        )
        for line in findings.lines
    ]
    return Sheet("Headline figures", ("set", "rows", "figure", findings.model, *peers), rows, prose=True)


def standings(findings: Findings) -> Sheet:
    """One row a set and contender, narrow enough for a terminal."""
    rows = []
    for line in findings.lines:
        all_rows = f"{line.summary.figures.rows:,}"
        rows.append((line.name, NAMES[line.headline], findings.model, all_rows, said(line.ours)))
        for found in line.summary.comparisons:
            there = line.there(found)
            figure = f"{line.theirs(found)}; {findings.model} {there}" if there else line.theirs(found)
            rows.append(("", "", found.opponent, f"{found.opponent_figures.rows:,}", figure))
    return Sheet("Headline figures", ("set", "figure", "model", "rows", "value"), rows, prose=True)


def more(findings: Findings) -> Sheet:
    """One row a set and contender, with the other figures that a model card states."""
    rows = []
    for line in findings.lines:
        summary = line.summary
        opponents = [(found.opponent, found.opponent_figures) for found in summary.comparisons]
        rows += [_more(line.name, name, found) for name, found in ((summary.model, summary.figures), *opponents)]
    names = (*(NAMES[name] for name in MORE), f"held by {COVERAGE:.0%} sets")
    return Sheet("More figures", ("set", "model", "rows", *names), rows, prose=True)


def said(estimate: Estimate) -> str:
    """A figure with its interval: .795 [.767, .820]."""
    if estimate.low is None or estimate.high is None:
        return short(estimate.value)
    return f"{short(estimate.value)} [{short(estimate.low)}, {short(estimate.high)}]"


def short(value: float) -> str:
    """Three decimals, no leading zero."""
    return f"{value:.3f}".removeprefix("0")


def _more(name: str, model: str, figures: Figures) -> tuple[str, ...]:
    found = figures.headline
    held = next((said(sets.held) for sets in figures.sets or () if sets.coverage == COVERAGE), "")
    return (name, model, f"{figures.rows:,}", *(said(found[key]) if key in found else "" for key in MORE), held)
