"""How a model does on the validation rows, read the way it will be read in use."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nautile.engine.reader import Reader
from nautile.tasks.calibrate import best_thresholds, choose, probabilities
from nautile.tasks.kinds import Array, Kind
from nautile.tasks.labelled import Labelled

TINY = 1e-12


def logits_of(model: Any, texts: Sequence[str]) -> Array:
    """(N,C) of a sequence classification model, or of one in peft's hands: long texts in windows, in float32."""
    scored = model.get_base_model() if hasattr(model, "get_base_model") else model
    vectors_ND = Reader(scored)(texts).vectors_ND
    with torch.inference_mode():
        found: Array = scored.score(vectors_ND.to(scored.device)).double().cpu().numpy()
    return found


def scores(logits_NC: Array, data: Labelled) -> dict[str, float]:
    """Accuracy (of whole rows), macro-F1 and log loss; "multi" is decided at each label's best threshold."""
    shares_NC = probabilities(logits_NC, data.kind)
    truth_NC = one_hot(data.truth, data.kind, len(data.labels))
    if data.kind == "multi":
        chosen_NC = shares_NC >= np.array(best_thresholds(shares_NC, truth_NC))
        loss = -np.log(np.where(truth_NC, shares_NC, 1 - shares_NC).clip(TINY)).mean()
    else:
        chosen_NC = one_hot(choose(shares_NC, data.kind), data.kind, len(data.labels))
        loss = -np.log(shares_NC[truth_NC].clip(TINY)).mean()
    exact = (chosen_NC == truth_NC).all(axis=1).mean()
    return {"accuracy": float(exact), "macro_f1": macro_f1(chosen_NC, truth_NC), "log_loss": float(loss)}


def macro_f1(chosen_NC: np.ndarray, truth_NC: np.ndarray) -> float:
    """The mean F1 of the labels that occur or were given, of (N,C) booleans."""
    hits_C = (chosen_NC & truth_NC).sum(axis=0)
    both_C = chosen_NC.sum(axis=0) + truth_NC.sum(axis=0)
    there = both_C > 0
    return float((2 * hits_C[there] / both_C[there]).mean()) if there.any() else 0.0


def one_hot(truth: np.ndarray, kind: Kind, labels: int) -> np.ndarray:
    """(N,C) booleans of any kind's truth."""
    return truth if kind == "multi" else np.eye(labels, dtype=bool)[truth]
