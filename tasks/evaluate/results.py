"""What an evaluation finds, as it is written to figures.json."""

from pydantic import BaseModel, ConfigDict, Field

from nautile.tasks.kinds import Kind


class Result(BaseModel):
    """Fixed once made; no field is free-form."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Estimate(Result):
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float | None = None
    high: float | None = None


class ClassFigures(Result):
    """One label: precision is 0 where it was never given, recall 0 where it never occurs."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int = Field(description="rows it is true of")
    given: int = Field(description="rows it was given in")


class CoveragePoint(Result):
    """Accuracy when only the most confident rows are answered; for "multi" a row is right when all its labels are."""

    coverage: float
    threshold: float = Field(description="the least confidence that is answered")
    accuracy: Estimate


class SetFigures(Result):
    """Prediction sets asked to hold the truth in a share `coverage` of rows."""

    coverage: float
    held: Estimate
    size: Estimate
    empty: float


class Confusion(Result):
    """How many rows of one label were given another."""

    truth: str
    given: str
    rows: int


class Figures(Result):
    """All figures of one model on labelled rows; None where a figure does not apply."""

    kind: Kind
    labels: list[str]
    rows: int
    calibrated: str | None = Field(description="what the probabilities were calibrated on, None where they were not")
    accuracy: Estimate = Field(description='"multi": the share of right decisions, over all rows and labels')
    macro_f1: Estimate = Field(description="mean over the labels that occur or were given")
    ece: Estimate
    ece_by_chance: float = Field(description="what a perfectly calibrated model would show on such rows, on average")
    risk_coverage_area: Estimate = Field(description="mean error rate over all coverages; less is better")
    mean_absolute_error: Estimate | None = Field(default=None, description='"ordinal": in steps')
    quadratic_kappa: Estimate | None = None
    micro_f1: Estimate | None = None
    subset_accuracy: Estimate | None = Field(default=None, description='"multi": rows with all labels right')
    in_scope_accuracy: Estimate | None = None
    out_of_scope_auroc: Estimate | None = None
    per_class: list[ClassFigures]
    coverage: list[CoveragePoint]
    sets: list[SetFigures] | None = None
    confused: list[Confusion] = Field(default=[], description="the most frequent confusions")
    resamples: int
    seed: int

    @property
    def headline(self) -> dict[str, Estimate]:
        """The single figures that apply, by name."""
        return {name: value for name, value in self if isinstance(value, Estimate)}


class Comparison(Result):
    """Two models on the same rows; differences are the first's figure less the second's."""

    name: str
    opponent: str
    only_first_right: int
    only_second_right: int
    p_value: float = Field(description="exact McNemar test, two-sided")
    accuracy: Estimate = Field(description='the difference; for "multi" that of subset accuracy')
    macro_f1: Estimate = Field(description="the difference")
    verdict: str
    opponent_figures: Figures


class Summary(Result):
    """One run of `nautile evaluate`."""

    model: str
    data: str
    notes: list[str]
    figures: Figures
    comparisons: list[Comparison] = []
