"""A linear classifier: vectors, whitened within the classes by choice, words by choice, then logistic regression.

The whitening divides out the directions in which texts of one class differ among themselves, estimated with
shrinkage (Ledoit and Wolf 2004, to a multiple of the identity). It is linear as logistic regression is, so both
end as one weight matrix on the vectors themselves.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array, vstack

from nautile.tasks.calibrate import probabilities
from nautile.tasks.kinds import Array, Kind
from nautile.tasks.likelihood import cross_entropy

LONGEST_SEARCH = 1000  # steps of L-BFGS
MEMORY = 20


class Linear(NamedTuple):
    """Logits (N,C) of vectors (N,D) and, if it looks at them, words (N,S)."""

    weight_CD: NDArray[np.float32]
    bias_C: NDArray[np.float32]
    words_SC: NDArray[np.float16] | None = None

    def logits(self, vectors_ND: NDArray[np.float32], words_NS: Any = None) -> Array:
        """(N,C), uncalibrated."""
        found: Array = vectors_ND.astype(float) @ self.weight_CD.T.astype(float) + self.bias_C
        return found if self.words_SC is None else found + words_NS @ self.words_SC.astype(float)


class Rows(NamedTuple):
    """Vectors (N,D), what is true of them (N,C; one-hot for "single"), and how often each counts (N).

    Rows of one group (N; any numbers) have the same text. `emphasis_N` (N) is how much more a row counts in learning,
    for the sake of rare classes; what is learned is calibrated without it. `words_NS` (N,S), a sparse array of rows of
    length 1 or 0, is which words each text holds. `names_CD` (C,D) are vectors of what the classes are called, and
    `likeness_DD` (D,D) turns vectors so that their products say how alike texts are in meaning.
    """

    vectors_ND: NDArray[np.float32]
    truth_NC: Array
    weight_N: Array
    kind: Kind
    group_N: NDArray[np.int64]
    emphasis_N: Array | None = None
    words_NS: Any = None
    names_CD: NDArray[np.float32] | None = None
    likeness_DD: Array | None = None

    @property
    def learning(self) -> Array:
        """(N): how much each row counts in learning."""
        return self.weight_N if self.emphasis_N is None else self.weight_N * self.emphasis_N

    @property
    def plain(self) -> bool:
        """Whether there are vectors alone."""
        return self.words_NS is None and self.names_CD is None and self.likeness_DD is None

    def take(self, index: NDArray[np.int64]) -> "Rows":
        """Some of the rows."""
        emphasis_N, words_NS = (None if part is None else part[index] for part in (self.emphasis_N, self.words_NS))
        return self._replace(
            vectors_ND=self.vectors_ND[index],
            truth_NC=self.truth_NC[index],
            weight_N=self.weight_N[index],
            group_N=self.group_N[index],
            emphasis_N=emphasis_N,
            words_NS=words_NS,
        )

    def with_names(self) -> "Rows":
        """The rows, and one of weight 1 for each class: its name is a text of it, of which no words are looked at."""
        assert self.names_CD is not None
        C, words_NS = len(self.names_CD), self.words_NS
        return self._replace(
            vectors_ND=np.vstack([self.vectors_ND, self.names_CD]),
            truth_NC=np.vstack([self.truth_NC, np.eye(C)]),
            weight_N=np.append(self.learning, np.ones(C)),
            group_N=np.append(self.group_N, np.zeros(C, dtype=np.int64)),
            emphasis_N=None,
            words_NS=None if words_NS is None else vstack([words_NS, csr_array((C, words_NS.shape[1]))], format="csr"),
        )


class Recipe(NamedTuple):
    """How to fit: the share of the identity in the within-class covariance (1: no whitening), and the inverse penalty.

    `strength` is scikit-learn's C for vectors of unit length on average, `words` whether words are looked at too,
    `names` whether the classes' names are learned from as well, `likeness` whether vectors are turned to show it.
    """

    shrinkage: float
    strength: float
    words: bool = False
    names: bool = False
    likeness: bool = False


def fit_linear(rows: Rows, recipe: Recipe, tolerance: float = 1e-6) -> Linear:
    """Fit to all rows; `tolerance` is on the gradient of the mean loss."""
    rows = rows.with_names() if recipe.names else rows
    share_N = rows.learning / rows.learning.sum()
    vectors_ND = rows.vectors_ND.astype(float)
    mean_D = share_N @ vectors_ND
    centred_ND = vectors_ND - mean_D
    turn_DD = np.eye(vectors_ND.shape[1])
    if recipe.likeness:
        assert rows.likeness_DD is not None
        turn_DD = rows.likeness_DD
    turn_DD = turn_DD @ _whitening(centred_ND @ turn_DD, rows.truth_NC, share_N, recipe.shrinkage)
    turned_ND = centred_ND @ turn_DD
    length = np.sqrt(share_N @ (turned_ND**2).sum(axis=1)) or 1.0
    words_NS = rows.words_NS if recipe.words else csr_array((len(vectors_ND), 0))
    weight_CD, words_SC, bias_C = _descend(turned_ND / length, words_NS, rows, recipe.strength, tolerance)
    weight_CD = weight_CD @ turn_DD.T / length
    of_words = words_SC.astype(np.float16) if recipe.words else None  # as it is saved
    return Linear(weight_CD.astype(np.float32), (bias_C - weight_CD @ mean_D).astype(np.float32), of_words)


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


def _descend(
    features_ND: Array, words_NS: Any, rows: Rows, strength: float, tolerance: float
) -> tuple[Array, Array, Array]:
    """Weights (C,D), of words (S,C), and bias (C) of least cross-entropy with an L2 penalty on the weights."""
    C, D, S = rows.truth_NC.shape[1], features_ND.shape[1], words_NS.shape[1]
    share_N1 = (rows.learning / rows.learning.sum())[:, None]
    penalty = 1 / (strength * rows.learning.sum())

    def parts(flat: Array) -> tuple[Array, Array, Array]:
        return flat[: C * D].reshape(C, D), flat[C * D : -C].reshape(S, C), flat[-C:]

    def loss(flat: Array) -> tuple[float, Array]:
        weight_CD, words_SC, bias_C = parts(flat)
        logits_NC = features_ND @ weight_CD.T + words_NS @ words_SC + bias_C
        surplus_NC = share_N1 * (probabilities(logits_NC, rows.kind) - rows.truth_NC)
        slopes = (surplus_NC.T @ features_ND, words_NS.T @ surplus_NC, surplus_NC.sum(axis=0))
        total = float((share_N1[:, 0] * cross_entropy(logits_NC, rows.truth_NC, rows.kind)).sum())
        total += penalty / 2 * float((flat[:-C] ** 2).sum())
        slope = np.concatenate([part.ravel() for part in slopes])
        slope[:-C] += penalty * flat[:-C]
        return total, slope

    options = {"gtol": tolerance, "ftol": 0, "maxiter": LONGEST_SEARCH, "maxcor": MEMORY}
    return parts(minimize(loss, np.zeros(C * (D + S + 1)), jac=True, method="L-BFGS-B", options=options).x)
