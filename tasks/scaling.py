"""What makes logits as sure as held-out rows are right: a temperature to divide them by, and a power of their size.

A row's size is how far its largest logit lies above their mean; with "multi", where labels are judged one by one, it is
that of each logit. A power below 1 draws sizes together: sure rows become less sure, unsure ones surer. The order of a
row's labels stays. Sources: temperature scaling, Guo et al. 2017, on targets that N rows can support (Platt 1999: one
in N + 2 is taken to be wrong); a temperature that depends on how sure a row is, Balanya et al. 2024.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nautile.tasks.folds import FOLDS
from nautile.tasks.kinds import Array, Kind, Truth
from nautile.tasks.likelihood import cross_entropy, shares

FARTHEST = 1000.0  # times by which scaling may make logits of usual size larger or smaller than 1
POWERS = (0.25, 2.0)


class Scaling(NamedTuple):
    """Logits times their row's size to the power less one, divided by the temperature."""

    temperature: float = 1.0
    power: float = 1.0

    def __str__(self) -> str:
        return f"temperature {self.temperature:.2f}, power {self.power:.2f}"

    def __call__(self, logits_NC: Array, kind: Kind) -> Array:
        """(N,C); with a power other than 1 those of one row lie around their mean, but for "multi"."""
        logits_NC = np.asarray(logits_NC, dtype=float)
        if self.power == 1:
            return logits_NC / self.temperature
        if kind != "multi":
            logits_NC = logits_NC - logits_NC.mean(axis=1, keepdims=True)
        return logits_NC * np.exp((self.power - 1) * _log_size(logits_NC, kind) - np.log(self.temperature))


def fit_scaling(logits_NC: Array, truth: Truth, kind: Kind, with_power: bool) -> Scaling:
    """The scaling of least log loss on these rows; without a power, that is 1."""
    from scipy.optimize import minimize  # slow to import, and who only classifies does without

    log_size, N = _log_size(logits_NC, kind), max(1, len(logits_NC))
    wanted_NC = softened(truth, logits_NC.shape, kind)
    usual = float(log_size.mean()) if log_size.size else 0.0

    def at(point: Array) -> Scaling:
        """The first of the two numbers is the temperature of rows of usual size: so one hardly bears on the other."""
        return Scaling(float(np.exp(point[0] + (point[1] - 1) * usual)), float(point[1]))

    def loss(point: Array) -> tuple[float, Array]:
        scaled_NC = at(point)(logits_NC, kind)
        along_NC = (shares(scaled_NC, kind) - wanted_NC) * scaled_NC
        slopes = np.array([-along_NC.sum(), (along_NC * (log_size - usual)).sum()])
        return float(cross_entropy(scaled_NC, wanted_NC, kind).sum()) / N, slopes / N

    def best(start: Array, powers: tuple[float, float]) -> Array:
        bounds = [(usual - np.log(FARTHEST), usual + np.log(FARTHEST)), powers]
        exact = {"ftol": 1e-12, "gtol": 1e-8}
        found: Array = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=exact).x
        return found

    plain = best(np.array([usual, 1.0]), (1.0, 1.0))
    return at(best(plain, POWERS) if with_power else plain)


def crossfitted(logits_NC: Array, truth: Truth, kind: Kind, folds_N: NDArray[np.int64], with_power: bool) -> Array:
    """The logits (N,C), those of each fold scaled as the others say."""
    scaled_NC = np.empty_like(logits_NC, dtype=float)
    for fold in range(FOLDS):
        held, rest = folds_N == fold, folds_N != fold
        scaled_NC[held] = fit_scaling(logits_NC[rest], truth[rest], kind, with_power)(logits_NC[held], kind)
    return scaled_NC


def softened(truth: Truth, shape: tuple[int, ...], kind: Kind) -> Array:
    """(N,C) of a shape: the truth, taken to be wrong once in N + 2: rows that are all right are no reason for a 1."""
    N, C = shape
    wrong = 1 / (N + 2)
    if kind == "multi":
        return np.where(truth, 1 - wrong, wrong)
    wanted_NC = np.full((N, C), wrong / max(1, C - 1))
    wanted_NC[np.arange(N), truth] = 1 - wrong
    return wanted_NC


def _log_size(logits_NC: Array, kind: Kind) -> Array:
    """(N,1), for "multi" (N,C): the logarithm of the size; 0 where there is none."""
    logits_NC = np.asarray(logits_NC, dtype=float)
    if kind == "multi":
        size = np.abs(logits_NC)
    else:
        size = logits_NC.max(axis=1, keepdims=True, initial=-np.inf) - logits_NC.mean(axis=1, keepdims=True)
    found: Array = np.log(np.where(size > 0, size, 1.0))
    return found
