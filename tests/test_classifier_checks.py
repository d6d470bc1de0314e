"""scikit-learn's own checks. They feed rows of numbers, so an adapter turns each row into a text and checks nothing.

What fails then is named below, with its reason, and must fail; and it must pass as soon as the adapter lets
scikit-learn validate the numbers first, so that nothing else is wrong. What `Classifier` does with X that is not
text: tests/test_classifier.py.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self
from unittest import SkipTest

import numpy as np
import pytest
import scipy.sparse
import tiny
from sklearn.utils import Tags
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import validate_data

from nautile.model.checkpoints import save
from nautile.model.model import NautileModel
from nautile.tasks.classifier import Classifier

BASE = "base-of-the-checks"  # a folder that each test finds where it runs
LETTERS = 12  # a number is told by so many

WIDTH = "about the number of columns, which texts do not have"
EXPECTED_TO_FAIL = {
    "check_n_features_in": WIDTH,
    "check_n_features_in_after_fitting": WIDTH,
    "check_estimators_partial_fit_n_features": WIDTH,
    "check_classifiers_train": f"its last lines are {WIDTH}; all before them passes",
    "check_estimators_empty_data_messages": "asks for scikit-learn's words on a matrix without columns",
    "check_estimators_nan_inf": "asks for the word NaN or inf; a missing text is an error too, and is called missing",
    "check_fit2d_predict1d": "asks for an error on one dimension, which is the natural shape of texts",
}
LEFT_OUT = {"check_array_api_input": "scikit-learn runs it only with SCIPY_ARRAY_API=1; texts are in no array API"}


def as_text(row: np.ndarray) -> str | None:
    """Each number as a word that turns from one letter into another as the number grows."""
    if not np.isfinite(row).all():
        return None
    parts = np.rint((np.arctan(row) / np.pi + 0.5) * LETTERS).astype(int)
    pairs = [(chr(97 + 2 * n % 26), chr(97 + (2 * n + 1) % 26)) for n in range(len(parts))]
    return " ".join(f"{low * (LETTERS - part)}{high * part}" for part, (low, high) in zip(parts, pairs, strict=True))


def as_texts(X: Any) -> Any:
    """Rows of numbers as texts, without any check; what is something else is left to the estimator."""
    if scipy.sparse.issparse(X) or np.asarray(X).ndim != 2 or np.iscomplexobj(np.asarray(X)):
        return X
    return [as_text(row) for row in np.asarray(X).astype(float)]


class RowsAsTexts(Classifier):
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        return super().fit(as_texts(X), y, sample_weight)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        return super().partial_fit(as_texts(X), y, classes, sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        return super().predict(as_texts(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        return super().predict_proba(as_texts(X))

    def decision_function(self, X: Any) -> np.ndarray:
        return super().decision_function(as_texts(X))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        return tags


class ValidatedRows(RowsAsTexts):
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        return super().fit(validate_data(self, X, reset=True), y, sample_weight)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        first = not hasattr(self, "classes_")
        return super().partial_fit(validate_data(self, X, reset=first), y, classes, sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        return super().predict(validate_data(self, X, reset=False))

    def predict_proba(self, X: Any) -> np.ndarray:
        return super().predict_proba(validate_data(self, X, reset=False))

    def decision_function(self, X: Any) -> np.ndarray:
        return super().decision_function(validate_data(self, X, reset=False))


def checks(kind: type[Classifier], wanted: Callable[[str], bool], **parameters: Any) -> list[Any]:
    found = []
    for estimator, check in estimator_checks_generator(kind("linear", BASE, cv=2, **parameters)):
        name = check.func.func.__name__ if isinstance(check.func, partial) else check.func.__name__
        if wanted(name):
            found.append(pytest.param(estimator, check, id=name))
    return found


def named(*lists: dict[str, str]) -> Callable[[str], bool]:
    return lambda name: any(name in names for names in lists)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    save(tiny.model(NautileModel, vocab_size=600, pooling="mean"), folder / BASE)
    return folder


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


@pytest.mark.parametrize(
    ("estimator", "check"), checks(RowsAsTexts, lambda name: not named(EXPECTED_TO_FAIL, LEFT_OUT)(name))
)
def test_it_passes(estimator: Classifier, check: Callable[[Classifier], None]) -> None:
    check(estimator)


@pytest.mark.parametrize(
    ("estimator", "check"), checks(RowsAsTexts, lambda name: "multilabel" in name, multi_label=True)
)
def test_it_passes_for_several_labels(estimator: Classifier, check: Callable[[Classifier], None]) -> None:
    check(estimator)


@pytest.mark.parametrize(("estimator", "check"), checks(RowsAsTexts, named(EXPECTED_TO_FAIL)))
def test_what_is_about_numbers_fails(estimator: Classifier, check: Callable[[Classifier], None]) -> None:
    with pytest.raises(AssertionError):
        check(estimator)


@pytest.mark.parametrize(("estimator", "check"), checks(ValidatedRows, named(EXPECTED_TO_FAIL)))
def test_and_passes_where_numbers_are_validated(estimator: Classifier, check: Callable[[Classifier], None]) -> None:
    check(estimator)


@pytest.mark.parametrize(("estimator", "check"), checks(RowsAsTexts, named(LEFT_OUT)))
def test_what_is_left_out_does_not_run(estimator: Classifier, check: Callable[[Classifier], None]) -> None:
    with pytest.raises(SkipTest):
        check(estimator)


def test_every_name_on_the_lists_is_a_check() -> None:
    there = {param.id for param in checks(RowsAsTexts, lambda name: True)}
    assert there >= EXPECTED_TO_FAIL.keys() | LEFT_OUT.keys()
    assert len(there) > 50
