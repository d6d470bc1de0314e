"""`Classifier`: what goes in and comes out, one reading a text, saving and copying."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
from classifiers import WORDS, sentences
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import nautile
from nautile.engine.reader import Reader, Vectors
from nautile.errors import NautileError
from nautile.model.checkpoints import save
from nautile.model.model import NautileModel
from nautile.model.places import fingerprint
from nautile.tasks.calibrate import probabilities
from nautile.tasks.classifier import Classifier, vectors
from nautile.tasks.classifier.inputs import texts_of
from nautile.tasks.classifier.targets import merge, read_targets
from nautile.tasks.classifier.vectors import VectorCache
from nautile.tasks.heads.loading import load_judging
from nautile.tasks.zero_shot.judge import load_matching
from nautile.tasks.zero_shot.labels import WORDINGS

NAMES = [wording.format(name) for name in WORDS for wording in WORDINGS]  # what is read of the classes' names


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


@pytest.mark.parametrize(
    ("names", "dtype", "called"),
    [
        ([0.0, 1.0], "float64", {"0", "1"}),
        ([0, 1], "Int64", {"0", "1"}),
        ([False, True], "boolean", {"False", "True"}),
        ([0, 1], "int64[pyarrow]", {"0", "1"}),
    ],
)
def test_numbers_are_called_as_in_labelled_rows(
    linear: Classifier, tmp_path: Path, names: list[Any], dtype: str, called: set[str]
) -> None:
    X, y = sentences(4)
    given = pd.Series([names[label == "fruit"] for label in y], dtype=dtype)
    linear.set_params(C=10.0, shrinkage=1.0, calibrate=False).fit(X, given).save(tmp_path / "saved")
    rows = pd.DataFrame({"text": X, "label": given})
    told = [nautile.evaluate(model, rows, resamples=0) for model in (linear, str(tmp_path / "saved"))]
    assert set(told[0].judged.labels) == set(told[1].judged.labels) == called
    assert called <= set(nautile.classify(X, model=tmp_path / "saved").columns)
    assert linear.classes_.tolist() == names


def test_a_folder_that_cannot_be_is_refused_and_nothing_half_saved_stays(linear: Classifier, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="does not use finetune_options"):
        linear.set_params(C=10.0, shrinkage=1.0, finetune_options={"epochs": np.int64(3)}).fit(*sentences(4))
    (tmp_path / "file").write_text("")
    for folder, said in (
        (tmp_path / "file" / "x", "is a file"),
        (tmp_path / ("x" * 300), "cannot be"),
        (None, "give a"),
    ):
        with pytest.raises(NautileError, match=said):
            linear.save(folder)
    linear.finetune_options = {"epochs": object()}
    with pytest.raises(NautileError, match="holds a value of type object, which cannot be saved"):
        linear.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    linear.finetune_options = {"epochs": np.int64(3)}
    linear.save(tmp_path / "saved")
    assert type(linear).load(tmp_path / "saved").finetune_options == {"epochs": 3}
    with pytest.raises(NautileError, match="must be a dict of options"):
        linear.set_params(finetune_options=[1]).fit(*sentences(4))


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


def test_a_lone_label_may_stand_without_its_list(base: str) -> None:
    X, y = sentences(10)
    lists = [[label] for label in y]
    several = Classifier("linear", base, multi_label=True, cv=3, random_state=0).fit(X, lists)
    assert several.score(X, [lists[0], *y[1:]]) == several.score(X, lists) > 0.5
    with pytest.raises(NautileError, match="no label at all"):
        several.fit(X, [[] for _ in X])
    with pytest.raises(NautileError, match="a lone 0 or 1 in each list"):
        several.fit(X, [[n % 2] for n in range(len(X))])


def test_splits_may_be_given_as_booleans(base: str) -> None:
    X, y = sentences(20)
    test = np.arange(len(X)) % 2 == 0
    given = (~test, test), (np.flatnonzero(~test), np.flatnonzero(test))
    by_mask, by_index = (Classifier("linear", base, cv=[split]).fit(X, y).calibration_ for split in given)
    assert by_mask is not None
    assert by_mask == by_index
    for part, said in (([0, 99], "names row 99, of 60 rows"), ([True], "1 booleans for 60 rows")):
        with pytest.raises(NautileError, match=said):
            Classifier("linear", base, cv=[([0, 1, 2], part)]).fit(X, y)


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
        ([*y[:-1], float("nan")], r"no label in rows \[8\]"),
        ([*y[:-1], 1], "mixes texts and numbers"),
        (np.array([*y[:-1], 1], dtype=object), "mixes texts and numbers"),
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
        ({"finetune_options": {"epoch": 3}}, "finetune_options: unknown option 'epoch'; did you mean epochs"),
        ({"method": "auto", "finetune_options": {"rank": 0}}, "finetune_options: rank"),
        ({"method": "lora", "class_weight": {"fruit": 2}}, "class_weight"),
    ):
        with pytest.raises(NautileError, match=said):
            Classifier(**{"method": "linear", "base": base, **parameters}).fit(X, y)


@pytest.mark.slow
def test_a_text_is_read_once_in_all_of_a_grid_search(linear: Classifier, read: list[str]) -> None:
    X, y = sentences(12)
    search = GridSearchCV(linear, {"C": [0.1, 10.0], "shrinkage": [1.0, "auto"]}, cv=StratifiedKFold(3))
    search.fit(np.array(X + X), y + y)
    assert sorted(read) == sorted({*X, *NAMES})
    assert search.best_score_ > 0.9
    assert cross_val_score(linear, X, y, cv=3).mean() > 0.5
    assert len(read) == len(X) + len(NAMES)


def test_the_cache_is_bounded_and_drops_what_was_used_first() -> None:
    cache = VectorCache(most_bytes=3 * 16)
    one = np.ones(4, dtype=np.float32)
    base, changed = ("base", (("file", 8, 1),)), ("base", (("file", 8, 2),))
    cache.keep(base, dict.fromkeys("abc", one))
    assert set(cache.find(base, ["a"])) == {"a"}
    cache.keep(base, {"d": one})
    assert set(cache.find(base, list("abcd"))) == set("acd")
    assert cache.find(changed, ["a"]) == {}
    assert len(cache) == 3


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A base in the working directory, and another of the same form to put in its place."""
    monkeypatch.chdir(tmp_path)
    made = [tmp_path / "mine", tmp_path / "other"]
    for seed, folder in enumerate(made):
        save(tiny.model(NautileModel, seed, vocab_size=600, pooling="mean"), folder)
    return made


def replace(old: Path, new: Path) -> None:
    shutil.rmtree(old)
    new.rename(old)


def test_vectors_of_a_base_that_was_replaced_are_read_anew(places: list[Path], read: list[str]) -> None:
    X, y = sentences(4)
    before = Classifier("linear", "mine", random_state=0).fit(X, y).predict_proba(X)
    assert len(read) == len(X) + len(NAMES)
    replace(*places)
    after = Classifier("linear", "mine", random_state=0).fit(X, y).predict_proba(X)
    assert len(read) == 2 * (len(X) + len(NAMES))
    assert np.abs(before - after).max() > 1e-3


def test_a_base_of_other_weights_than_at_fit_is_refused(places: list[Path], tmp_path: Path) -> None:
    X, y = sentences(4)
    fitted = Classifier("linear", "mine", random_state=0).fit(X, y)
    fitted.save(tmp_path / "saved")
    copies = [fitted, Classifier.load(tmp_path / "saved"), pickle.loads(pickle.dumps(fitted))]
    for path in places[0].iterdir():
        path.touch()
    for one in copies:
        np.testing.assert_array_equal(one.predict(X), fitted.predict(X))
    replace(*places)
    for one in copies:
        with pytest.raises(NautileError, match="has other weights than when") as caught:
            one.predict(X)
        assert "\n" not in str(caught.value)
    with pytest.raises(NautileError, match="no earlier rows of this base"):
        fitted.partial_fit(X, y)


def test_a_base_given_by_a_relative_path_is_found_from_elsewhere(
    places: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = sentences(4)
    fitted = Classifier("linear", "mine", random_state=0).fit(X, y)
    expected = fitted.predict_proba(X)
    fitted.save(tmp_path / "saved")
    about = json.loads((tmp_path / "saved" / "head.json").read_text())["about"]
    assert (about["base"], about["base_digest"]) == (str(tmp_path / "mine"), fingerprint(tmp_path / "mine"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    vectors.CACHE.clear()
    again = Classifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    np.testing.assert_array_equal(fitted.predict_proba(X), expected)
    assert clone(again).fit(X, y).base == str(tmp_path / "mine")


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
    scaled = linear.calibration_.scaling(bare.decision_function(X), "single")
    np.testing.assert_allclose(linear.decision_function(X), scaled, rtol=1e-6)


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
    part = clone(linear).set_params(names=False).partial_fit(X[:5], y[:5], classes=sorted(WORDS))
    assert part.classes_.tolist() == sorted(WORDS)
    assert set(part.predict(X)) == {"fruit"}
    part = clone(linear).partial_fit(X[:5], y[:5], classes=sorted(WORDS))
    part.partial_fit(X[5:9], y[5:9]).partial_fit(X[9:], y[9:])
    np.testing.assert_allclose(part.predict_proba(X), linear.fit(X, y).predict_proba(X), rtol=1e-6)
    balanced = clone(linear).set_params(class_weight="balanced")
    metals = [n for n, label in enumerate(y) if label == "metal"]
    some = [n for n in range(len(y)) if n not in metals[2:]]
    in_parts = clone(balanced).partial_fit([X[n] for n in some[:4]], [y[n] for n in some[:4]], classes=sorted(WORDS))
    in_parts.partial_fit([X[n] for n in some[4:]], [y[n] for n in some[4:]])
    whole = balanced.fit([X[n] for n in some], [y[n] for n in some])
    np.testing.assert_allclose(in_parts.predict_proba(X), whole.predict_proba(X), rtol=1e-6)
    grown = pickle.loads(pickle.dumps(linear)).partial_fit(["yes", "no"], ["word", "word"])
    assert grown.classes_.tolist() == ["fruit", "metal", "river", "word"]
    with pytest.raises(NautileError, match="texts in one batch and numbers"):
        linear.partial_fit(X, range(len(X)))
    with pytest.raises(NautileError, match="has no partial_fit"):
        Classifier("lora", base).partial_fit(X, y)
    with pytest.raises(NautileError, match="1 class"):
        clone(linear).partial_fit(X[:2], y[:2])


def test_turned_vectors_have_half_of_the_products_of_the_matching_head() -> None:
    one_ND, other_ND = np.random.default_rng(0).normal(size=(2, 5, 256))
    head = load_matching("nautile-mini").project.weight.detach().double().numpy()
    turn_DD = vectors.read_likeness("nautile-mini")
    assert turn_DD is not None
    theirs = (one_ND @ head.T) @ (other_ND @ head.T).T * 256 / (head**2).sum()
    np.testing.assert_allclose(
        (one_ND @ turn_DD) @ (other_ND @ turn_DD).T, (one_ND @ other_ND.T + theirs) / 2, atol=1e-8
    )


def test_classes_are_known_by_name_as_well(tmp_path: Path) -> None:
    X, y = ["Book me a flight to Rome.", "How much is left on my account?"], ["travel", "banking"]
    new = ["Will it rain tomorrow?", "I need a hotel room", "Transfer 20 dollars to Ann"]
    known = Classifier("linear").partial_fit(X, y, classes=["banking", "travel", "weather"])
    assert known.names_
    assert known.likeness_
    assert known.predict(new).tolist() == ["weather", "travel", "banking"]
    known.save(tmp_path / "saved")
    again = Classifier.load(tmp_path / "saved")
    assert (again.names_, again.likeness_) == (True, True)
    np.testing.assert_array_equal(again.predict_proba(new), known.predict_proba(new))
    assert nautile.classify(new, model=str(tmp_path / "saved"))["label"].tolist() == ["weather", "travel", "banking"]
    unnamed = Classifier("linear", names=False).partial_fit(X, y, classes=["banking", "travel", "weather"])
    assert "weather" not in unnamed.predict(new)
    numbered = Classifier("linear").fit(X, [1, 2])
    assert not numbered.names_
    coded = Classifier("linear").fit(X, ["1", "2"])
    np.testing.assert_array_equal(coded.predict_proba(new), numbered.predict_proba(new))


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
    read = reader(X, words=True)
    found = head.probabilities(read.vectors_ND, read.words_NS)
    np.testing.assert_allclose(found, linear.predict_proba(X), atol=1e-4)
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} == {".json", ".safetensors"}
    with pytest.raises(NautileError, match="exists already"):
        linear.save(tmp_path / "saved")
    with pytest.raises(NautileError, match="no earlier rows"):
        again.partial_fit(X, given)


@pytest.mark.slow
def test_words_are_chosen_kept_saved_and_judged_with(base: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = ["".join(rng.choice([*"abcdefghijklmnopqrstuvwxyz"], 60)) for _ in range(120)]  # that drowns in vectors
    X = [f"{text} {'cancel' if n % 2 else 'confirm'} it" for n, text in enumerate(noise)]
    y = ["no" if n % 2 else "yes" for n in range(120)]
    fitted = Classifier("linear", base, random_state=0).fit(X, y)
    assert fitted.words_
    given = Classifier("linear", base, C=fitted.C_, shrinkage=fitted.shrinkage_, calibrate=False, random_state=0)
    assert given.fit(X, y).words_
    grown = Classifier("linear", base, random_state=0).partial_fit(X[:50], y[:50]).partial_fit(X[50:], y[50:])
    np.testing.assert_allclose(grown.predict_proba(X), fitted.predict_proba(X), rtol=1e-6)
    fitted.save(tmp_path / "saved")
    again, new = Classifier.load(tmp_path / "saved"), ["Cancel that!", "please confirm", "neither"]
    assert again.words_
    assert again.predict(new[:2]).tolist() == ["no", "yes"]
    np.testing.assert_array_equal(again.predict_proba(new), fitted.predict_proba(new))
    judged = nautile.classify(new, model=str(tmp_path / "saved"))
    np.testing.assert_allclose(judged[["no", "yes"]], fitted.predict_proba(new), atol=1e-4)


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


def test_numbers_are_the_same_labels_whole_or_not(linear: Classifier) -> None:
    X, y = ["a first text", "another one"] * 15, [[1, 2], [3]] * 15
    fitted = linear.set_params(multi_label=True).fit(X, y)
    exact = fitted.score(X, y)
    assert fitted.score(X, [[float(label) for label in row] for row in y]) == exact > 0
    with pytest.raises(NautileError, match=r"no labels in rows \[0, 1"):
        fitted.score(X, [None] * 30)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.score(X, y[:-1])


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_a_missing_label_in_a_list_is_named(linear: Classifier, missing: Any) -> None:
    with pytest.raises(NautileError, match=r"y holds a missing label in rows \[1\]"):
        linear.set_params(multi_label=True).fit(["a", "b", "c"], [["x"], [missing, "y"], ["z"]])
