"""What held-out rows say should be added to each label's logit: labels are rarer or commoner there than in training.

Bias-corrected temperature scaling, Alexandari, Kundaje and Shrikumar 2020; the scaling is left to `calibrate`.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from nautile.tasks.calibrate import probabilities
from nautile.tasks.folds import FOLDS
from nautile.tasks.kinds import Array

PENALTY = 1.0  # of an offset's square, beside a row's log loss: labels of few rows move little


def fit_offsets(logits_NC: Array, truth_N: NDArray[np.int64], folds_N: NDArray[np.int64]) -> tuple[Array, Array]:
    """Offsets (C), and the logits (N,C) with offsets added that were fitted without the row's own fold.

    They are zero unless they lower the cross-validated log loss against a temperature alone: with few rows a label they
    would fit noise.
    """
    moved_NC, losses = np.array(logits_NC, dtype=float), np.zeros(2)
    for fold in range(FOLDS):
        learned, judged = folds_N != fold, folds_N == fold
        for way, free in enumerate((False, True)):
            sharpness, offset_C = _fitted(logits_NC[learned], truth_N[learned], free)
            losses[way] += _missing(sharpness * (logits_NC[judged] + offset_C), truth_N[judged])
        moved_NC[judged] += offset_C
    if losses[1] >= losses[0]:
        return np.zeros(logits_NC.shape[1]), np.array(logits_NC, dtype=float)
    return _fitted(logits_NC, truth_N, True)[1], moved_NC


def _missing(logits_NC: Array, truth_N: NDArray[np.int64]) -> float:
    """The log loss, summed."""
    shares_NC = probabilities(logits_NC, "single")
    return float(-np.log(shares_NC[np.arange(len(truth_N)), truth_N].clip(1e-300)).sum())


def _fitted(logits_NC: Array, truth_N: NDArray[np.int64], free: bool) -> tuple[float, Array]:
    """A sharpness and the offsets (C), which are zero unless they are `free`."""
    N, C = logits_NC.shape
    if not N:
        return 1.0, np.zeros(C)
    true_NC = np.eye(C)[truth_N]

    def loss(flat: Array) -> tuple[float, Array]:
        sharpness, offset_C = np.exp(flat[0]), flat[1:]
        scaled_NC = sharpness * (logits_NC + offset_C)
        surplus_NC = probabilities(scaled_NC, "single") - true_NC
        missing = _missing(scaled_NC, truth_N) + PENALTY * (offset_C**2).sum()
        of_offsets = free * (sharpness * surplus_NC.sum(axis=0) + 2 * PENALTY * offset_C)
        return missing / N, np.array([(surplus_NC * scaled_NC).sum(), *of_offsets]) / N

    found: Array = minimize(loss, np.zeros(1 + C), jac=True, method="L-BFGS-B").x
    return float(np.exp(found[0])), found[1:]
