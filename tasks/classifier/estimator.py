"""`Classifier`: fit and predict on texts, by scikit-learn's rules."""

import warnings
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy.sparse import vstack
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags, check_consistent_length, check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted

from nautile.errors import NautileError
from nautile.model.places import fingerprint
from nautile.tasks.calibrate import Calibration, choose, probabilities
from nautile.tasks.classifier.fitting import METHODS, Fitted, LinearModel, Plan, fit_auto, fit_rows, fit_tuned
from nautile.tasks.classifier.inputs import texts_of
from nautile.tasks.classifier.linear import Rows
from nautile.tasks.classifier.targets import Targets, as_given, label_lists, merge, read_targets
from nautile.tasks.classifier.tuned import check_options
from nautile.tasks.classifier.vectors import absolute, groups_of, read_likeness, read_names, read_vectors, read_words
from nautile.tasks.kinds import Array

SEEDS = 2**31 - 1


class Classifier(ClassifierMixin, BaseEstimator):
    """Classify texts with a Nautile model.

    X is a list, array or Series of texts, or a frame or 2-D array of one column. Each distinct text is read once, and
    its vector is kept for later calls in this process (256 MB at most), so cross-validation and grid search do not
    read a text again.

    Args:
        method: "linear": logistic regression on the base's vectors: turned as its zero-shot head compares them,
            whitened within the classes, and with the texts' words beside them, where held-out rows say that it helps.
            "lora", "full": fine-tuning (extra `finetune`), minutes on a CPU. "auto": linear; but from 2,000 rows and
            20 a class on, rows of equal weight and the extra installed, LoRA is trained too, on four fifths of the
            rows, and kept if its log loss on the last fifth is lower.
        base: model to read with, or to tune: a name, folder or hub id.
        multi_label: any number of labels a text. y is then an indicator matrix, or a list of labels for each text, in
            which case `predict` gives an array of tuples.
        C: inverse penalty of the logistic regression, for vectors of unit length on average; "auto": 0.1 to 100 by
            cross-validation, 10 on fewer than 50 rows.
        shrinkage: of the within-class covariance that the vectors are whitened by, from above 0 to 1, which is not
            at all; "auto": by cross-validation, 1 on fewer than 50 rows.
        class_weight: None, "balanced", or (linear, one label a text) a weight for each class, in learning; what is
            learned is calibrated on the rows as they are.
        cv: folds for choosing C and shrinkage and for calibrating, a scikit-learn splitter, or a list of splits.
            From 5,000 rows on one fold of a whole number is used. Rows of one text fall into one fold of a whole
            number; other splits are taken as they are.
        names: learn from the classes' names as well, if all are texts with letters: each, in several wordings, counts
            as a row. From 50 rows on only where held-out rows say that it helps.
        calibrate: scale logits as held-out rows say; see `calibration_`.
        empty: what a row without text is: "error", or "zero", a vector of zeros, from which fine-tuning learns nothing.
        finetune_options: further options of `nautile.finetune`, such as {"epochs": 3}; linear has no use for them.
        random_state: seed of folds and of fine-tuning.

    Attributes:
        classes_: the classes (C), sorted, or the columns of an indicator matrix.
        method_: what was fitted: "linear", "lora" or "full".
        calibration_: what held-out rows say of the probabilities; None where they are not calibrated, as with
            `calibrate=False` or fewer than 20 held-out rows.
        C_, shrinkage_, words_, names_, likeness_: what was chosen; None for a fine-tuned model.
    """

    def __init__(
        self,
        method: str = "auto",
        base: str = "nautile-mini",
        *,
        multi_label: bool = False,
        C: float | str = "auto",
        shrinkage: float | str = "auto",
        class_weight: Any = None,
        cv: Any = 5,
        names: bool = True,
        calibrate: bool = True,
        empty: str = "error",
        finetune_options: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.base = base
        self.multi_label = multi_label
        self.C = C
        self.shrinkage = shrinkage
        self.class_weight = class_weight
        self.cv = cv
        self.names = names
        self.calibrate = calibrate
        self.empty = empty
        self.finetune_options = finetune_options
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to texts X (N) and their labels y, each counting as often as `sample_weight` (N; linear only) says.

        Raises:
            NautileError: rows without text, fewer than two classes, or parameters that do not fit.
        """
        plan = self._plan()
        texts, targets, weight_N = self._rows(X, y, sample_weight)
        emphasis_N = self._emphasis(targets)
        _check_classes(targets, weight_N if emphasis_N is None else weight_N * emphasis_N)
        if self.method in ("lora", "full"):
            if sample_weight is not None:
                raise NautileError(f'method={self.method!r} takes no sample_weight; use method="linear"')
            return self._take(fit_tuned(texts, targets, self.method, plan), targets)
        vectors_ND, words_NS, group_N = read_vectors(plan.base, texts), read_words(plan.base, texts), groups_of(texts)
        rows = self._learned_from(plan.base, targets, weight_N, vectors_ND, words_NS, group_N)
        fitted = fit_rows(rows, plan) if self.method == "linear" else fit_auto(texts, targets, rows, plan)
        return self._take(fitted, targets, rows)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Add rows to those of earlier calls, and fit the linear method to all of them anew.

        The vectors and words of all rows are kept for that, also in a pickle, but not by `save`. New classes may come
        with any call; `classes` names those that no row has yet.

        Raises:
            NautileError: also after a fit by another method or on another base, and after `load`.
        """
        plan = self._plan()
        if self.method in ("lora", "full"):
            raise NautileError(f'method={self.method!r} has no partial_fit; use method="linear"')
        if self.finetune_options and self.method == "auto":
            warnings.warn("partial_fit does not use finetune_options", stacklevel=2)
        texts, targets, weight_N = self._rows(X, y, sample_weight)
        vectors_ND, words_NS, group_N = read_vectors(plan.base, texts), read_words(plan.base, texts), groups_of(texts)
        if hasattr(self, "classes_"):
            seen = self._seen
            if seen is None or seen.words_NS is None or not self._fitted.reads(plan.base, plan.digest):
                raise NautileError("partial_fit finds no earlier rows of this base to add to; begin with a clone")
            targets = merge([self._targets._replace(truth_NC=seen.truth_NC), targets], classes)
            vectors_ND = np.vstack([seen.vectors_ND, vectors_ND])
            words_NS = vstack([seen.words_NS, words_NS], format="csr")
            weight_N = np.append(seen.weight_N, weight_N)
            group_N = np.append(seen.group_N, group_N)
        else:
            targets = merge([targets], classes)
        _check_classes(targets)
        rows = self._learned_from(plan.base, targets, weight_N, vectors_ND, words_NS, group_N)
        return self._take(fit_rows(rows, plan), targets, rows)

    def predict(self, X: Any) -> np.ndarray:
        """The classes (N) of X; with `multi_label` an indicator matrix (N,C) or tuples (N) of labels, as y was.

        With `multi_label` a label is given from its threshold of best F1 on held-out rows, 0.5 where not calibrated.
        """
        shares_NC = probabilities(self._logits(X), self._targets.kind)
        if self._targets.kind == "multi":
            thresholds = None if self.calibration_ is None else self.calibration_.thresholds
            return as_given(self._targets, shares_NC >= (0.5 if thresholds is None else np.array(thresholds)))
        best_N = choose(shares_NC, "single")
        return as_given(self._targets, best_N[:, None] == np.arange(shares_NC.shape[1]))

    def predict_proba(self, X: Any) -> Array:
        """(N,C), calibrated where `calibration_` is there; with `multi_label` each label's by itself."""
        return probabilities(self._logits(X), self._targets.kind)

    def decision_function(self, X: Any) -> Array:
        """Logits (N,C), calibrated; for two classes (N), that of the second over the first."""
        logits_NC = self._logits(X)
        two = self._targets.kind == "single" and logits_NC.shape[1] == 2
        return logits_NC[:, 1] - logits_NC[:, 0] if two else logits_NC

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy; with `multi_label` the share of rows with exactly the right labels."""
        check_is_fitted(self, "classes_")
        predicted = self.predict(X)
        if self._targets.form == "lists":
            truth = label_lists(y)
            check_consistent_length(predicted, truth)
            right = [set(true) == set(found) for true, found in zip(truth, predicted, strict=True)]
            return float(np.average(right, weights=sample_weight))
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def save(self, folder: str | Path) -> None:
        """Write a new folder, which `Classifier.load` and `nautile.classify(model=…)` read; nothing in it is pickled.

        A class that cannot be a column of a result, such as "note" or " a", is called "note_" or "a" by `classify`;
        `load` knows it as it was given.

        Raises:
            NautileError: a folder that is not empty, or classes that are neither texts nor numbers (pickle these).
        """
        from nautile.tasks.classifier.storage import save

        check_is_fitted(self, "classes_")
        if not isinstance(folder, str | Path) or not str(folder):
            raise NautileError(f"give a folder to save to, not {folder!r}")
        save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote; it predicts the same.

        Raises:
            NautileError: no such folder, or a damaged one.
        """
        from nautile.tasks.classifier.storage import load

        return load(cls, Path(folder))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.allow_nan = self.empty == "zero"
        tags.classifier_tags.multi_label = bool(self.multi_label)
        return tags

    def _texts(self, X: Any) -> list[str | None]:
        return texts_of(X, self.empty)

    def _rows(self, X: Any, y: Any, sample_weight: Any) -> tuple[list[str | None], Targets, Array]:
        targets = read_targets(y, self.multi_label)
        texts = self._texts(X)
        check_consistent_length(texts, targets.truth_NC)
        return texts, targets, _weights(len(texts), sample_weight)

    def _emphasis(self, targets: Targets) -> Array | None:
        """(N): what `class_weight` says; None where it says nothing, and for fine-tuning, which weighs by itself."""
        if self.class_weight is None or self.method in ("lora", "full"):
            return None
        if targets.kind == "multi":
            raise NautileError("class_weight is for one label a text; with multi_label=True give sample_weight")
        found: Array = compute_sample_weight(self.class_weight, targets.classes[targets.truth_NC.argmax(axis=1)])
        return found

    def _learned_from(
        self, base: str, targets: Targets, weight_N: Array, vectors_ND: Any, words_NS: Any, group_N: Any
    ) -> Rows:
        """The rows, and what the linear method may use beside them."""
        emphasis_N, named = self._emphasis(targets), self.names and targets.kind == "single"
        names_CD = read_names(base, targets.classes) if named else None
        known = (targets.truth_NC, weight_N, targets.kind, group_N, emphasis_N, words_NS)
        return Rows(vectors_ND, *known, names_CD, read_likeness(base))

    def _plan(self) -> Plan:
        if self.method not in METHODS:
            raise NautileError(f"unknown method={self.method!r}; choose one of {', '.join(METHODS)}")
        check_options(self.finetune_options, self.method)
        if self.finetune_options and self.method == "linear":
            warnings.warn('method="linear" does not use finetune_options', stacklevel=3)
        shrinkage, strength = _number("shrinkage", self.shrinkage), _number("C", self.C)
        if shrinkage is not None and shrinkage > 1:
            raise NautileError(f"shrinkage must lie above 0 and not above 1, not {shrinkage}")
        seed = int(check_random_state(self.random_state).randint(SEEDS))
        digest = fingerprint(self.base)
        decided = (self.cv, self.calibrate, seed, self.class_weight, self.finetune_options)
        return Plan(absolute(self.base), digest, shrinkage, strength, *decided)

    def _take(self, fitted: Fitted, targets: Targets, rows: Rows | None = None) -> Self:
        self._fitted = fitted
        self._seen = rows if isinstance(fitted.model, LinearModel) else None
        self._targets = targets._replace(truth_NC=targets.truth_NC[:0])
        self.classes_ = targets.classes
        self.method_ = fitted.method
        self.calibration_: Calibration | None = fitted.calibration
        self.shrinkage_ = None if fitted.recipe is None else fitted.recipe.shrinkage
        self.C_ = None if fitted.recipe is None else fitted.recipe.strength
        self.words_ = None if fitted.recipe is None else fitted.recipe.words
        self.names_ = None if fitted.recipe is None else fitted.recipe.names
        self.likeness_ = None if fitted.recipe is None else fitted.recipe.likeness
        return self

    def _logits(self, X: Any) -> Array:
        check_is_fitted(self, "classes_")
        return self._fitted.scaled_logits(self._texts(X))


def _number(name: str, value: Any) -> float | None:
    """None for "auto"."""
    if isinstance(value, str) and value == "auto":
        return None
    if not isinstance(value, Real) or isinstance(value, bool) or not float(value) > 0:
        raise NautileError(f'{name} must be "auto" or a number above 0, not {value!r}')
    return float(value)


def _weights(N: int, given: Any) -> Array:
    weight_N = np.ones(N) if given is None else np.array(given, dtype=float)
    if weight_N.shape != (N,):
        raise NautileError(f"sample_weight has the shape {weight_N.shape}; give one number for each of {N} rows")
    if not np.isfinite(weight_N).all() or (weight_N < 0).any() or not weight_N.any():
        raise NautileError("sample_weight must be finite numbers, none below zero and not all zero")
    return weight_N


def _check_classes(targets: Targets, weight_N: Array | None = None) -> None:
    if targets.kind == "multi":
        return
    counts_C = np.ones(len(targets.classes)) if weight_N is None else weight_N @ targets.truth_NC
    if (counts_C > 0).sum() < 2:
        raise NautileError("y holds 1 class (of positive weight); there must be 2 classes at least")
