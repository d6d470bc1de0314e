"""`Classifier`: what goes in and comes out, one reading a text, the linear method's mathematics, fine-tuning."""

import copy
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from nautile.engine.reader import Reader, Vectors
from nautile.errors import NautileError
from nautile.model.checkpoints import save
from nautile.model.model import NautileModel
from nautile.tasks.calibrate import probabilities
from nautile.tasks.classifier import Classifier, fitting, vectors
from nautile.tasks.classifier.inputs import texts_of
from nautile.tasks.classifier.linear import Recipe, Rows, fit_linear
from nautile.tasks.classifier.selection import as_often, choose_recipe, hold_out, split_rows
from nautile.tasks.classifier.targets import merge, read_targets
from nautile.tasks.classifier.vectors import VectorCache
from nautile.tasks.heads.head import linear_head
from nautile.tasks.heads.loading import load_judging

WORDS = {
    "fruit": "apple banana cherry melon plum",
    "metal": "iron copper zinc lead tin",
    "river": "Rhine Nile Amazon Elbe",
}


def sentences(per_class: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts of words of one class each, all distinct."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    for label, words in WORDS.items():
        while sum(known == label for known in found.values()) < per_class:
            found[" ".join(rng.choice(words.split(), 8))] = label
    return list(found), list(found.values())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("classifier") / "base"
    save(tiny.model(NautileModel, vocab_size=600, pooling="mean"), folder)
    return str(folder)


@pytest.fixture
def linear(base: str) -> Classifier:
    return Classifier("linear", base, cv=3, random_state=0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts that a reader reads from now on."""
    seen: list[str] = []
    original = Reader.__call__

    def counted(self: Reader, texts: Any, *args: Any, **kwargs: Any) -> Vectors:
        seen.extend(texts)
        return original(self, texts, *args, **kwargs)

    vectors.CACHE.clear()
    monkeypatch.setattr(Reader, "__call__", counted)
    return seen


def test_importing_it_takes_no_torch() -> None:
    code = (
        "import sys; from nautile.tasks.classifier import Classifier; Classifier(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_learns_and_answers_in_the_classes_it_was_given(linear: Classifier) -> None:
    X, y = sentences(20)
    new, truth = sentences(25, seed=9)
    linear.fit(X, y)
    assert linear.classes_.tolist() == sorted(WORDS)
    assert linear.method_ == "linear"
    assert linear.score(new, truth) > 0.9
    shares = linear.predict_proba(new)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(probabilities(linear.decision_function(new), "single"), shares)
    assert (linear.classes_[shares.argmax(axis=1)] == linear.predict(new)).all()


@pytest.mark.parametrize(
    "shaped",
    [
        np.array,
        lambda X: np.array(X, dtype=object),
        lambda X: np.array(X)[:, None],
        lambda X: [[text] for text in X],
        lambda X: pd.Series(X, index=range(5, 5 + len(X))),
        lambda X: pd.Series(X, dtype="string"),
        lambda X: pd.DataFrame({"any": X}),
        tuple,
    ],
)
def test_texts_come_in_many_shapes(shaped: Any) -> None:
    X = ["an apple", "iron", "the Rhine"]
    assert texts_of(shaped(X)) == X


@pytest.mark.parametrize(
    ("X", "said"),
    [
        ("one text", "not one str"),
        (b"bytes", "not one bytes"),
        (7, "not a int"),
        ([], "0 texts"),
        (np.array([["a", "b"]]), r"shape \(1, 2\)"),
        (np.array("a"), r"shape \(\)"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), r"shape \(1, 2\)"),
        (["a", ["b"]], "mixes texts and lists"),
        (["a", 3, None], r"2 of 3 rows of X hold no text: 1 \(not text: int\), 2 \(missing\)"),
        (["a", "", "b", None, float("nan")], r"3 of 5 rows .* 1 \(empty text\), 3 \(missing\), 4 \(missing\)"),
        (pd.Series(["a", pd.NA]), r"1 \(missing\)"),
    ],
)
def test_what_holds_no_texts_is_refused_by_row(X: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        texts_of(X)
    assert isinstance(caught.value, NautileError)
    assert "\n" not in str(caught.value)


def test_rows_without_text_are_zero_by_choice_and_never_dropped(linear: Classifier) -> None:
    X, y = sentences(5)
    linear.set_params(empty="zero").fit([*X, None, ""], [*y, "fruit", "fruit"])
    shares = linear.predict_proba([None, X[0], float("nan")])
    assert shares.shape == (3, 3)
    np.testing.assert_array_equal(shares[0], shares[2])
    with pytest.raises(NautileError, match="1 \\(not text: int\\)"):
        linear.predict(["a", 5])
    with pytest.raises(NautileError, match="unknown empty='drop'"):
        linear.set_params(empty="drop").fit(X, y)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        *((names, kind) for names in ([3, -1, 7], [True, False], [2.0, 3.0]) for kind in (np.array, list, pd.Series)),
        *((["b", "a", "c"], kind) for kind in (np.array, list, pd.Series, lambda y: np.array(y, dtype=object))),
    ],
)
def test_classes_keep_their_type(linear: Classifier, names: list[Any], kind: Any) -> None:
    X, y = sentences(4)
    given = kind([names[min(sorted(WORDS).index(label), len(names) - 1)] for label in y])
    linear.set_params(C=10.0, shrinkage=1.0, calibrate=False)
    predicted = linear.fit(X, given).predict(X)
    assert predicted.dtype == linear.classes_.dtype == np.unique(np.asarray(given)).dtype
    assert linear.classes_.tolist() == sorted(names)
    assert set(predicted.tolist()) <= set(names)


def test_several_labels_come_back_as_they_were_given(base: str) -> None:
    X, y = sentences(12)
    several = Classifier("linear", base, multi_label=True, cv=3, random_state=0)
    lists = [[label] if n % 3 else [label, "odd"] for n, label in enumerate(y)]
    predicted = several.fit(X, lists).predict(X)
    assert several.classes_.tolist() == ["fruit", "metal", "odd", "river"]
    assert all(isinstance(labels, tuple) and set(labels) <= set(several.classes_) for labels in predicted)
    assert 0 <= several.score(X, lists) <= 1
    assert several.score(X, predicted) == 1
    truth = np.array([[label in row for label in several.classes_] for row in lists])
    indicator = several.fit(X, truth.astype(int)).predict(X)
    assert indicator.dtype == int
    assert indicator.shape == truth.shape
    np.testing.assert_array_equal(
        indicator, [[label in row for label in ("fruit", "metal", "odd", "river")] for row in predicted]
    )
    assert several.calibration_ is not None
    assert several.calibration_.kind == "multi"
    several.fit(X, pd.DataFrame(truth, columns=list("abcd")))
    assert several.classes_.tolist() == list("abcd")
    assert several.predict(X).dtype == bool
    assert several.predict_proba(X).shape == several.decision_function(X).shape == truth.shape


def test_targets_that_do_not_fit_are_refused(linear: Classifier) -> None:
    X, y = sentences(3)
    for wrong, said in (
        ([[label] for label in y[:-1]] + [["a", "b"]], "multi_label=True"),
        (np.eye(len(X)), "9 columns"),
        (["fruit"] * len(X), "1 class"),
        (y[:-1], "inconsistent numbers"),
        (None, "requires y"),
        ([*y[:-1], None], r"no label in rows \[8\]"),
        (pd.Series([*y[:-1], pd.NA], dtype="string"), r"no label in rows \[8\]"),
        (np.linspace(0, 1, len(X)), "continuous"),
    ):
        with pytest.raises(ValueError, match=said):
            linear.fit(X, wrong)
    linear.set_params(multi_label=True)
    with pytest.raises(NautileError, match="indicator matrix or a list"):
        linear.fit(X, y)
    with pytest.raises(NautileError, match=r"no labels in rows \[8\]"):
        linear.fit(X, [*([label] for label in y[:-1]), None])
    with pytest.raises(NautileError, match="mixes texts and numbers"):
        linear.fit(X, [*([label] for label in y[:-1]), [1, 2]])
    with pytest.raises(NautileError, match="zeros and ones"):
        linear.fit(X, np.full((9, 2), 3))


def test_parameters_that_do_not_fit_are_refused_when_fitting(base: str) -> None:
    X, y = sentences(3)
    for parameters, said in (
        ({"method": "svm"}, "unknown method='svm'"),
        ({"C": -1}, "C must be"),
        ({"C": "large"}, "C must be"),
        ({"shrinkage": 1.5}, "shrinkage must"),
        ({"cv": 1}, "cv must be at least 2"),
        ({"cv": "five"}, "cv must be"),
        ({"base": "nautile-maxi"}, "unknown model"),
        ({"method": "lora", "finetune_options": {"kind": "multi"}}, "finetune_options holds 'kind'"),
        ({"method": "lora", "class_weight": {"fruit": 2}}, "class_weight"),
    ):
        with pytest.raises(NautileError, match=said):
            Classifier(**{"method": "linear", "base": base, **parameters}).fit(X, y)


def test_a_text_is_read_once_in_all_of_a_grid_search(linear: Classifier, read: list[str]) -> None:
    X, y = sentences(12)
    search = GridSearchCV(linear, {"C": [0.1, 10.0], "shrinkage": [1.0, "auto"]}, cv=StratifiedKFold(3))
    search.fit(np.array(X + X), y + y)
    assert sorted(read) == sorted(set(X))
    assert search.best_score_ > 0.9
    assert cross_val_score(linear, X, y, cv=3).mean() > 0.5
    assert len(read) == len(X)


def test_the_cache_is_bounded_and_drops_what_was_used_first() -> None:
    cache = VectorCache(most_bytes=3 * 16)
    one = np.ones(4, dtype=np.float32)
    cache.keep("base", dict.fromkeys("abc", one))
    assert set(cache.find("base", ["a"])) == {"a"}
    cache.keep("base", {"d": one})
    assert set(cache.find("base", list("abcd"))) == set("acd")
    assert cache.find("other", ["a"]) == {}
    assert len(cache) == 3


def test_it_stands_at_the_end_of_a_pipeline(linear: Classifier) -> None:
    X, y = sentences(10)
    cleaned = FunctionTransformer(lambda texts: [text.strip() for text in texts])
    pipeline = Pipeline([("clean", cleaned), ("clf", linear)]).set_params(clf__C=5.0)
    assert pipeline.fit([f"  {text}\n" for text in X], y).score(X, y) > 0.9
    assert pipeline["clf"].C_ == 5.0


def test_probabilities_are_calibrated_where_rows_suffice_and_else_say_nothing(linear: Classifier) -> None:
    X, y = sentences(10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear.fit(X, y)
        assert linear.calibration_ is not None
        assert linear.calibration_.rows == 30
        few = clone(linear).fit(X[:12], y[:10] + y[-2:])
        assert few.calibration_ is None
        bare = clone(linear).set_params(calibrate=False).fit(X, y)
    assert bare.calibration_ is None
    assert (bare.C_, bare.shrinkage_) == (linear.C_, linear.shrinkage_)
    np.testing.assert_allclose(
        bare.decision_function(X), linear.decision_function(X) * linear.calibration_.temperature, rtol=1e-6
    )


def test_class_weights_shift_the_answers(base: str) -> None:
    X, y = sentences(10)
    new, _ = sentences(10, seed=4)
    plain = Classifier("linear", base, C=0.01, shrinkage=1.0, random_state=0)
    lifted = clone(plain).set_params(class_weight={"metal": 50.0}).fit(X, y)
    assert (lifted.predict(new) == "metal").mean() > (plain.fit(X, y).predict(new) == "metal").mean()
    balanced = clone(plain).set_params(class_weight="balanced", calibrate=False).fit(X[:25], y[:25])
    counts = {label: y[:25].count(label) for label in WORDS}
    weighted = (
        clone(plain).set_params(calibrate=False).fit(X[:25], y[:25], [25 / 3 / counts[label] for label in y[:25]])
    )
    np.testing.assert_allclose(balanced.predict_proba(new), weighted.predict_proba(new), rtol=1e-6)


def test_partial_fit_is_fit_on_all_rows_so_far(linear: Classifier, base: str) -> None:
    X, y = sentences(6)
    part = clone(linear).partial_fit(X[:5], y[:5], classes=sorted(WORDS))
    assert part.classes_.tolist() == sorted(WORDS)
    assert set(part.predict(X)) == {"fruit"}
    part.partial_fit(X[5:9], y[5:9]).partial_fit(X[9:], y[9:])
    np.testing.assert_allclose(part.predict_proba(X), linear.fit(X, y).predict_proba(X), rtol=1e-6)
    grown = pickle.loads(pickle.dumps(linear)).partial_fit(["yes", "no"], ["word", "word"])
    assert grown.classes_.tolist() == ["fruit", "metal", "river", "word"]
    with pytest.raises(NautileError, match="texts in one batch and numbers"):
        linear.partial_fit(X, range(len(X)))
    with pytest.raises(NautileError, match="has no partial_fit"):
        Classifier("lora", base).partial_fit(X, y)
    with pytest.raises(NautileError, match="1 class"):
        clone(linear).partial_fit(X[:2], y[:2])


def test_batches_of_indicators_need_the_same_columns() -> None:
    one = read_targets(np.array([[1, 0], [0, 1]]), multi_label=True)
    assert merge([one, one]).truth_NC.shape == (4, 2)
    with pytest.raises(NautileError, match="other columns"):
        merge([one, read_targets(np.eye(3), multi_label=True)])
    with pytest.raises(NautileError, match="another form"):
        merge([one, read_targets([["a"], ["b", "c"]], multi_label=True)])


@pytest.mark.parametrize("labels", [None, [0, 1, 2], [True, False, True]])
def test_a_saved_classifier_predicts_the_same(linear: Classifier, tmp_path: Path, labels: list[Any] | None) -> None:
    X, y = sentences(10)
    given = y if labels is None else np.array([labels[sorted(WORDS).index(label)] for label in y])
    linear.set_params(class_weight="balanced").fit(X, given).save(tmp_path / "saved")
    again = Classifier.load(tmp_path / "saved")
    assert again.get_params() == linear.get_params()
    assert again.classes_.dtype == linear.classes_.dtype
    np.testing.assert_array_equal(again.predict(X), linear.predict(X))
    np.testing.assert_array_equal(again.predict_proba(X), linear.predict_proba(X))
    assert again.calibration_ == linear.calibration_
    reader, head = load_judging(tmp_path / "saved")
    np.testing.assert_allclose(head.probabilities(reader(X).vectors_ND), linear.predict_proba(X), atol=1e-4)
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} == {".json", ".safetensors"}
    with pytest.raises(NautileError, match="exists already"):
        linear.save(tmp_path / "saved")
    with pytest.raises(NautileError, match="no earlier rows"):
        again.partial_fit(X, given)


def test_lists_and_class_weights_are_saved_too(linear: Classifier, tmp_path: Path) -> None:
    X, y = sentences(8)
    linear.set_params(class_weight={0: 1.0, 1: 2.5}, cv=StratifiedKFold(3)).fit(X, [label == "metal" for label in y])
    linear.save(tmp_path / "weights")
    assert Classifier.load(tmp_path / "weights").class_weight == {0: 1.0, 1: 2.5}
    assert Classifier.load(tmp_path / "weights").cv == 5
    several = Classifier("linear", linear.base, multi_label=True, random_state=0).fit(X, [[label] for label in y])
    several.save(tmp_path / "lists")
    assert Classifier.load(tmp_path / "lists").predict(X).tolist() == several.predict(X).tolist()


@pytest.mark.parametrize(
    "damage",
    [
        lambda known: known.update(format=9),
        lambda known: known.pop("classes"),
        lambda known: known.update(classes=["a"]),
        lambda known: known.update(classes_dtype="V9x"),
        lambda known: known["parameters"].update(colour="red"),
        lambda known: known.update(recipe=3),
    ],
)
def test_a_damaged_folder_is_named(linear: Classifier, tmp_path: Path, damage: Any) -> None:
    linear.fit(*sentences(4)).save(tmp_path / "saved")
    place = tmp_path / "saved" / "classifier.json"
    known = json.loads(place.read_text())
    damage(known)
    place.write_text(json.dumps(known))
    with pytest.raises(NautileError, match="saved: "):
        Classifier.load(tmp_path / "saved")
    with pytest.raises(NautileError, match="not a saved Classifier"):
        Classifier.load(tmp_path)


def test_copies_and_pickles_predict_the_same(linear: Classifier) -> None:
    X, y = sentences(6)
    linear.fit(X, y)
    for other in (copy.deepcopy(linear), pickle.loads(pickle.dumps(linear))):
        np.testing.assert_array_equal(other.predict_proba(X), linear.predict_proba(X))


# The linear method


def blobs(seed: int, N: int = 60, D: int = 6, C: int = 3) -> Rows:
    rng = np.random.default_rng(seed)
    index_N = np.arange(N) % C
    vectors_ND = rng.normal(size=(C, D))[index_N] + rng.normal(size=(N, D))
    return Rows(vectors_ND.astype(np.float32), np.eye(C)[index_N], rng.integers(1, 4, N).astype(float), "single")


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_without_whitening_it_is_logistic_regression(strength: float) -> None:
    rows = blobs(1)
    centred = rows.vectors_ND - np.average(rows.vectors_ND, axis=0, weights=rows.weight_N)
    length = np.sqrt(np.average((centred**2).sum(axis=1), weights=rows.weight_N))
    reference = LogisticRegression(C=strength, tol=1e-9, max_iter=2000)
    reference.fit(centred / length, rows.truth_NC.argmax(axis=1), rows.weight_N)
    found = fit_linear(rows, Recipe(1.0, strength), 1e-9).logits(rows.vectors_ND)
    np.testing.assert_allclose(
        probabilities(found, "single"), reference.predict_proba(centred / length), rtol=1e-4, atol=1e-5
    )


def test_several_labels_are_as_many_regressions() -> None:
    rows = blobs(2)._replace(kind="multi")
    together = fit_linear(rows, Recipe(1.0, 1.0), 1e-9)
    for n in range(3):
        alone = fit_linear(rows._replace(truth_NC=rows.truth_NC[:, n : n + 1]), Recipe(1.0, 1.0), 1e-9)
        np.testing.assert_allclose(together.weight_CD[n], alone.weight_CD[0], rtol=1e-3, atol=1e-5)


def test_whitened_answers_do_not_depend_on_how_the_vectors_are_turned_and_hardly_on_their_scales() -> None:
    rows = blobs(3, N=300)
    rng = np.random.default_rng(0)
    turn_DD, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    scales_D = np.array([1, 1, 1, 1, 1, 30.0])

    def answers(vectors_ND: np.ndarray) -> np.ndarray:
        changed = rows._replace(vectors_ND=vectors_ND.astype(np.float32))
        return probabilities(fit_linear(changed, Recipe(1e-6, 10.0), 1e-8).logits(changed.vectors_ND), "single")

    plain = answers(rows.vectors_ND)
    np.testing.assert_allclose(answers(rows.vectors_ND @ turn_DD + 5), plain, atol=1e-3)
    np.testing.assert_allclose(answers(rows.vectors_ND * scales_D), plain, atol=1e-3)


def test_held_out_rows_choose_whitening_where_classes_are_long_and_thin() -> None:
    rng = np.random.default_rng(5)
    index_N = np.arange(90) % 3
    signal = rng.normal(size=(3, 8))[index_N] + 0.2 * rng.normal(size=(90, 8))
    rows = Rows(
        np.hstack([signal, 40 * rng.normal(size=(90, 4))]).astype(np.float32), np.eye(3)[index_N], np.ones(90), "single"
    )
    splits = split_rows(rows, 5, 0)
    recipe, held = choose_recipe(rows, splits, None, None)
    assert held is not None
    assert recipe.shrinkage < 1
    assert held.log_loss() < hold_out(rows, splits, Recipe(1.0, 10.0)).log_loss() - 0.2
    assert choose_recipe(rows, splits, 0.8, 3.0)[0] == Recipe(0.8, 3.0)
    assert choose_recipe(rows, [], None, None) == (Recipe(1.0, 10.0), None)
    few = rows.take(np.arange(49))
    assert choose_recipe(few, split_rows(few, 5, 0), None, None)[0] == Recipe(1.0, 10.0)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 9))
def test_no_class_is_ever_missing_from_training(labels: list[int], folds: int, seed: int) -> None:
    rows = Rows(np.zeros((len(labels), 2), np.float32), np.eye(6)[labels], np.ones(len(labels)), "single")
    splits = split_rows(rows, folds, seed)
    for train, test in splits:
        assert set(np.array(labels)[train]) == set(labels)
        assert not set(train) & set(test)
    tested = [row for _, test in splits for row in test]
    assert sorted(tested) == [n for n, label in enumerate(labels) if labels.count(label) > 1]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30).filter(any))
def test_small_whole_weights_are_counts(weights: list[int]) -> None:
    index = as_often(np.array(weights, dtype=float))
    assert np.bincount(index, minlength=len(weights)).tolist() == weights


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30))
def test_other_weights_are_shares_of_bounded_many(weights: list[float]) -> None:
    given_N = np.array(weights)
    counts = np.bincount(as_often(given_N), minlength=len(weights))
    assert len(weights) <= counts.sum() <= 10 * len(weights)
    assert np.abs(counts - given_N / given_N.sum() * counts.sum()).max() <= 1 + 1e-6


# Fine-tuning


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
