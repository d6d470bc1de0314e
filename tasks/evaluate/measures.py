"""Measures as functions of row weights (R,N): R resamples of N rows at once, each weight the times a row was drawn.

A measure gives (R,K), K values a resample; with weights of one it gives the plain figure. NaN where it is undefined.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nautile.tasks.calibrate import BINS
from nautile.tasks.kinds import Array

Measure = Callable[[Array], Array]
Decisions = NDArray[np.int64] | NDArray[np.bool_]


def grouped(weights_RN: Array, group_N: NDArray[Any], groups: int) -> Array:
    """(R,groups): the sum of the weights in each group."""
    keys = np.arange(len(weights_RN))[:, None] * groups + group_N
    sums = np.bincount(keys.ravel(), weights_RN.ravel(), len(weights_RN) * groups)
    return sums.reshape(len(weights_RN), groups).astype(float)


def ratio(part: Array, whole: Array) -> Array:
    """`part / whole`, NaN where the whole is nothing."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def mean_of(value_N: NDArray[Any], among_N: NDArray[np.bool_] | None = None) -> Measure:
    """The mean of a value, of the rows in `among_N` alone if that is given."""
    among = np.ones(len(value_N)) if among_N is None else np.asarray(among_N, dtype=float)
    value = np.asarray(value_N, dtype=float) * among
    return lambda weights_RN: ratio(weights_RN @ value, weights_RN @ among)[:, None]


def label_counts(given: Decisions, truth: Decisions, classes: int) -> Callable[[Array], tuple[Array, Array, Array]]:
    """For each label (R,C): rows it was rightly given in, rows it was given in, rows it is true of.

    Decisions are indices (N), or booleans (N,C) where a row may carry several labels.
    """
    if truth.ndim == 2:
        tables = [np.asarray(table, dtype=float) for table in (given & truth, given, truth)]
        return lambda weights_RN: (weights_RN @ tables[0], weights_RN @ tables[1], weights_RN @ tables[2])
    right = (given == truth).astype(float)

    def counts(weights_RN: Array) -> tuple[Array, Array, Array]:
        hits = grouped(weights_RN * right, truth, classes)
        return hits, grouped(weights_RN, given, classes), grouped(weights_RN, truth, classes)

    return counts


def macro_f1(given: Decisions, truth: Decisions, classes: int) -> Measure:
    """The mean F1 of the labels that occur or were given."""
    counts = label_counts(given, truth, classes)

    def measure(weights_RN: Array) -> Array:
        hits, gave, true = counts(weights_RN)
        f1 = ratio(2 * hits, gave + true)
        return ratio(np.nansum(f1, axis=1), (~np.isnan(f1)).sum(axis=1))[:, None]

    return measure


def micro_f1(given: Decisions, truth: Decisions, classes: int) -> Measure:
    """F1 over all decisions of all labels."""
    counts = label_counts(given, truth, classes)

    def measure(weights_RN: Array) -> Array:
        hits, gave, true = (part.sum(axis=1) for part in counts(weights_RN))
        return ratio(2 * hits, gave + true)[:, None]

    return measure


def bins_of(sure: Array, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each probability."""
    return np.minimum((sure * bins).astype(np.int64), bins - 1)


def calibration_error(sure_NM: Array, right_NM: NDArray[np.bool_], bins: int = BINS) -> Measure:
    """As `calibrate.ece`, of M decisions a row."""
    rows, decisions = sure_NM.shape
    place = bins_of(sure_NM, bins) + np.arange(rows)[:, None] * bins
    gaps_NB = np.bincount(place.ravel(), (sure_NM - right_NM).ravel(), rows * bins).reshape(rows, bins)
    return lambda weights_RN: (np.abs(weights_RN @ gaps_NB).sum(axis=1) / weights_RN.sum(axis=1) / decisions)[:, None]


def calibration_error_by_chance(sure_NM: Array, bins: int = BINS, draws: int = 4000, seed: int = 0) -> Array:
    """(draws): errors that a perfectly calibrated model with these confidences would show on so many rows.

    What comes true is drawn as a normal deviate for each bin.
    """
    variance = np.bincount(bins_of(sure_NM, bins).ravel(), np.maximum(0, sure_NM * (1 - sure_NM)).ravel(), bins)
    gaps = np.random.default_rng(seed).normal(size=(draws, bins)) * np.sqrt(variance)
    errors: Array = np.abs(gaps).sum(axis=1) / sure_NM.size
    return errors


def risk_coverage(confidence_N: Array, right_N: NDArray[np.bool_], shares: Sequence[float]) -> Measure:
    """The area under the curve of risk over coverage, then the accuracy where each share of rows is answered.

    The most confident rows are answered first; rows of equal confidence together, as a threshold does.
    """
    levels, group = np.unique(-confidence_N, return_inverse=True)

    def measure(weights_RN: Array) -> Array:
        rows = grouped(weights_RN, group, len(levels))
        answered = rows.cumsum(axis=1)
        accuracy = ratio(grouped(weights_RN * right_N, group, len(levels)).cumsum(axis=1), answered)
        total = answered[:, -1:]
        area = (rows * (1 - np.nan_to_num(accuracy))).sum(axis=1, keepdims=True) / total
        ends = [(answered < share * total - 1e-9).sum(axis=1, keepdims=True) for share in shares]
        return np.hstack([area, *(np.take_along_axis(accuracy, end, axis=1) for end in ends)])

    return measure


def auroc(score_N: Array, positive_N: NDArray[np.bool_]) -> Measure:
    """The chance that a positive row scores above another one; equal scores count half."""
    levels, group = np.unique(score_N, return_inverse=True)

    def measure(weights_RN: Array) -> Array:
        above = grouped(weights_RN * positive_N, group, len(levels))
        others = grouped(weights_RN * ~positive_N, group, len(levels))
        below = others.cumsum(axis=1) - others / 2
        return ratio((above * below).sum(axis=1), above.sum(axis=1) * others.sum(axis=1))[:, None]

    return measure


def quadratic_kappa(given_N: NDArray[Any], truth_N: NDArray[Any]) -> Measure:
    """Cohen's kappa with squared steps for weights: one minus squared error over that of independent draws."""
    given, truth = given_N.astype(float), truth_N.astype(float)
    moments_NM = np.stack([given, truth, given**2 + truth**2, (given - truth) ** 2], axis=1)

    def measure(weights_RN: Array) -> Array:
        means_RM = weights_RN @ moments_NM / weights_RN.sum(axis=1, keepdims=True)
        mean_given, mean_truth, squares, error = means_RM.T
        return 1 - ratio(error, squares - 2 * mean_given * mean_truth)[:, None]

    return measure
