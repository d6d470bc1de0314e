"""`Classifier` with fine-tuning, first with a stand-in for it."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from classifiers import WORDS, sentences
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GridSearchCV

from nautile.errors import NautileError
from nautile.tasks.classifier import Classifier, fitting
from nautile.tasks.classifier.linear import Recipe, Rows, fit_linear
from nautile.tasks.classifier.names import names_of
from nautile.tasks.classifier.targets import Targets, read_targets
from nautile.tasks.heads.head import linear_head
from nautile.tasks.heads.loading import load_judging
from nautile.tasks.labelled import read_labelled
from nautile.tasks.names import RESERVED, check_labels


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """`finetune` replaced: it notes what it is called with, and writes a head that knows the words by heart."""
    calls: list[dict[str, Any]] = []

    def finetune(data: pd.DataFrame, *, output: str, **options: Any) -> Path:
        calls.append({"data": data, **options})
        known = read_labelled(data, kind=options["kind"], labels=options["labels"])
        vectors_ND = fitting.read_vectors(options["base"], known.texts)
        truth = known.truth if known.kind == "multi" else np.eye(len(known.labels))[known.truth]
        rows = Rows(vectors_ND, truth.astype(float), np.ones(len(truth)), known.kind, np.arange(len(truth)))
        found = fit_linear(rows, Recipe(0.05, 1e3))
        linear_head(known.labels, found.weight_CD, found.bias_C, options["kind"], unit=True).save(Path(output))
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
    with pytest.warns(UserWarning, match="finetune_options are not used: fine-tuning is tried from 2,000 rows"):
        auto.set_params(finetune_options={"epochs": 1}).fit(X, y)
    auto.set_params(finetune_options=None)
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


def test_auto_compares_on_the_same_rows_and_on_texts_that_neither_has_seen(
    base: str, stand_in: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "TUNING_FROM", 30)
    monkeypatch.setattr(fitting, "TUNING_FROM_PER_CLASS", 10)
    fitted: list[int] = []
    original = fitting.fit_rows
    monkeypatch.setattr(
        fitting, "fit_rows", lambda rows, plan: fitted.append(len(rows.truth_NC)) or original(rows, plan)
    )
    X, y = sentences(5)
    auto = Classifier(base=base, cv=3, random_state=0).fit(X * 3, y * 3)
    train, test = stand_in[0]["data"], stand_in[0]["validation"]
    assert not set(train["text"]) & set(test["text"])
    assert (len(train), len(test)) == (36, 9)
    assert fitted[0] == len(train)
    assert auto.fit([X[0], X[-1]] * 20, [y[0], y[-1]] * 20).method_ == "linear"
    assert len(stand_in) == 1


@given(
    st.lists(
        st.sampled_from(["a", " a", "a ", "a_", "", " ", "_", "note", "note_", "set", "x; y", "x, y"]), unique=True
    )
)
def test_every_class_has_a_name_that_may_be_a_label(classes: list[str]) -> None:
    for form in ("class", "lists"):
        names = names_of(Targets(np.array(classes, dtype=object), np.zeros((0, len(classes))), form))  # type: ignore[arg-type]
        if names:
            check_labels(names, joined=form == "lists")
        keep = {name for name in classes if name.strip() == name != "" and name not in RESERVED and "; " not in name}
        assert all(name == given for name, given in zip(names, classes, strict=True) if given in keep)


@pytest.mark.parametrize(
    ("method", "classes"),
    [
        *((method, names) for method in ("linear", "lora") for names in ([" a", "a", ""], ["label", "note", "set"])),
        *((method, np.array([2020, 2021, 2022], dtype="M8[Y]")) for method in ("linear", "lora")),
        ("lora", [1.0, 2.0, 3.0]),
    ],
)
def test_any_class_is_learnt_and_a_label_that_may_not_be_one_is_saved_under_another(
    base: str, stand_in: list[dict[str, Any]], tmp_path: Path, method: str, classes: Any
) -> None:
    X, y = sentences(8)
    truth = np.array(classes)[[sorted(WORDS).index(label) for label in y]]
    model = Classifier(method, base, random_state=0).fit(X, truth)
    assert set(model.predict(X)) == set(classes)
    assert model.score(X, truth) > 0.9
    if truth.dtype.kind == "M":
        with pytest.raises(NautileError, match="neither texts nor numbers"):
            model.save(tmp_path / "saved")
        assert not (tmp_path / "saved").exists()
        return
    model.save(tmp_path / "saved")
    assert Classifier.load(tmp_path / "saved").predict(X).tolist() == model.predict(X).tolist()
    _, head = load_judging(tmp_path / "saved")
    assert list(head.labels) == names_of(read_targets(truth, multi_label=False))


@pytest.mark.parametrize(("method", "calibrate"), [("lora", False), ("full", True)])
def test_fine_tuning_for_real(base: str, tmp_path: Path, method: str, calibrate: bool) -> None:
    X, y = sentences(12)
    y = [{"metal": " a", "river": "note"}.get(label, label) for label in y]
    options = {"epochs": 1, "validation_share": 0.6}
    tuned = Classifier(method, base, finetune_options=options, calibrate=calibrate, random_state=0).fit(X, y)
    assert tuned.method_ == method
    assert tuned.classes_.tolist() == [" a", "fruit", "note"]
    shares = tuned.predict_proba(X)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    tuned.save(tmp_path / "saved")
    reader, head = load_judging(tmp_path / "saved")
    assert head.labels == ("a", "fruit", "note_")
    assert (head.calibration is not None) == (tuned.calibration_ is not None) == calibrate
    assert (tmp_path / "saved" / "metrics.json").exists() == calibrate
    assert not (tmp_path / "saved" / "README.md").exists()  # it would tell of the run's folder
    np.testing.assert_allclose(head.probabilities(reader(X).vectors_ND), shares, atol=1e-5)
    np.testing.assert_array_equal(Classifier.load(tmp_path / "saved").predict_proba(X), shares)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tuned)).predict_proba(X), shares)
