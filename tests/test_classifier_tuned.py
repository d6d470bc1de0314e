"""`Classifier` with fine-tuning, first with a stand-in for it."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from classifiers import WORDS, sentences
from sklearn.model_selection import GridSearchCV

from nautile.errors import NautileError
from nautile.tasks.classifier import Classifier, fitting
from nautile.tasks.classifier.linear import Recipe, Rows, fit_linear
from nautile.tasks.heads.head import linear_head


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """`finetune` replaced: it notes what it is called with, and writes a head that knows the words by heart."""
    calls: list[dict[str, Any]] = []

    def finetune(data: pd.DataFrame, *, output: str, **options: Any) -> Path:
        calls.append({"data": data, **options})
        known = data.dropna()
        labels = tuple(options["labels"])
        reader = fitting.read_vectors(options["base"], known["text"].tolist())
        truth = np.array(
            [[name == label or name in np.atleast_1d(label) for name in labels] for label in known["label"]]
        )
        found = fit_linear(Rows(reader, truth.astype(float), np.ones(len(known)), options["kind"]), Recipe(0.05, 1e3))
        linear_head(labels, found.weight_CD, found.bias_C, options["kind"]).save(Path(output))
        place = Path(output) / "head.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), "about": {"base": options["base"]}}))
        (Path(output) / "checkpoints").mkdir()
        return Path(output)

    monkeypatch.setattr("nautile.tasks.finetune.run.finetune", finetune)
    return calls


def test_fine_tuning_gets_the_rows_and_leaves_no_folder(
    base: str, stand_in: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    X, y = sentences(8)
    truth = np.array([sorted(WORDS).index(label) for label in y])
    tuned = Classifier("lora", base, random_state=3, class_weight="balanced", finetune_options={"epochs": 2})
    tuned.fit(X, truth)
    call = stand_in[0]
    assert call["data"]["text"].tolist() == X
    assert call["data"]["label"].tolist() == [str(n) for n in truth]
    assert (call["labels"], call["epochs"], call["class_weights"]) == (["0", "1", "2"], 2, "balanced")
    assert tuned.method_ == "lora"
    assert (tuned.C_, tuned.calibration_) == (None, None)
    assert tuned.score(X, truth) > 0.9
    again = pickle.loads(pickle.dumps(tuned))
    np.testing.assert_array_equal(again.predict_proba(X), tuned.predict_proba(X))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NautileError, match="takes no sample_weight"):
        tuned.fit(X, truth, np.ones(len(X)))


def test_methods_can_be_searched_over(base: str, stand_in: list[dict[str, Any]]) -> None:
    X, y = sentences(8)
    search = GridSearchCV(Classifier(base=base, random_state=0), {"method": ["linear", "full"]}, cv=2)
    assert search.fit(X, y).best_score_ > 0.8
    assert len(stand_in) >= 2


def test_fine_tuning_on_several_labels_and_empty_rows(
    base: str, stand_in: list[dict[str, Any]], tmp_path: Path
) -> None:
    X, y = sentences(8)
    tuned = Classifier("full", base, multi_label=True, empty="zero").fit([*X, None], [*([label] for label in y), []])
    assert stand_in[0]["kind"] == "multi"
    assert stand_in[0]["data"]["label"].tolist()[-1] == []
    assert tuned.predict_proba([None, *X]).shape == (25, 3)
    tuned.save(tmp_path / "saved")
    again = Classifier.load(tmp_path / "saved")
    assert again.predict([None, *X]).tolist() == tuned.predict([None, *X]).tolist()
    with pytest.raises(NautileError, match="no earlier rows"):
        again.set_params(method="auto").partial_fit(X, [[label] for label in y])


@pytest.mark.parametrize(("tuned_is_better", "method"), [(True, "lora"), (False, "linear")])
def test_auto_takes_what_does_better_on_held_out_rows(
    base: str,
    stand_in: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tuned_is_better: bool,
    method: str,
) -> None:
    X, y = sentences(10)
    auto = Classifier(base=base, cv=3, random_state=0)
    assert auto.fit(X, y).method_ == "linear"
    assert not stand_in
    monkeypatch.setattr(fitting, "TUNING_FROM", 30)
    monkeypatch.setattr(fitting, "TUNING_FROM_PER_CLASS", 10)
    sure = 9.0 if tuned_is_better else -9.0
    place = {text: sorted(WORDS).index(label) for text, label in zip(X, y, strict=True)}
    monkeypatch.setattr(fitting.Tuned, "logits", lambda self, texts: sure * np.eye(3)[[place[text] for text in texts]])
    assert auto.fit(X, y).method_ == method
    assert len(stand_in[0]["validation"]) == 6
    assert len(stand_in[0]["data"]) == 24
    assert set(stand_in[0]["data"]["text"]) | set(stand_in[0]["validation"]["text"]) == set(X)
    assert auto.fit(X, y, np.linspace(1, 2, 30)).method_ == "linear"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_fine_tuning_for_real(base: str, tmp_path: Path, method: str) -> None:
    X, y = sentences(12)
    options = {"epochs": 1, "validation_share": 0.3}
    tuned = Classifier(method, base, finetune_options=options, random_state=0).fit(X, y)
    assert tuned.method_ == method
    shares = tuned.predict_proba(X)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    tuned.save(tmp_path / "saved")
    np.testing.assert_array_equal(Classifier.load(tmp_path / "saved").predict_proba(X), shares)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tuned)).predict_proba(X), shares)
