"""All figures of judged rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nautile.errors import NautileError
from nautile.tasks.calibrate import Calibration, choose, confidence_of, prediction_sets
from nautile.tasks.decide import given as given_labels
from nautile.tasks.decide import sure_of, thresholds_of
from nautile.tasks.evaluate import measures
from nautile.tasks.evaluate.bootstrap import bootstrap, calibration_interval
from nautile.tasks.evaluate.measures import Decisions, Measure
from nautile.tasks.evaluate.results import ClassFigures, Confusion, CoveragePoint, Estimate, Figures, SetFigures
from nautile.tasks.kinds import Array, Kind, Truth
from nautile.tasks.question import Policy

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
SET_COVERAGES = (0.8, 0.9, 0.95)
MOST_CONFUSED = 10


@dataclass(frozen=True)
class Judged:
    """Rows a model has judged: calibrated probabilities (N,C); truth (N) indices, for "multi" (N,C) booleans."""

    labels: tuple[str, ...]
    kind: Kind
    probabilities: Array
    truth: Truth
    calibration: Calibration | None = None
    out_of_scope: str | None = None
    alone: str | None = None  # "multi": a label that is never given with others

    def __post_init__(self) -> None:
        rows, classes = self.probabilities.shape
        assert classes == len(self.labels), f"{classes} columns for {len(self.labels)} labels"
        assert self.truth.shape == ((rows, classes) if self.kind == "multi" else (rows,)), self.truth.shape
        if not rows:
            raise NautileError("there are no rows to evaluate on")

    @property
    def given(self) -> Decisions:
        """The decisions: (N) indices, for "multi" (N,C) booleans, at the calibrated thresholds or at one half."""
        if self.kind != "multi":
            return choose(self.probabilities, self.kind)
        return given_labels(self.probabilities, thresholds_of(Policy(), self.calibration), self._alone)

    @property
    def _alone(self) -> int | None:
        return self.labels.index(self.alone) if self.alone in self.labels else None

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N): whether the row's label is right, for "multi" whether all of them are."""
        same = self.given == self.truth
        return same.all(axis=1) if self.kind == "multi" else same

    @property
    def confidence(self) -> Array:
        """(N)."""
        if self.kind != "multi":
            return confidence_of(self.probabilities, self.kind)
        return sure_of(self.probabilities, np.asarray(self.given, dtype=bool), self._alone)

    @property
    def sure(self) -> tuple[Array, NDArray[np.bool_]]:
        """(N,M) probabilities whose calibration is judged, and (N,M) what came true."""
        if self.kind == "multi":
            return self.probabilities, self.truth.astype(bool)
        return self.confidence[:, None], self.right[:, None]


def figures(judged: Judged, resamples: int = 1000, seed: int = 0) -> Figures:
    """All figures; the headline ones with 95 % intervals from `resamples` draws of the rows (0: no intervals).

    Raises:
        NautileError: no rows.
    """
    named = headline_measures(judged)
    curve = {"curve": measures.risk_coverage(judged.confidence, judged.right, SHARES)}
    found = bootstrap({**named, **curve, **_set_measures(judged)}, len(judged.probabilities), resamples, seed)
    area, *points = found["curve"]
    by_chance = measures.calibration_error_by_chance(judged.sure[0])
    return Figures(
        kind=judged.kind,
        labels=list(judged.labels),
        rows=len(judged.probabilities),
        calibrated=None if judged.calibration is None else judged.calibration.source,
        **{name: found[name][0] for name in named if name != "ece"},
        ece=calibration_interval(found["ece"][0], by_chance),
        ece_by_chance=float(by_chance.mean()),
        risk_coverage_area=area,
        per_class=per_class(judged),
        coverage=_curve(judged, points),
        sets=_sets(judged, found),
        confused=confused(judged),
        resamples=resamples,
        seed=seed,
    )


def headline_measures(judged: Judged) -> dict[str, Measure]:
    """The measures that apply, by their names in `Figures`."""
    given, truth, classes = judged.given, judged.truth, len(judged.labels)
    found = {
        "accuracy": measures.mean_of(judged.right),
        "macro_f1": measures.macro_f1(given, truth, classes),
        "ece": measures.calibration_error(*judged.sure),
    }
    if judged.kind == "multi":
        found["accuracy"] = measures.mean_of((given == truth).mean(axis=1))
        found["subset_accuracy"] = measures.mean_of(judged.right)
        found["micro_f1"] = measures.micro_f1(given, truth, classes)
    if judged.kind == "ordinal":
        found["mean_absolute_error"] = measures.mean_of(np.abs(given - truth))
        found["quadratic_kappa"] = measures.quadratic_kappa(given, truth)
    if judged.kind == "single" and judged.out_of_scope in judged.labels:
        place = judged.labels.index(judged.out_of_scope)
        outside = truth == place
        if outside.any() and not outside.all():
            found["in_scope_accuracy"] = measures.mean_of(judged.right, ~outside)
            found["out_of_scope_auroc"] = measures.auroc(judged.probabilities[:, place], outside)
    return found


def per_class(judged: Judged) -> list[ClassFigures]:
    """Figures of each label that occurs or was given."""
    counts = measures.label_counts(judged.given, judged.truth, len(judged.labels))
    rows = [part[0] for part in counts(np.ones((1, len(judged.truth))))]
    return [
        ClassFigures(
            label=label,
            precision=hits / max(1, gave),
            recall=hits / max(1, true),
            f1=2 * hits / (gave + true),
            support=int(true),
            given=int(gave),
        )
        for label, hits, gave, true in zip(judged.labels, *rows, strict=True)
        if gave + true
    ]


def confused(judged: Judged, most: int = MOST_CONFUSED) -> list[Confusion]:
    """The most frequent pairs of true label and other label given; none for "multi"."""
    if judged.kind == "multi":
        return []
    wrong = ~judged.right
    pairs, rows = np.unique(np.stack([judged.truth, judged.given])[:, wrong], axis=1, return_counts=True)
    best = np.argsort(-rows, kind="stable")[:most]
    return [
        Confusion(truth=judged.labels[pairs[0, n]], given=judged.labels[pairs[1, n]], rows=int(rows[n])) for n in best
    ]


def _curve(judged: Judged, accuracies: list[Estimate]) -> list[CoveragePoint]:
    ranked = np.sort(judged.confidence)[::-1]
    last = [max(1, int(np.ceil(share * len(ranked) - 1e-9))) - 1 for share in SHARES]
    return [
        CoveragePoint(coverage=share, threshold=float(ranked[place]), accuracy=accuracy)
        for share, place, accuracy in zip(SHARES, last, accuracies, strict=True)
    ]


def _held_and_size(judged: Judged, calibration: Calibration, coverage: float) -> tuple[NDArray[np.bool_], Array]:
    sets_NC = prediction_sets(judged.probabilities, calibration, coverage)
    if judged.kind == "multi":
        return (sets_NC | ~judged.truth.astype(bool)).all(axis=1), sets_NC.sum(axis=1)
    return sets_NC[np.arange(len(sets_NC)), judged.truth], sets_NC.sum(axis=1)


def _set_measures(judged: Judged) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    if judged.calibration is None:
        return found
    for coverage in SET_COVERAGES:
        held, size = _held_and_size(judged, judged.calibration, coverage)
        found |= {
            f"held {coverage}": measures.mean_of(held),
            f"size {coverage}": measures.mean_of(size),
            f"empty {coverage}": measures.mean_of(size == 0),
        }
    return found


def _sets(judged: Judged, found: dict[str, list[Estimate]]) -> list[SetFigures] | None:
    if judged.calibration is None:
        return None
    return [
        SetFigures(
            coverage=coverage,
            held=found[f"held {coverage}"][0],
            size=found[f"size {coverage}"][0],
            empty=found[f"empty {coverage}"][0].value,
        )
        for coverage in SET_COVERAGES
    ]
