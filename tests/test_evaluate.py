"""Figures against scikit-learn and by hand, intervals against simulations, comparisons, labels brought together."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from nautile.errors import NautileError
from nautile.tasks import extras
from nautile.tasks.calibrate import Calibration, calibrate, ece, probabilities
from nautile.tasks.evaluate import measures
from nautile.tasks.evaluate.bootstrap import bootstrap, draws
from nautile.tasks.evaluate.compare import compare, mcnemar
from nautile.tasks.evaluate.contenders import of_judge
from nautile.tasks.evaluate.plots import confusion_png, coverage_png, reliability_png
from nautile.tasks.evaluate.report import markdown
from nautile.tasks.evaluate.results import Summary
from nautile.tasks.evaluate.rows import renamed, restrict
from nautile.tasks.evaluate.run import evaluate
from nautile.tasks.evaluate.scores import SHARES, Judged, figures, headline_measures
from nautile.tasks.kinds import Kind
from nautile.tasks.labelled import Labelled

THREE = ("negative", "neutral", "positive")


def judged(kind: Kind = "single", rows: int = 300, classes: int = 4, seed: int = 0, skill: float = 1.0) -> Judged:
    """Rows whose truth is drawn from the probabilities, sharper by `skill`; calibrated on as many others."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2 * rows, classes)) * 2
    if kind == "multi":
        truth: np.ndarray = rng.random(logits.shape) < 1 / (1 + np.exp(-skill * logits))
    else:
        truth = (skill * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    fitted = calibrate(logits[rows:], truth[rows:], kind, "a draw")
    labels = tuple(f"label {n}" for n in range(classes))
    return Judged(labels, kind, probabilities(logits[:rows], kind, fitted), truth[:rows], fitted)


class StandIn:
    """A judge that finds its answer in the text: "positive 0.8" gives that label that probability."""

    name = "stand-in"
    calibration: Calibration | None = None

    def __init__(self, labels: tuple[str, ...] = THREE, kind: Kind = "single") -> None:
        self.labels, self.kind = labels, kind

    def measure(self, texts: Sequence[str]) -> np.ndarray:
        found = np.full((len(texts), len(self.labels)), 0.1)
        for row, text in zip(found, texts, strict=True):
            for word in text.split():
                if word in self.labels:
                    row[self.labels.index(word)] = 0.8
        return found if self.kind == "multi" else found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_single_figures_are_scikit_learns(seed: int) -> None:
    one = judged(seed=seed)
    found, given_, truth = figures(one, 0), one.given, one.truth
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(truth, given_))
    assert found.macro_f1.value == pytest.approx(metrics.f1_score(truth, given_, average="macro"))
    assert found.ece.value == pytest.approx(ece(one.probabilities, truth, "single"))
    rows = metrics.precision_recall_fscore_support(truth, given_)
    told = [(c.precision, c.recall, c.f1, c.support) for c in found.per_class]
    assert np.allclose(told, np.array(rows).T)
    assert found.accuracy.low is None


def test_labels_that_neither_occur_nor_are_given_do_not_count() -> None:
    shares = np.eye(5)[[0, 0, 1, 3]] * 0.9 + 0.02
    one = Judged(tuple("abcde"), "single", shares, np.array([0, 1, 1, 1]))
    found = figures(one, 0)
    assert found.macro_f1.value == pytest.approx(metrics.f1_score(one.truth, one.given, average="macro"))
    assert [c.label for c in found.per_class] == ["a", "b", "d"]
    assert [(pair.truth, pair.given, pair.rows) for pair in found.confused] == [("b", "a", 1), ("b", "d", 1)]
    assert "2 of its labels neither occur nor were given" in markdown(found, "x")
    assert "not calibrated" in markdown(found, "x")


def test_ordinal_figures_are_scikit_learns() -> None:
    one = judged("ordinal", classes=5)
    found = figures(one, 0)
    kappa = metrics.cohen_kappa_score(one.truth, one.given, weights="quadratic")
    assert found.quadratic_kappa is not None
    assert found.mean_absolute_error is not None
    assert found.quadratic_kappa.value == pytest.approx(kappa)
    assert found.mean_absolute_error.value == pytest.approx(metrics.mean_absolute_error(one.truth, one.given))


def test_multi_figures_are_scikit_learns() -> None:
    one = judged("multi", classes=6)
    found = figures(one, 0)
    assert found.micro_f1 is not None
    assert found.subset_accuracy is not None
    assert found.accuracy.value == pytest.approx(1 - metrics.hamming_loss(one.truth, one.given))
    assert found.macro_f1.value == pytest.approx(metrics.f1_score(one.truth, one.given, average="macro"))
    assert found.micro_f1.value == pytest.approx(metrics.f1_score(one.truth, one.given, average="micro"))
    assert found.subset_accuracy.value == pytest.approx(metrics.accuracy_score(one.truth, one.given))
    assert found.ece.value == pytest.approx(ece(one.probabilities, one.truth, "multi"))


def test_out_of_scope_is_told_apart_as_scikit_learn_would() -> None:
    plain = judged(classes=3)
    shares = plain.probabilities.round(1) + 1e-3  # many scores are equal
    one = Judged(("a", "b", "oos"), "single", shares / shares.sum(1, keepdims=True), plain.truth, None, "oos")
    found, outside = figures(one, 0), one.truth == 2
    assert found.out_of_scope_auroc is not None
    assert found.in_scope_accuracy is not None
    assert found.out_of_scope_auroc.value == pytest.approx(metrics.roc_auc_score(outside, one.probabilities[:, 2]))
    assert found.in_scope_accuracy.value == pytest.approx(one.right[~outside].mean())
    assert figures(plain, 0).out_of_scope_auroc is None


@given(st.sampled_from(["single", "ordinal", "multi"]), st.integers(0, 999))
def test_a_weighted_figure_is_the_figure_of_the_repeated_rows(kind: Kind, seed: int) -> None:
    one = judged(kind, rows=40, classes=3, seed=seed)
    times = np.random.default_rng(seed).integers(0, 3, 40)
    times[0] = 1
    again = np.repeat(np.arange(40), times)
    repeated = Judged(one.labels, kind, one.probabilities[again], one.truth[again], one.calibration)
    ours, theirs = headline_measures(one), headline_measures(repeated)
    for name in ours:
        weighted = ours[name](times[None].astype(float))
        assert np.allclose(weighted, theirs[name](np.ones((1, len(again)))), equal_nan=True), name
    curves = [measures.risk_coverage(x.confidence, x.right, SHARES) for x in (one, repeated)]
    assert np.allclose(curves[0](times[None].astype(float)), curves[1](np.ones((1, len(again)))))


def test_the_coverage_curve_by_hand() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.7, 0.5])
    right = np.array([True, False, True, True, False])
    area, whole, most, little = measures.risk_coverage(confidence, right, (1.0, 0.6, 0.2))(np.ones((1, 5)))[0]
    assert whole == pytest.approx(3 / 5)
    assert most == pytest.approx(3 / 4)  # two rows are equally sure: both are answered
    assert little == 1
    assert area == pytest.approx((0 + 1 / 2 + 1 / 4 + 1 / 4 + 2 / 5) / 5)


def test_draws_have_as_many_rows_as_the_data_and_follow_the_seed() -> None:
    weights = np.concatenate(list(draws(700, 30, seed=5)))
    assert weights.shape == (30, 700)
    assert (weights.sum(axis=1) == 700).all()
    assert (weights == np.concatenate(list(draws(700, 30, seed=5)))).all()
    assert (weights != np.concatenate(list(draws(700, 30, seed=6)))).any()


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_intervals_hold_the_true_figure_about_as_often_as_they_say(name: str) -> None:
    rng = np.random.default_rng(0)
    truth, other = rng.integers(0, 3, (2, 60_000))
    given_ = np.where(rng.random(60_000) < 0.7, truth, other)
    real = headline(truth, given_, name)(np.ones((1, 60_000)))[0, 0]
    held = 0
    for start in range(0, 60_000, 200):
        part = slice(start, start + 200)
        [found] = bootstrap({"x": headline(truth[part], given_[part], name)}, 200, 300, seed=start)["x"]
        assert found.low is not None
        assert found.high is not None
        held += found.low <= real <= found.high
    assert 0.91 < held / 300 < 0.98


def headline(truth: np.ndarray, given_: np.ndarray, name: str) -> measures.Measure:
    return measures.mean_of(truth == given_) if name == "accuracy" else measures.macro_f1(given_, truth, 3)


def test_a_calibrated_models_ece_may_be_zero_and_a_bad_ones_may_not() -> None:
    well = figures(judged(rows=800), 300).ece
    assert well.low == 0
    assert well.high is not None
    assert well.high >= well.value
    one = judged(rows=800)
    sharp = one.probabilities**3
    bad = figures(Judged(one.labels, "single", sharp / sharp.sum(1, keepdims=True), one.truth), 300)
    assert bad.ece.low is not None
    assert 0 < bad.ece.low < bad.ece.value
    assert bad.ece_by_chance < bad.ece.low


def test_sets_of_a_calibrated_model_hold_what_they_say() -> None:
    found = figures(judged(rows=4000), 0).sets
    assert found is not None
    assert all(abs(sets.held.value - sets.coverage) < 0.025 for sets in found)
    assert sorted(sets.size.value for sets in found) == [sets.size.value for sets in found]


def test_ten_thousand_rows_of_150_classes_take_seconds() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 150, 10_000)
    shares = probabilities(rng.normal(size=(10_000, 150)) + 4 * np.eye(150)[truth], "single")
    one = Judged(tuple(map(str, range(150))), "single", shares, truth)
    start = time.process_time()
    figures(one, 1000)
    assert time.process_time() - start < 15


def test_mcnemar_by_hand() -> None:
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(0, 0) == mcnemar(4, 4) == 1
    assert mcnemar(1700, 1500) == pytest.approx(binomtest(1500, 3200).pvalue)


def test_a_better_model_is_called_better_and_its_twin_is_not() -> None:
    good = judged(rows=600, skill=3)
    poor_shares = np.random.default_rng(1).dirichlet(np.ones(4), 600)
    poor = Judged(good.labels, "single", poor_shares, good.truth)
    names, theirs = ("good", "poor"), figures(poor, 0)
    found = compare(good, poor, names, theirs, 300, 0)
    assert found.accuracy.value == pytest.approx(good.right.mean() - poor.right.mean())
    assert found.only_first_right - found.only_second_right == round(600 * found.accuracy.value)
    assert found.verdict.startswith("good is more often right than poor")
    back = compare(poor, good, names[::-1], figures(good, 0), 300, 0)
    assert back.verdict.startswith("good is more often right than poor")
    assert back.accuracy.low is not None
    assert found.accuracy.high == pytest.approx(-back.accuracy.low)
    same = compare(good, good, ("one", "two"), figures(good, 0), 300, 0)
    assert "cannot tell whether one or two" in same.verdict
    assert (same.p_value, same.accuracy.low, same.accuracy.high) == (1, 0, 0)


def test_restricting_renormalises_and_says_so() -> None:
    shares = np.array([[0.2, 0.6, 0.2], [0.3, 0.5, 0.2], [0.1, 0.1, 0.8]])
    one = Judged(THREE, "single", shares, np.array([2, 0, 2]), None, "neutral")
    found, note = restrict(one)
    assert found.labels == ("negative", "positive")
    assert np.allclose(found.probabilities, [[0.5, 0.5], [0.6, 0.4], [1 / 9, 8 / 9]])
    assert found.truth.tolist() == [1, 0, 1]
    assert found.out_of_scope is None
    assert "not neutral" in note
    assert restrict(found) == (found, "")
    with pytest.raises(NautileError, match="1 label occurs"):
        restrict(Judged(THREE, "single", shares, np.array([2, 2, 2])))


def test_restricting_several_labels_a_row_keeps_their_thresholds() -> None:
    one = judged("multi", classes=4)
    truth = one.truth.copy()
    truth[:, 1] = False
    found, _ = restrict(Judged(one.labels, "multi", one.probabilities, truth, one.calibration))
    assert found.calibration is not None
    assert one.calibration is not None
    assert one.calibration.thresholds is not None
    assert found.calibration.thresholds == [one.calibration.thresholds[n] for n in (0, 2, 3)]
    assert (found.probabilities == one.probabilities[:, [0, 2, 3]]).all()


def test_renaming_labels_merges_those_of_one_name() -> None:
    rows = Labelled(["x", "y", "z"], np.array([0, 1, 2]), ("0", "1", "2"), "single", [])
    [found] = renamed([rows], {"0": "no", "2": "no"})
    assert found.labels == ("no", "1")
    assert found.truth.tolist() == [0, 1, 0]
    multi = rows._replace(truth=np.eye(3, dtype=bool), kind="multi")
    assert renamed([multi], {0: "no", "2": "no"})[0].truth.tolist() == [[True, False], [False, True], [True, False]]
    with pytest.raises(NautileError, match="no label of the data is named '7'"):
        renamed([rows, multi], {"7": "no"})
    other = rows._replace(labels=("7", "1", "2"))
    assert [found.labels for found in renamed([rows, other], {"7": "0"})] == [("0", "1", "2")] * 2


def frame(*rows: tuple[object, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["text", "label"])


BASIC = [("positive yes", "positive"), ("negative", "negative"), ("neutral", "neutral"), ("negative hm", "positive")]


def test_bad_rows_are_left_out_and_told() -> None:
    data = frame(*BASIC, (None, "neutral"), ("text", None))
    found = evaluate(StandIn(), data, resamples=50)
    assert found.figures.rows == 4
    assert found.figures.accuracy.value == 0.75
    assert any("without a text" in note for note in found.summary.notes)
    assert any("without a label" in note for note in found.summary.notes)


def test_unknown_labels_are_named_or_ignored() -> None:
    data = frame(*BASIC, ("x", "joy"), ("y", "joy"))
    with pytest.raises(NautileError, match=r"stand-in does not know: 'joy' \(2 rows\); it knows negative, neutral"):
        evaluate(StandIn(), data)
    found = evaluate(StandIn(), data, ignore_unknown=True, resamples=0)
    assert found.figures.rows == 4
    assert any(note.startswith("2 rows left out") for note in found.summary.notes)
    joined = evaluate(StandIn(), data, rename={"joy": "positive"}, resamples=0)
    assert joined.figures.rows == 6


def test_two_label_data_is_judged_among_its_labels_when_asked() -> None:
    data = frame(("neutral positive", "positive"), ("negative", "negative"), ("neutral", "positive"))
    assert evaluate(StandIn(), data, resamples=0).figures.labels == list(THREE)
    found = evaluate(StandIn(), data, restricted=True, resamples=0)
    assert found.figures.labels == ["negative", "positive"]
    assert found.figures.calibrated is None
    assert any("renormalised" in note for note in found.summary.notes)


def test_a_second_model_is_judged_on_the_same_rows() -> None:
    other = StandIn(("positive", "negative", "neutral", "joy"))  # another order, one label more
    data = frame(*BASIC, ("joy", "joy"))
    found = evaluate(StandIn(), data, against=other, ignore_unknown=True, resamples=50)
    [comparison] = found.comparisons
    assert comparison.opponent_figures.rows == found.figures.rows == 4
    assert (comparison.accuracy.value, comparison.p_value) == (0, 1)


def test_several_labels_a_row() -> None:
    data = pd.DataFrame({"text": ["joy", "joy fear", "x"], "labels": [["joy"], ["fear"], []]})
    found = evaluate(StandIn(("joy", "fear", "anger"), "multi"), data, resamples=0)
    assert found.figures.subset_accuracy is not None
    assert found.figures.subset_accuracy.value == pytest.approx(2 / 3)
    assert found.figures.accuracy.value == pytest.approx(8 / 9)


def test_the_order_of_labels_is_the_models() -> None:
    stars = ("bad", "fair", "good")
    data = frame(("bad", "bad"), ("good", "bad"), ("fair", "good"), ("good", "good"))
    found = evaluate(StandIn(stars), data, kind="ordinal", against=StandIn(stars[::-1]), resamples=0)
    assert found.figures.mean_absolute_error is not None
    assert found.figures.mean_absolute_error.value == pytest.approx(3 / 4)
    assert found.comparisons[0].opponent_figures.mean_absolute_error == found.figures.mean_absolute_error
    assert "ordinal, in this order: bad < fair < good" in found.summary.notes
    numbers = evaluate(StandIn(("1", "10", "2")), frame(("1", "1"), ("2", "10")), kind="ordinal", resamples=0)
    assert "ordinal, in this order: 1 < 2 < 10" in numbers.summary.notes
    assert numbers.figures.mean_absolute_error is not None
    assert numbers.figures.mean_absolute_error.value == pytest.approx(1 / 2)
    with pytest.raises(NautileError, match="has other labels"):
        evaluate(StandIn(stars), data, kind="ordinal", against=StandIn(("bad", "good", "odd")))
    with pytest.raises(NautileError, match="cannot be evaluated as multi"):
        evaluate(StandIn(stars), data, kind="multi")


def sentences(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    words = {"negative": ["awful", "broken", "sad"], "positive": ["lovely", "great", "fine"], "neutral": ["it", "was"]}
    labels = rng.choice(THREE, rows)
    texts = [" ".join(rng.choice(words[label] + ["the", "a", "thing"], 6)) for label in labels]
    return pd.DataFrame({"text": texts, "label": labels})


@pytest.mark.parametrize("kind", ["single", "ordinal"])
def test_a_baseline_learns_what_there_is_to_learn(kind: Kind) -> None:
    data, train = sentences(200, 0), sentences(400, 1)
    found = evaluate(StandIn(), data, kind=kind, baselines=["tfidf"], train=train, resamples=100)
    [comparison] = found.comparisons
    assert comparison.opponent_figures.accuracy.value > 0.85
    assert comparison.verdict.startswith("TF-IDF + LR is more often right than stand-in")
    assert "400 training rows" in " ".join(found.summary.notes)


def test_a_baseline_of_several_labels_a_row() -> None:
    train = sentences(300, 2)
    train["label"] = train["label"] + ";all"
    judge = StandIn((*THREE, "all"), "multi")
    found = evaluate(judge, train[:100], baselines=["tfidf"], train=train, resamples=0)
    theirs = found.comparisons[0].opponent_figures
    assert {c.label: c.f1 for c in theirs.per_class}["all"] == 1
    assert any("100 texts" in note or "stand in the training rows" in note for note in found.summary.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baselines": ["svm"]}, "unknown baseline 'svm'"),
        ({"baselines": ["tfidf"]}, "give train"),
        ({"train": "x.csv"}, "name one"),
        ({"baselines": "tfidf"}, r"baselines must be a list such as \['tfidf'\], not 'tfidf'"),
        ({"resamples": -1}, "resamples must be a whole number, 0 or more, not -1"),
        ({"resamples": "5"}, "resamples must be a whole number, 0 or more, not '5'"),
        ({"resamples": 100_001}, "resamples must be 100,000 at most, not 100,001"),
        ({"seed": 1.5}, "seed must be a whole number, 0 or more, not 1.5"),
        ({"kind": "foo"}, "unknown kind 'foo'; choose one of single, ordinal, multi"),
        ({"rename": ["a=b"]}, "rename must be a dict"),
        ({"rename": {("a",): "b"}}, r"rename takes labels, texts or whole numbers, not \('a',\)"),
        ({"separator": ""}, "separator must be a text"),
        ({"output": 3}, "output must be the path of a folder, not 3"),
        ({"output": ""}, "output must be the path of a folder, not ''"),
        ({"task": "sentiment"}, "neither task nor labels"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(NautileError, match=message):
        evaluate(StandIn(), frame(*BASIC), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "classes"), [("single", 2), ("single", 150), ("ordinal", 5), ("multi", 20)])
def test_pictures_are_drawn(kind: Kind, classes: int, tmp_path: Path) -> None:
    one = judged(kind, classes=classes)
    for draw in (confusion_png, reliability_png, coverage_png):
        path = tmp_path / f"{draw.__name__}.png"
        draw(one, path)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_odd_labels_and_one_row_are_drawn_and_reported(tmp_path: Path) -> None:
    one = Judged(("$a|b$", "x" * 90), "single", np.array([[0.9, 0.1]]), np.array([0]))
    for draw in (confusion_png, reliability_png, coverage_png):
        draw(one, tmp_path / "picture.png")
    assert "$a\\|b$" in markdown(figures(one), "one row")


def test_what_is_saved_can_be_read_again(tmp_path: Path) -> None:
    found = evaluate(StandIn(), frame(*BASIC), against=StandIn(), resamples=50, output=tmp_path / "report")
    names = {"figures.json", "report.md", "confusion.png", "reliability.png", "coverage.png"}
    assert {path.name for path in (tmp_path / "report").iterdir()} == names
    saved = (tmp_path / "report" / "figures.json").read_text()
    assert Summary.model_validate_json(saved) == found.summary
    assert json.loads(saved)["figures"]["accuracy"]["value"] == 0.75
    report = (tmp_path / "report" / "report.md").read_text()
    assert found.comparisons[0].verdict in report
    assert "![Confusion](confusion.png)" in report


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("head.json", "holds a fine-tuned model"),
        ("checkpoints/run.json", "holds a fine-tuned model"),
        ("figures.json", "holds a figures.json that no evaluation wrote"),
        ("report.md", "holds a report.md that no evaluation wrote"),
        ("coverage.png", "holds a coverage.png that no evaluation wrote"),
    ],
)
def test_a_report_replaces_nothing_but_a_report(file: str, complaint: str, tmp_path: Path) -> None:
    place = tmp_path / "other"
    (place / file).parent.mkdir(parents=True)
    (place / file).write_text("mine")
    found = evaluate(StandIn(), frame(*BASIC), resamples=0)
    for write in (lambda: evaluate(StandIn(), frame(*BASIC), output=place), lambda: found.save(place)):
        with pytest.raises(NautileError, match=f"other: {complaint}; name another folder"):
            write()
    assert [path for path in place.rglob("*") if path.is_file()] == [place / file]
    assert (place / file).read_text() == "mine"


def test_a_report_replaces_one_in_its_folder_and_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    found = evaluate(StandIn(), frame(*BASIC), resamples=0, output=tmp_path)
    found.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "head.json").write_text("{}")
    with pytest.raises(NautileError, match="holds a fine-tuned model"):
        found.save(tmp_path)


def test_one_of_a_kind_is_told_as_one() -> None:
    found = evaluate(StandIn(), frame(BASIC[0]), against=StandIn(), resamples=1)
    assert "\n1 row, 3 labels." in found.report
    assert "Intervals: 1 bootstrap resample of the rows" in found.report
    assert found.comparisons[0].verdict.startswith("This 1 row cannot tell")


def test_missing_packages_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(NautileError, match=r'fine-tuning needs more packages: pip install "nautile\[finetune\]"'):
        extras.require("finetune", "peft")
    with pytest.raises(NautileError, match="drawing figures needs more packages"):
        evaluate(StandIn(), frame(*BASIC), output="report")


def test_a_judge_with_a_head_knows_what_is_out_of_scope() -> None:
    judge = StandIn()
    judge.head = type("Head", (), {"out_of_scope": "neutral"})()  # type: ignore[attr-defined]
    assert of_judge(judge, "x").out_of_scope == "neutral"  # type: ignore[arg-type]
    found = evaluate(judge, frame(*BASIC), resamples=0)
    assert found.figures.out_of_scope_auroc is not None
    assert found.figures.out_of_scope_auroc.value == 1


def test_what_stands_alone_is_not_given_with_others() -> None:
    shares = np.array([[0.96, 0.06, 0.87], [0.1, 0.6, 0.9]])
    truth = np.array([[True, False, False], [False, False, True]])
    one = Judged(("refund", "shipping", "none of these"), "multi", shares, truth, alone="none of these")
    assert one.right.all()
    assert one.confidence.tolist() == pytest.approx([0.94, 0.9])
    assert not replace(one, alone=None).right.any()
