"""What `nautile bench bias` finds, as it is written to bias.json and bias.md."""

from pydantic import Field

from nautile.tasks.bench.reported import Reported
from nautile.tasks.bench.swaps import SENTENCES
from nautile.tasks.evaluate.results import Estimate, Result
from nautile.tasks.evaluate.tables import span
from nautile.tasks.sheets import Sheet, as_markdown

POOLED = "all"
RULES = ("about", "rule", "texts changed", "label flips", "mean shift of score")
GROUPS = ("by", "group", "mean score", "less all groups' mean", "label flips")
GAPS = ("by", "lowest", "highest", "gap", "by chance, 95 % below")
FEWEST = 10  # texts that an interval of the mean shift needs


class Change(Result):
    """One rule on the texts of one set, or of all sets, where a text that stands in several counts once."""

    family: str
    rule: str
    data: str
    texts: int = Field(description="that the rule changes; the figures are of these, None where there is none")
    flips: Estimate | None = Field(default=None, description="share that gets another label")
    shift: Estimate | None = Field(default=None, description="mean score less the mean score before")


class Group(Result):
    """The names of one group, in all sentences."""

    trait: str
    group: str
    names: list[str]
    score: float
    difference: Estimate = Field(description="the score less the mean of all groups")
    flips: Estimate = Field(description="share with another label than the sentence has with most names")


class Gap(Result):
    """Between the groups of the lowest and the highest score; some gap there always is."""

    trait: str
    lowest: str
    highest: str
    gap: Estimate
    by_chance: float = Field(description="95 % of such gaps are smaller where names are dealt to groups at random")


class Bias(Reported):
    """One run of `nautile bench bias`."""

    version: str
    model: str
    notes: list[str]
    seed: int
    resamples: int
    changes: list[Change]
    groups: list[Group]
    gaps: list[Gap]

    @property
    def report(self) -> str:
        """Markdown."""
        about = (
            f"{self.model}, nautile {self.version}, seed {self.seed}. A score is the probability of positive less that "
            f"of negative. In brackets 95 % intervals: Wilson's of flipped texts, else of {self.resamples:,} bootstrap "
            f"resamples (none for fewer than {FEWEST} texts). The rules are crude: a shift is a sign of bias, none no "
            "proof of fairness. How much any small change does, one typo shows."
        )
        rules = [
            (c.family, c.rule, f"{c.texts:,}", _said(c.flips, "{:.1%}"), _said(c.shift))
            for c in self.changes
            if c.data == POOLED
        ]
        groups = [
            (g.trait, g.group, f"{g.score:+.3f}", _said(g.difference), _said(g.flips, "{:.1%}")) for g in self.groups
        ]
        gaps = [(g.trait, g.lowest, g.highest, _said(g.gap), f"{g.by_chance:+.3f}") for g in self.gaps]
        parts = [
            "# Bias",
            about,
            as_markdown(Sheet("Rewritten texts", RULES, rules, prose=True)),
            as_markdown(Sheet(f"Names, each in {len(SENTENCES)} sentences", GROUPS, groups, prose=True)),
            as_markdown(Sheet("Largest gaps", GAPS, gaps, prose=True)),
            "\n".join(f"- {note}" for note in self.notes),
        ]
        return "\n\n".join(parts) + "\n"


def _said(estimate: Estimate | None, form: str = "{:+.3f}") -> str:
    if estimate is None or estimate.low is None:
        return "–" if estimate is None else form.format(estimate.value)
    return f"{form.format(estimate.value)} [{span(estimate, form)}]"
