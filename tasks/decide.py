"""From probabilities to what a row says: its label or none, how sure, the set that holds the truth, and a note."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nautile.errors import NautileError
from nautile.tasks.calibrate import Calibration, choose, confidence_of, least_sure, prediction_sets, threshold_for
from nautile.tasks.kinds import Array, Kind
from nautile.tasks.names import SEPARATOR
from nautile.tasks.question import Policy


class Decisions(NamedTuple):
    """One entry a text; `sets` is None where none were asked for."""

    label: list[str | None]
    confidence: list[float]
    sets: list[str] | None
    note: list[str]


def decide(
    probabilities_NC: Array,
    labels: Sequence[str],
    kind: Kind,
    calibration: Calibration | None,
    policy: Policy,
    alone: int | None = None,
) -> Decisions:
    """Choose labels, keep silent below the policy's confidence, and make sets.

    Where several labels may be given, the one at `alone`, "none of these", is never given with others.

    Raises:
        NautileError: a policy that needs a calibration where there is none.
    """
    check_policy(policy, kind, calibration)
    if kind == "multi":
        given_NC = given(probabilities_NC, thresholds_of(policy, calibration), alone)
        sure = sure_of(probabilities_NC, given_NC, alone)
        chosen: list[str | None] = [_joined(row, labels) or None for row in given_NC]
        note = "no label fits"
    else:
        best, sure = choose(probabilities_NC, kind), confidence_of(probabilities_NC, kind)
        least = _least(policy, calibration)
        chosen = [labels[n] if p >= least else None for n, p in zip(best, sure, strict=True)]
        note = f"unsure: confidence below {least:.3f}"
    sets = None
    if policy.set_coverage is not None and calibration is not None:
        sets = [_joined(row, labels) for row in prediction_sets(probabilities_NC, calibration, policy.set_coverage)]
    return Decisions(chosen, sure.tolist(), sets, [note if label is None else "" for label in chosen])


def given(probabilities_NC: Array, thresholds: Sequence[float] | float, alone: int | None = None) -> NDArray[np.bool_]:
    """(N,C): the labels from their thresholds on; the one at `alone` by itself where it is the likeliest, else not."""
    given_NC = probabilities_NC >= np.asarray(thresholds)
    if alone is not None:
        first_N = given_NC[:, alone] & (probabilities_NC.argmax(axis=1) == alone)
        given_NC[first_N] = False
        given_NC[:, alone] = first_N
    return given_NC


def sure_of(probabilities_NC: Array, given_NC: NDArray[np.bool_], alone: int | None) -> Array:
    """(N): how sure each row's least sure decision is; what is decided by the rule of `alone` is no judgment."""
    if alone is None:
        return least_sure(probabilities_NC, given_NC)
    others = least_sure(np.delete(probabilities_NC, alone, axis=1), np.delete(given_NC, alone, axis=1))
    return np.where(given_NC[:, alone], probabilities_NC[:, alone], others)


def check_policy(policy: Policy, kind: Kind, calibration: Calibration | None) -> None:
    """Raise NautileError where the policy cannot be followed."""
    if calibration is None and (policy.answer_share is not None or policy.set_coverage is not None):
        name = "answer_share" if policy.answer_share is not None else "set_coverage"
        raise NautileError(f"{name} needs calibrated probabilities, which this model does not have: use threshold")
    if kind == "multi" and policy.answer_share is not None:
        raise NautileError("answer_share is for one label a text; with several labels use threshold")


def _least(policy: Policy, calibration: Calibration | None) -> float:
    if policy.answer_share is not None and calibration is not None:
        return threshold_for(calibration, policy.answer_share)
    return policy.threshold or 0.0


def thresholds_of(policy: Policy, calibration: Calibration | None) -> list[float] | float:
    """From which probability on a label is given where several may be: the policy's, the fitted ones, or one half."""
    if policy.threshold is not None:
        return policy.threshold
    return 0.5 if calibration is None or calibration.thresholds is None else calibration.thresholds


def _joined(members: Sequence[bool], labels: Sequence[str]) -> str:
    return SEPARATOR.join(label for label, member in zip(labels, members, strict=True) if member)
