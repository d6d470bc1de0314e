"""What held-out rows decide: the recipe of the linear classifier, and the calibration of its probabilities.

One pass of cross-validation serves both. Recipes are compared by log loss at the best temperature of each, because
they are calibrated afterwards: what counts is how rows are ranked, not how sure the bare logits look.

Why these recipes: accuracy on 1,500 rows of Banking77's test split with MiniLM's vectors, 10 rows a class. Plain
logistic regression on unit vectors .850 (C=10; five draws), recipes chosen here .856 on the same draws. On two of
them: C=10 without whitening .852, with shrinkage .8 .857, .5 .849, .2 .844, .05 .833; discriminant analysis .831,
nearest class mean .807. Blending those into the regression, or scaling vectors to unit length before, gained nothing;
nor did averaging the recipes or preferring the first within a standard error. Vectors that were not trained for
likeness need more whitening: with those of a sentiment backbone shrinkage .05 was best by far (.10 to .17).
On 20 rows of SST-2 with these (20 draws) choosing lost a point (.791 to .801), the first recipe did not (.799).

Why names: they take the mean accuracy of `examples/few_shot.py` on Banking77, 1 row a class, from .453 (--no-names) to
.641, 10 rows from .800 to .806. Tried by hand, 1, 3 and 8 rows a class of SST-2's dev split: .684, .751 and .785
without, .760, .778 and .787 with them. Codes such as c01 for names cost .028, .014 and .006 on Banking77's training
rows, names of other classes far more.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from nautile.errors import NautileError
from nautile.tasks.calibrate import FEWEST_ROWS, Calibration, calibrate, rarest
from nautile.tasks.classifier.linear import Linear, Recipe, Rows, fit_linear
from nautile.tasks.folds import folds_of_texts
from nautile.tasks.kinds import Array
from nautile.tasks.likelihood import cross_entropy
from nautile.tasks.wording import counted

SHRINKAGES = (1.0, 0.8, 0.3, 0.05)
STRENGTHS = (10.0, 1.0, 100.0, 0.1)
COARSE = 1e-4  # tolerance of the fits that are only compared
ONE_SPLIT_FROM = 5000  # rows
FEWEST_TO_CHOOSE = 50  # rows
LOG_TEMPERATURES = (-4.0, 4.0)

Index = NDArray[np.int64]
Split = tuple[Index, Index]


class HeldOut(NamedTuple):
    """Logits (M,C) of rows that the model which made them had not seen, and those rows."""

    logits_MC: Array
    rows: Rows

    def log_loss(self) -> float:
        """The weighted mean, at the temperature where it is least."""
        weight_M = self.rows.learning

        def at(log_temperature: float) -> float:
            scaled_MC = self.logits_MC / np.exp(log_temperature)
            return float(weight_M @ cross_entropy(scaled_MC, self.rows.truth_NC, self.rows.kind) / weight_M.sum())

        return float(minimize_scalar(at, bounds=LOG_TEMPERATURES, method="bounded", options={"xatol": 0.02}).fun)

    def calibration(self) -> Calibration | None:
        """From the rows, each as often as its weight says; None where they are worth fewer than 20 different texts."""
        index, independent = as_often(self.rows.weight_N), worth(self.rows)
        if independent < FEWEST_ROWS:
            return None
        truth_MC = self.rows.truth_NC[index]
        truth = truth_MC.astype(bool) if self.rows.kind == "multi" else truth_MC.argmax(axis=1)
        unseen = int((truth_MC.sum(axis=0) == 0).sum())
        source = "cross-validated training rows" + f", none of them of {counted(unseen, 'label')}" * (unseen > 0)
        folds_M = folds_of_texts(self.rows.group_N[index].tolist())
        return calibrate(self.logits_MC[index], truth, self.rows.kind, source, independent, folds_M)


def choose_recipe(
    rows: Rows, splits: list[Split], shrinkage: float | None, strength: float | None
) -> tuple[Recipe, HeldOut | None]:
    """The recipe that does best on held-out rows; a shrinkage and a strength that are given stay.

    One after the other are chosen: whether vectors are turned to show likeness, the shrinkage, the strength, whether
    words are looked at, and whether the classes' names are learned from. On fewer than 50 rows, where the least loss is
    mostly luck, it is the first of each: turned, without words, with names. So it is without `splits`, where nothing
    is held out.
    """
    few = worth(rows) < FEWEST_TO_CHOOSE
    shrinkages = (shrinkage,) if shrinkage else SHRINKAGES[:1] if few else SHRINKAGES
    strengths = (strength,) if strength else STRENGTHS[:1] if few else STRENGTHS
    likenesses = _choices(rows.likeness_DD, True, few)
    words, names = _choices(rows.words_NS, False, few), _choices(rows.names_CD, True, few)
    best = Recipe(shrinkages[0], strengths[0], words[0], names[0], likenesses[0])
    if not splits:
        return best, None
    tried: dict[Recipe, HeldOut] = {}

    def loss(recipe: Recipe) -> float:
        if recipe not in tried:
            tried[recipe] = hold_out(rows, splits, recipe)
        return tried[recipe].log_loss()

    best = min((best._replace(likeness=value) for value in likenesses), key=loss)
    best = min((best._replace(shrinkage=value) for value in shrinkages), key=loss)
    best = min((best._replace(strength=value) for value in strengths), key=loss)
    best = min((best._replace(words=value) for value in words), key=loss)
    best = min((best._replace(names=value) for value in names), key=loss)
    return best, tried[best]


def _choices(part: Any, first: bool, few: bool) -> tuple[bool, ...]:
    """Whether to use a part of the rows, what to try first in front; not where it is missing."""
    return (False,) if part is None else (first,) if few else (first, not first)


def hold_out(rows: Rows, splits: list[Split], recipe: Recipe) -> HeldOut:
    """Fit on each split's first part and judge its second."""
    logits = [judged(fit_linear(rows.take(train), recipe, COARSE), rows.take(test)) for train, test in splits]
    return HeldOut(np.concatenate(logits), rows.take(np.concatenate([test for _, test in splits])))


def judged(linear: Linear, rows: Rows) -> Array:
    """Logits (N,C) of rows."""
    return linear.logits(rows.vectors_ND, rows.words_NS)


def split_rows(rows: Rows, cv: Any, seed: int) -> list[Split]:
    """Splits (train, test) of the rows: `cv` folds, or what a scikit-learn splitter or a list of splits says.

    Folds are of distinct texts, so that none is held out that training has seen, and stratified by class ("multi": by a
    row's rarest one); the only text of a class is never held out, so that no class is missing from training. From
    5,000 rows on the first fold alone is held out. Splits that are given are taken as they are.

    Raises:
        NautileError: a `cv` that is none of these, or fewer than 2 folds.
    """
    splits = _folds(rows, int(cv), seed) if isinstance(cv, int | np.integer) else _given(rows.truth_NC, cv)
    return [split for split in splits if all(rows.learning[part].sum() > 0 for part in split)]


def _folds(rows: Rows, folds: int, seed: int) -> list[Split]:
    if folds < 2:
        raise NautileError(f"cv must be at least 2, not {folds}")
    N = len(rows.truth_NC)
    multi = rows.kind == "multi"
    class_N = rarest(rows.truth_NC.astype(bool)) if multi else rows.truth_NC.argmax(axis=1)
    order = np.random.default_rng(seed).permutation(N)
    order = order[np.argsort(class_N[order], kind="stable")]
    fold_N = np.empty(N, dtype=np.int64)
    fold_N[order] = _ranks(rows.group_N[order]) % folds
    seen_CF = np.zeros((rows.truth_NC.shape[1] + 1, folds), dtype=bool)
    seen_CF[class_N, fold_N] = True
    alone_N = seen_CF.sum(axis=1)[class_N] == 1
    fold_N[np.isin(rows.group_N, rows.group_N[alone_N])] = -1
    tests = [np.flatnonzero(fold_N == fold) for fold in range(1 if N >= ONE_SPLIT_FROM else folds)]
    return [(np.flatnonzero(fold_N != fold), test) for fold, test in enumerate(tests)]


def _ranks(group_N: Index) -> Index:
    """(N): the groups numbered as they first appear."""
    _, first_G, place_N = np.unique(group_N, return_index=True, return_inverse=True)
    ranks: Index = first_G.argsort().argsort()[place_N]
    return ranks


def _given(truth_NC: Array, cv: Any) -> list[Split]:
    try:
        splits: Iterable[Any] = cv if isinstance(cv, list | tuple) else cv.split(truth_NC, truth_NC.argmax(axis=1))
        found = [(_places(train, len(truth_NC)), _places(test, len(truth_NC))) for train, test in splits]
    except (AttributeError, TypeError):
        raise NautileError("cv must be a number of folds, a scikit-learn splitter or a list of splits") from None
    return found


def _places(part: Any, rows: int) -> Index:
    """The rows of a part that is given as indices or as booleans."""
    given = np.asarray(part)
    if given.dtype == bool and len(given) != rows:
        raise NautileError(f"a split of cv has {len(given)} booleans for {rows} rows")
    places = np.flatnonzero(given) if given.dtype == bool else given.astype(np.int64)
    if len(places) and not 0 <= places.min() <= places.max() < rows:
        raise NautileError(f"a split of cv names row {places.max()}, of {rows} rows that are counted from 0")
    return places


def worth(rows: Rows) -> int:
    """As how many different texts of equal weight the rows tell (Kish 1965): copies and heavy rows tell little more."""
    _, place_N = np.unique(rows.group_N, return_inverse=True)
    weight_G = np.bincount(place_N, rows.weight_N)
    return int(round(weight_G.sum() ** 2 / max((weight_G**2).sum(), 1e-300), 6))


def as_often(weight_N: Array) -> Index:
    """Indices of rows, each as often as its weight where weights are small whole numbers, else in proportion.

    At least as many as there are rows of positive weight, at most ten times as many.
    """
    fewest = int((weight_N > 0).sum())
    total = weight_N.sum()
    count = int(np.clip(round(total), fewest, 10 * fewest))
    marks = (np.arange(count) + 0.5) / count * total
    return np.searchsorted(weight_N.cumsum(), marks, side="right").clip(0, len(weight_N) - 1)
