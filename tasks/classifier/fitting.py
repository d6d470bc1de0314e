"""From texts and targets to a fitted model: by a linear classifier, by fine-tuning, or by whichever does better."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from nautile.errors import NautileError
from nautile.model.places import fingerprint
from nautile.tasks.calibrate import Calibration
from nautile.tasks.classifier.linear import Linear, Recipe, Rows, fit_linear
from nautile.tasks.classifier.selection import HeldOut, choose_recipe, judged, split_rows
from nautile.tasks.classifier.targets import Targets
from nautile.tasks.classifier.tuned import Tuned, tune
from nautile.tasks.classifier.vectors import read_vectors, read_words
from nautile.tasks.kinds import Array

METHODS = ("auto", "linear", "lora", "full")
TUNING_FROM = 2000  # rows
TUNING_FROM_PER_CLASS = 20  # rows, on average
FOLDS_OF_TRIAL = 5


@dataclass(frozen=True)
class Plan:
    """How to fit, on a base whose weights have this digest.

    `shrinkage` and `strength` None are chosen by cross-validation.
    """

    base: str
    digest: str
    shrinkage: float | None
    strength: float | None
    cv: Any
    calibrate: bool
    seed: int
    class_weight: Any = None
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class LinearModel:
    """A linear classifier of the vectors of a base, and perhaps of texts' words.

    Its weights have this digest; empty where it is not known.
    """

    base: str
    linear: Linear
    digest: str = ""

    def logits(self, texts: Sequence[str | None]) -> Array:
        """(N,C), uncalibrated; those of a row without text are the bias.

        Raises:
            NautileError: a base that is gone, or has other weights now.
        """
        if self.digest and fingerprint(self.base) != self.digest:
            raise NautileError(
                f"{self.base}: has other weights than when Classifier was fitted on it; fit anew, or put those back"
            )
        words_NS = None if self.linear.words_SC is None else read_words(self.base, texts)
        return self.linear.logits(read_vectors(self.base, texts), words_NS)


class Fitted(NamedTuple):
    """A model, how it was made, and what is known of its probabilities."""

    model: LinearModel | Tuned
    method: str
    calibration: Calibration | None
    recipe: Recipe | None = None

    def reads(self, base: str, digest: str) -> bool:
        """Whether it is a linear classifier of this base's vectors."""
        return isinstance(self.model, LinearModel) and (self.model.base, self.model.digest) == (base, digest)

    def scaled_logits(self, texts: Sequence[str | None]) -> Array:
        """(N,C), scaled where they are calibrated."""
        logits_NC = self.model.logits(texts)
        return logits_NC if self.calibration is None else self.calibration.scaling(logits_NC, self.calibration.kind)


def fit_rows(rows: Rows, plan: Plan) -> Fitted:
    """The linear method, on vectors."""
    chosen = plan.shrinkage is not None and plan.strength is not None
    settled = chosen and not plan.calibrate and rows.plain
    splits = [] if settled else split_rows(rows, plan.cv, plan.seed)
    recipe, held = choose_recipe(rows, splits, plan.shrinkage, plan.strength)
    calibration = held.calibration() if held is not None and plan.calibrate else None
    return Fitted(LinearModel(plan.base, fit_linear(rows, recipe), plan.digest), "linear", calibration, recipe)


def fit_tuned(
    texts: Sequence[str | None], targets: Targets, method: str, plan: Plan, held_out: np.ndarray | None = None
) -> Fitted:
    """Methods "lora" and "full"; without `held_out` a share of the rows validates.

    Raises:
        NautileError: class weights other than "balanced".
    """
    if plan.class_weight not in (None, "balanced"):
        raise NautileError(f'method={method!r} takes class_weight "balanced" or None; for others use method="linear"')
    weights = "balanced" if plan.class_weight == "balanced" else "none"
    fixed = {"base": plan.base, "method": method, "class_weights": weights, "seed": plan.seed}
    model = tune(texts, targets, held_out, options=plan.options, **fixed)
    model = model if plan.calibrate else model.uncalibrated()
    return Fitted(model, method, model.calibration)


def fit_auto(texts: Sequence[str | None], targets: Targets, rows: Rows, plan: Plan) -> Fitted:
    """Linear; but where there are rows enough, LoRA if its log loss on a fifth of the rows, held out, is lower.

    The fine-tuned model is kept as it was tried: its held-out fifth has picked its checkpoint and calibrated it.
    """
    splits = split_rows(rows, FOLDS_OF_TRIAL, plan.seed) if plan.class_weight is None and worth_tuning(rows) else []
    if not splits:
        if plan.options:
            takes = f"{TUNING_FROM:,} rows, {TUNING_FROM_PER_CLASS} a class, without weights, with the extra finetune"
            warnings.warn(f"finetune_options are not used: fine-tuning is tried from {takes}", stacklevel=3)
        return fit_rows(rows, plan)
    train, test = splits[0]
    tuned = fit_tuned(texts, targets, "lora", plan, test)
    linear = fit_rows(rows.take(train), replace(plan, cv=FOLDS_OF_TRIAL, calibrate=False))
    assert isinstance(linear.model, LinearModel)
    held = rows.take(test)
    losses = [
        HeldOut(logits, held).log_loss()
        for logits in (judged(linear.model.linear, held), tuned.model.logits([texts[n] for n in test]))
    ]
    return tuned if losses[1] < losses[0] else fit_rows(rows, plan)


def worth_tuning(rows: Rows) -> bool:
    """Whether "auto" tries fine-tuning: 2,000 rows, 20 a class, all of equal weight, and its packages installed."""
    from nautile.tasks.finetune.run import NEEDED

    N, C = rows.truth_NC.shape
    equal = bool((rows.weight_N == rows.weight_N[0]).all())
    return equal and max(TUNING_FROM, TUNING_FROM_PER_CLASS * C) <= N and all(map(find_spec, NEEDED))
