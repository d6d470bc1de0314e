"""What makes logits as sure as held-out rows are right: a temperature to divide them by, and a power of their size.

A row's size is how far its largest logit lies above their mean; with "multi", where labels are judged one by one, it is
that of each logit. With a power below 1 the surest rows become less sure, and the least sure ones more so; the order of
a row's labels stays. Sources: temperature scaling, Guo et al. 2017, on targets that N rows can support (Platt 1999: one
in N + 2 is taken to be wrong); a temperature that depends on how sure a row is, Balanya et al. 2024.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from nautile.tasks.folds import FOLDS
from nautile.tasks.kinds import Array, Kind, Truth

HOTTEST = 20.0  # temperatures lie between this and its inverse
POWERS = (0.25, 2.0)


class Scaling(NamedTuple):
    """Logits times their row's size to the power less one, divided by the temperature."""

    temperature: float = 1.0
    power: float = 1.0

    def __str__(self) -> str:
        return f"temperature {self.temperature:.2f}, power {self.power:.2f}"

    def __call__(self, logits_NC: Array, kind: Kind) -> Array:
        """(N,C)."""
        return (
            np.asarray(logits_NC, dtype=float)
            * np.exp((self.power - 1) * _log_size(logits_NC, kind))
            / (self.temperature)
        )


def fit_scaling(logits_NC: Array, truth: Truth, kind: Kind, with_power: bool) -> Scaling:
    """The scaling of least log loss on these rows; without a power, that is 1."""
    log_size, N = _log_size(logits_NC, kind), max(1, len(logits_NC))

    def loss(point: Array) -> tuple[float, Array]:
        scaled_NC = Scaling(np.exp(point[0]), point[1])(logits_NC, kind)
        losses_N, slope_NC = log_losses(scaled_NC, truth, kind)
        along_NC = slope_NC * scaled_NC
        return losses_N.sum() / N, np.array([-along_NC.sum(), (along_NC * log_size).sum()]) / N

    hottest = np.log(HOTTEST)
    bounds = [(-hottest, hottest), POWERS if with_power else (1.0, 1.0)]
    found = minimize(loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B", bounds=bounds).x
    return Scaling(float(np.exp(found[0])), float(found[1]))


def crossfitted(logits_NC: Array, truth: Truth, kind: Kind, folds_N: NDArray[np.int64], with_power: bool) -> Array:
    """The logits (N,C), those of each fold scaled as the others say."""
    scaled_NC = np.empty_like(logits_NC, dtype=float)
    for fold in range(FOLDS):
        held, rest = folds_N == fold, folds_N != fold
        scaled_NC[held] = fit_scaling(logits_NC[rest], truth[rest], kind, with_power)(logits_NC[held], kind)
    return scaled_NC


def log_losses(scaled_NC: Array, truth: Truth, kind: Kind) -> tuple[Array, Array]:
    """The log loss of each row (N), the truth taken to be wrong once in N + 2, and its slope (N,C).

    Rows that are all right are no reason for a probability of 1.
    """
    N, C = scaled_NC.shape
    wrong = 1 / (N + 2)
    if kind == "multi":
        wanted_NC = np.where(truth, 1 - wrong, wrong)
        losses_NC = np.logaddexp(0, scaled_NC) - wanted_NC * scaled_NC
        return losses_NC.sum(axis=1), np.exp(-np.logaddexp(0, -scaled_NC)) - wanted_NC
    wanted_NC = np.full((N, C), wrong / max(1, C - 1))
    wanted_NC[np.arange(N), truth] = 1 - wrong
    shifted_NC = scaled_NC - scaled_NC.max(axis=1, keepdims=True, initial=-np.inf)
    log_NC = shifted_NC - np.log(np.exp(shifted_NC).sum(axis=1, keepdims=True))
    return -(wanted_NC * log_NC).sum(axis=1), np.exp(log_NC) - wanted_NC


def _log_size(logits_NC: Array, kind: Kind) -> Array:
    """(N,1), for "multi" (N,C): the logarithm of the size; 0 where there is none."""
    logits_NC = np.asarray(logits_NC, dtype=float)
    if kind == "multi":
        size = np.abs(logits_NC)
    else:
        size = logits_NC.max(axis=1, keepdims=True, initial=-np.inf) - logits_NC.mean(axis=1, keepdims=True)
    found: Array = np.log(np.where(size > 0, size, 1.0))
    return found
