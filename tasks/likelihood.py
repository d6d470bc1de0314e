"""From logits to probabilities, and how likely they make what is wanted."""

import numpy as np

from nautile.tasks.kinds import Array, Kind


def shares(logits_NC: Array, kind: Kind) -> Array:
    """(N,C): a softmax, or for "multi" a sigmoid a label."""
    if kind == "multi":
        return np.exp(-np.logaddexp(0.0, -logits_NC))
    shifted = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True, initial=-np.inf))
    found: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return found


def cross_entropy(logits_NC: Array, truth_NC: Array, kind: Kind) -> Array:
    """(N), in nats; for "multi" the sum over the labels. Its slope along the logits is `shares` less the truth."""
    if kind == "multi":
        each_NC = np.logaddexp(0, logits_NC) - truth_NC * logits_NC
        total: Array = each_NC.sum(axis=1)
        return total
    top_N = logits_NC.max(axis=1, initial=-np.inf)
    missing: Array = top_N + np.log(np.exp(logits_NC - top_N[:, None]).sum(axis=1)) - (truth_NC * logits_NC).sum(axis=1)
    return missing
