"""A linear classifier of vectors: whitened within the classes by choice, then logistic regression, in NumPy.

The whitening divides out the directions in which texts of one class differ among themselves, estimated with
shrinkage (Ledoit and Wolf 2004, to a multiple of the identity). It is linear as logistic regression is, so both
end as one weight matrix on the vectors themselves.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from nautile.tasks.calibrate import Array, Kind, probabilities

LONGEST_SEARCH = 1000  # steps of L-BFGS
MEMORY = 20


class Linear(NamedTuple):
    """Logits (N,C) of vectors (N,D)."""

    weight_CD: NDArray[np.float32]
    bias_C: NDArray[np.float32]

    def logits(self, vectors_ND: NDArray[np.float32]) -> Array:
        """(N,C), uncalibrated."""
        found: Array = vectors_ND.astype(float) @ self.weight_CD.T.astype(float) + self.bias_C
        return found


class Rows(NamedTuple):
    """Vectors (N,D), what is true of them (N,C; one-hot for "single"), and how often each counts (N).

    Rows of one group (N; any numbers) have the same text. `emphasis_N` (N) is how much more a row counts in learning,
    for the sake of rare classes; what is learned is calibrated without it.
    """

    vectors_ND: NDArray[np.float32]
    truth_NC: Array
    weight_N: Array
    kind: Kind
    group_N: NDArray[np.int64]
    emphasis_N: Array | None = None

    @property
    def learning(self) -> Array:
        """(N): how much each row counts in learning."""
        return self.weight_N if self.emphasis_N is None else self.weight_N * self.emphasis_N

    def take(self, index: NDArray[np.int64]) -> "Rows":
        """Some of the rows."""
        taken = (self.vectors_ND[index], self.truth_NC[index], self.weight_N[index])
        return Rows(*taken, self.kind, self.group_N[index], None if self.emphasis_N is None else self.emphasis_N[index])


class Recipe(NamedTuple):
    """How to fit: the share of the identity in the within-class covariance (1: no whitening), and the inverse penalty.

    `strength` is scikit-learn's C for features of unit length on average.
    """

    shrinkage: float
    strength: float


def fit_linear(rows: Rows, recipe: Recipe, tolerance: float = 1e-6) -> Linear:
    """Fit to all rows; `tolerance` is on the gradient of the mean loss."""
    share_N = rows.learning / rows.learning.sum()
    vectors_ND = rows.vectors_ND.astype(float)
    mean_D = share_N @ vectors_ND
    centred_ND = vectors_ND - mean_D
    turn_DD = _whitening(centred_ND, rows.truth_NC, share_N, recipe.shrinkage)
    turned_ND = centred_ND @ turn_DD
    length = np.sqrt(share_N @ (turned_ND**2).sum(axis=1)) or 1.0
    weight_CD, bias_C = _descend(turned_ND / length, rows, recipe.strength, tolerance)
    weight_CD = weight_CD @ turn_DD.T / length
    return Linear(weight_CD.astype(np.float32), (bias_C - weight_CD @ mean_D).astype(np.float32))


def _whitening(centred_ND: Array, truth_NC: Array, share_N: Array, shrinkage: float) -> Array:
    """(D,D): the inverse root of the covariance of what the labels leave unexplained."""
    D = centred_ND.shape[1]
    if shrinkage == 1:
        return np.eye(D)
    root_N1 = np.sqrt(share_N)[:, None]
    known_NC = np.hstack([np.ones((len(truth_NC), 1)), truth_NC]) * root_N1
    scaled_ND = centred_ND * root_N1
    residual_ND = scaled_ND - known_NC @ (np.linalg.pinv(known_NC.T @ known_NC) @ (known_NC.T @ scaled_ND))
    values_D, directions_DD = np.linalg.eigh(residual_ND.T @ residual_ND)
    level = values_D.sum() / D
    if level < 1e-12:
        return np.eye(D)
    shrunk_D = (1 - shrinkage) * values_D.clip(0) + shrinkage * level
    turned: Array = directions_DD / np.sqrt(shrunk_D) @ directions_DD.T
    return turned


def _descend(features_ND: Array, rows: Rows, strength: float, tolerance: float) -> tuple[Array, Array]:
    """Weights (C,D) and bias (C) of least cross-entropy with an L2 penalty on the weights."""
    C, D = rows.truth_NC.shape[1], features_ND.shape[1]
    share_N1 = (rows.learning / rows.learning.sum())[:, None]
    penalty = 1 / (strength * rows.learning.sum())

    def loss(flat: Array) -> tuple[float, Array]:
        weight_CD, bias_C = flat[: C * D].reshape(C, D), flat[C * D :]
        logits_NC = features_ND @ weight_CD.T + bias_C
        surplus_NC = share_N1 * (probabilities(logits_NC, rows.kind) - rows.truth_NC)
        slope_CD = surplus_NC.T @ features_ND + penalty * weight_CD
        total = float((share_N1[:, 0] * cross_entropy(logits_NC, rows.truth_NC, rows.kind)).sum())
        total += penalty / 2 * float((weight_CD**2).sum())
        return total, np.concatenate([slope_CD.ravel(), surplus_NC.sum(axis=0)])

    options = {"gtol": tolerance, "ftol": 0, "maxiter": LONGEST_SEARCH, "maxcor": MEMORY}
    found = minimize(loss, np.zeros(C * D + C), jac=True, method="L-BFGS-B", options=options).x
    return found[: C * D].reshape(C, D), found[C * D :]


def cross_entropy(logits_NC: Array, truth_NC: Array, kind: Kind) -> Array:
    """(N), in nats; for "multi" the sum over the labels."""
    if kind == "multi":
        each_NC = np.logaddexp(0, logits_NC) - truth_NC * logits_NC
        total: Array = each_NC.sum(axis=1)
        return total
    top_N = logits_NC.max(axis=1)
    missing: Array = top_N + np.log(np.exp(logits_NC - top_N[:, None]).sum(axis=1)) - (truth_NC * logits_NC).sum(axis=1)
    return missing
