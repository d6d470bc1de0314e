"""What held-out rows say should be added to each label's logit: labels are rarer or commoner there than in training.

Bias-corrected temperature scaling, Alexandari, Kundaje and Shrikumar 2020; the temperature is left to `calibrate`.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from nautile.tasks.calibrate import FOLDS, Array, probabilities

PENALTY = 1.0  # of an offset's square, beside a row's log loss: labels of few rows move little


def fit_offsets(logits_NC: Array, truth_N: NDArray[np.int64], folds_N: NDArray[np.int64]) -> tuple[Array, Array]:
    """Offsets (C), and the logits (N,C) with offsets added that were fitted without the row's own fold."""
    moved_NC = np.array(logits_NC, dtype=float)
    for fold in range(FOLDS):
        moved_NC[folds_N == fold] += _offsets(logits_NC[folds_N != fold], truth_N[folds_N != fold])
    return _offsets(logits_NC, truth_N), moved_NC


def _offsets(logits_NC: Array, truth_N: NDArray[np.int64]) -> Array:
    N, C = logits_NC.shape
    if not N:
        return np.zeros(C)
    true_NC = np.eye(C)[truth_N]

    def loss(flat: Array) -> tuple[float, Array]:
        sharpness, offset_C = np.exp(flat[0]), flat[1:]
        scaled_NC = sharpness * (logits_NC + offset_C)
        shares_NC = probabilities(scaled_NC, "single")
        missing = -np.log(shares_NC[np.arange(N), truth_N].clip(1e-300)).sum() + PENALTY * (offset_C**2).sum()
        surplus_NC = shares_NC - true_NC
        of_offsets = sharpness * surplus_NC.sum(axis=0) + 2 * PENALTY * offset_C
        return missing / N, np.array([(surplus_NC * scaled_NC).sum(), *of_offsets]) / N

    offsets: Array = minimize(loss, np.zeros(1 + C), jac=True, method="L-BFGS-B").x[1:]
    return offsets
