"""Probabilities one can use: scaled by what held-out rows say, thresholds, prediction sets with stated coverage.

A `Calibration` is fitted on rows that the model did not learn from, and is kept beside the head as JSON.

Source: least ambiguous sets, Sadinle et al. 2019. A cross-fitted figure is that of logits scaled as other folds say.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from nautile.errors import NautileError
from nautile.tasks.folds import folds_of, folds_of_texts
from nautile.tasks.kinds import Array, Kind, Truth
from nautile.tasks.likelihood import cross_entropy, shares
from nautile.tasks.scaling import Scaling, crossfitted, fit_scaling, softened

BINS = 15
LEVELS = 201  # quantiles kept of a score's distribution
FEWEST_ROWS = 20


class Calibration(BaseModel):
    """What held-out rows say about a head's probabilities; `ece` is cross-fitted on those rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    source: str = Field(description="which rows, in words")
    rows: int = Field(description="how many, for prediction sets; copies of a text count once")
    temperature: float = Field(gt=0, description="logits are divided by it, once their size has the power")
    power: float = Field(default=1.0, gt=0, description="of the size of a row's logits; see `scaling.py`")
    ece_before: float
    ece: float
    thresholds: list[float] | None = Field(default=None, description="multi: a label is given from here on")
    confidence: list[float] = Field(description="quantiles of the confidence, 0 to 1 in even steps")
    nonconformity: list[float] = Field(description="quantiles of the true labels' scores, for prediction sets")

    @property
    def scaling(self) -> Scaling:
        """From a head's logits to those of its probabilities."""
        return Scaling(self.temperature, self.power)


def probabilities(logits_NC: Array, kind: Kind, calibration: Calibration | None = None) -> Array:
    """(N,C): a softmax, or for "multi" a sigmoid a label, of the logits, scaled where they are calibrated."""
    scaled = np.asarray(logits_NC, dtype=float) if calibration is None else calibration.scaling(logits_NC, kind)
    return shares(scaled, kind)


def confidence_of(probabilities_NC: Array, kind: Kind, thresholds: Sequence[float] | float | None = None) -> Array:
    """(N): the chosen label's probability; for "multi" the least sure decision's, at `thresholds` (or 1/2)."""
    if kind == "multi":
        return least_sure(probabilities_NC, probabilities_NC >= np.asarray(0.5 if thresholds is None else thresholds))
    chosen = choose(probabilities_NC, kind)
    picked: Array = probabilities_NC[np.arange(len(chosen)), chosen]
    return picked


def least_sure(probabilities_NC: Array, given_NC: NDArray[np.bool_]) -> Array:
    """(N): the probability of the least sure among a row's decisions, one a label: given or not."""
    sure: Array = np.where(given_NC, probabilities_NC, 1 - probabilities_NC).min(axis=1)
    return sure


def choose(probabilities_NC: Array, kind: Kind) -> NDArray[np.int64]:
    """(N): the most probable label; "ordinal": the median one, which errs by the fewest steps on average."""
    if kind == "ordinal":
        median: NDArray[np.int64] = (probabilities_NC.cumsum(axis=1) < 0.5 - 1e-12).sum(axis=1)
        return np.minimum(median, probabilities_NC.shape[1] - 1)
    return np.asarray(probabilities_NC.argmax(axis=1))


def ece(probabilities_NC: Array, truth: Truth, kind: Kind, bins: int = BINS) -> float:
    """Expected calibration error over `bins` bins of equal width: of the chosen label, or of all of "multi"'s.

    `truth` is (N) indices, for "multi" (N,C) booleans.
    """
    if kind == "multi":
        sure, right = probabilities_NC.ravel(), np.asarray(truth, dtype=float).ravel()
    else:
        sure = confidence_of(probabilities_NC, kind)
        right = (choose(probabilities_NC, kind) == truth).astype(float)
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [abs(float((sure - right)[place == n].sum())) for n in range(bins)]
    return sum(gaps) / max(1, len(sure))


def calibrate_on(logits_NC: Array, truth: Truth, kind: Kind, source: str, texts: Sequence[str]) -> Calibration:
    """`calibrate` on the judgments of these texts, of which copies are no further evidence."""
    return calibrate(logits_NC, truth, kind, source, len(set(texts)), folds_of_texts(texts))


def calibrate(
    logits_NC: Array,
    truth: Truth,
    kind: Kind,
    source: str,
    independent: int | None = None,
    folds_N: NDArray[np.int64] | None = None,
) -> Calibration:
    """Fit a temperature, and a power where it helps, on held-out rows; `source` names these in words.

    `independent` says how many of them are, where some repeat others, and `folds_N` (of `folds_of_texts`) keeps these
    together in what is cross-fitted.

    Raises:
        NautileError: fewer than 20 rows.
    """
    rows = len(logits_NC) if independent is None else independent
    if rows < FEWEST_ROWS:
        raise NautileError(f"{rows} held-out rows are too few to calibrate on; give at least {FEWEST_ROWS}")
    folds_N = folds_of(len(logits_NC)) if folds_N is None else folds_N
    plain_NC, powered_NC = (crossfitted(logits_NC, truth, kind, folds_N, with_power) for with_power in (False, True))
    with_power = _better(powered_NC, plain_NC, truth, kind, rows)
    scaling = fit_scaling(logits_NC, truth, kind, with_power)
    found = probabilities(scaling(logits_NC, kind), kind)
    levels = np.linspace(0, 1, LEVELS)
    thresholds = best_thresholds(found, np.asarray(truth, dtype=bool)) if kind == "multi" else None
    return Calibration(
        kind=kind,
        source=source,
        rows=rows,
        temperature=scaling.temperature,
        power=scaling.power,
        ece_before=ece(probabilities(logits_NC, kind), truth, kind),
        ece=ece(probabilities(powered_NC if with_power else plain_NC, kind), truth, kind),
        thresholds=thresholds,
        confidence=np.quantile(confidence_of(found, kind, thresholds), levels).tolist(),
        nonconformity=np.quantile(_nonconformity(found, truth, kind), levels, method="higher").tolist(),
    )


def _better(powered_NC: Array, plain_NC: Array, truth: Truth, kind: Kind, rows: int) -> bool:
    """Whether a power helps cross-fitted logits: likelier by a standard error (of `rows`), and no worse calibrated."""
    wanted_NC = softened(truth, plain_NC.shape, kind)
    gained_N = cross_entropy(plain_NC, wanted_NC, kind) - cross_entropy(powered_NC, wanted_NC, kind)
    powered, plain = (ece(probabilities(scaled_NC, kind), truth, kind) for scaled_NC in (powered_NC, plain_NC))
    return powered <= plain and bool(gained_N.mean() > gained_N.std() / np.sqrt(rows))


def rarest(truth_NC: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N): of each row's labels the one that the fewest rows have, -1 where it has none; to stratify by."""
    counts_NC = np.where(truth_NC, truth_NC.sum(axis=0), len(truth_NC) + 1)
    return np.where(truth_NC.any(axis=1), counts_NC.argmin(axis=1), -1)


def best_thresholds(probabilities_NC: Array, truth_NC: NDArray[np.bool_]) -> list[float]:
    """For each label the threshold of best F1; for labels too rare for one of their own that of all labels together.

    Where even these occur fewer than 20 times, it is 0.5: the best F1 of a few rows is luck, and says "give it to all".
    """
    enough = truth_NC.sum() >= FEWEST_ROWS
    shared = _best_threshold(probabilities_NC.ravel(), truth_NC.ravel()) if enough else 0.5
    return [
        _best_threshold(scores, true) if true.sum() >= FEWEST_ROWS else shared
        for scores, true in zip(probabilities_NC.T, truth_NC.T, strict=True)
    ]


def _best_threshold(scores_N: Array, true_N: NDArray[np.bool_]) -> float:
    """Half-way between the last score to be taken for the best F1 and the first one not to be."""
    order = np.argsort(-scores_N, kind="stable")
    hits = true_N[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + max(1, true_N.sum()))
    alike = np.append(scores_N[order[1:]] == scores_N[order[:-1]], False)
    best = int(np.where(alike, -1.0, f1).argmax())
    after = scores_N[order[best + 1]] if best + 1 < len(order) else 0.0
    return float((scores_N[order[best]] + after) / 2)


def _nonconformity(probabilities_NC: Array, truth: Truth, kind: Kind) -> NDArray[np.float64]:
    """One minus the probability of each row's true label; for "multi" of the least probable one, 0 where none is."""
    if kind == "multi":
        return 1 - np.where(truth, probabilities_NC, 1.0).min(axis=1)
    missing: Array = 1 - probabilities_NC[np.arange(len(probabilities_NC)), truth]
    return missing


def prediction_sets(probabilities_NC: Array, calibration: Calibration, coverage: float) -> NDArray[np.bool_]:
    """(N,C): the smallest sets that hold the truth (all true labels) in a share `coverage` of rows like the held-out.

    A set may be empty: where a model is right more often than `coverage` asks, its least certain rows are given up.

    Raises:
        NautileError: a coverage outside (0, 1).
    """
    level = _finite(_share(coverage, "coverage"), calibration.rows)
    limit = _quantile(calibration.nonconformity, level) if level <= 1 else 1.0
    return np.asarray(1 - probabilities_NC <= limit)


def threshold_for(calibration: Calibration, answered: float) -> float:
    """The confidence from which on a share `answered` of rows like the held-out ones gets an answer.

    Raises:
        NautileError: a share outside (0, 1).
    """
    return _quantile(calibration.confidence, 1 - _share(answered, "share to answer"))


def _finite(coverage: float, rows: int) -> float:
    """The level that makes the coverage hold for a new row; above 1, every label, where the held-out are too few."""
    return float(np.ceil((rows + 1) * coverage - 1e-9) / rows)


def _quantile(levels: Sequence[float], share: float) -> float:
    """The quantile at `share`, rounded up to the next level that was kept."""
    return float(levels[int(np.ceil(share * (len(levels) - 1) - 1e-9))])


def _share(value: float, name: str) -> float:
    if not 0 < value < 1:
        raise NautileError(f"{name} must be above 0 and below 1, not {value}")
    return value
