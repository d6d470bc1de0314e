"""Calibration: probabilities, temperature, thresholds and prediction sets keep what they promise."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nautile.errors import NautileError
from nautile.tasks.calibrate import (
    Calibration,
    best_thresholds,
    calibrate,
    choose,
    confidence_of,
    ece,
    prediction_sets,
    probabilities,
    threshold_for,
)
from nautile.tasks.folds import folds_of, folds_of_texts
from nautile.tasks.heads.head import linear_head, to_unit
from nautile.tasks.heads.offsets import fit_offsets

LOGITS = arrays(float, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9), elements=st.floats(-40, 40))


def draw(rows: int, classes: int, seed: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and truth drawn from their softmax; the logits are then made `sharpness` times as sharp."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 2
    truth = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits * sharpness, truth


def with_temperature(temperature: float, kind: str = "single") -> Calibration:
    logits, truth = draw(40, 3, 0)
    fitted = calibrate(logits, np.eye(3, dtype=bool)[truth] if kind == "multi" else truth, kind, "a draw")  # type: ignore[arg-type]
    return fitted.model_copy(update={"temperature": temperature})


@given(LOGITS, st.floats(0.1, 10))
def test_single_probabilities_sum_to_one_and_temperature_never_changes_the_argmax(
    logits: np.ndarray, temperature: float
) -> None:
    plain = probabilities(logits, "single")
    cooled = probabilities(logits, "single", with_temperature(temperature))
    assert np.allclose(cooled.sum(axis=1), 1)
    assert (cooled >= 0).all()
    best = choose(plain, "single")
    chosen = cooled[np.arange(len(best)), best]
    assert np.allclose(chosen, cooled.max(axis=1))


@given(LOGITS, st.floats(0.1, 10))
def test_multi_probabilities_lie_between_zero_and_one_and_keep_their_side_of_a_half(
    logits: np.ndarray, temperature: float
) -> None:
    found = probabilities(logits, "multi", with_temperature(temperature, "multi"))
    assert ((found >= 0) & (found <= 1)).all()
    clear = np.abs(logits) > 1e-9
    assert ((found > 0.5) == (logits > 0))[clear].all()


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_temperature_undoes_what_made_logits_too_sharp_or_too_flat(sharpness: float) -> None:
    logits, truth = draw(6000, 4, 1, sharpness)
    fitted = calibrate(logits, truth, "single", "a draw")
    assert fitted.temperature == pytest.approx(sharpness, rel=0.08)
    assert fitted.ece < 0.03
    assert (fitted.ece_before > 0.08) is (sharpness != 1)


def test_the_temperature_of_many_labels_a_row() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(3000, 5)) * 2
    truth = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    assert calibrate(logits * 2.5, truth, "multi", "a draw").temperature == pytest.approx(2.5, rel=0.08)


def test_ece_of_constructed_cases() -> None:
    always = np.tile([0.8, 0.2], (10, 1))
    truth = np.array([0] * 8 + [1] * 2)
    assert ece(always, truth, "single") == pytest.approx(0)
    assert ece(always, np.zeros(10, dtype=int), "single") == pytest.approx(0.2)
    assert ece(always, np.ones(10, dtype=int), "single") == pytest.approx(0.8)
    # Two bins, one 0.3 too low, one 0.1 too high: they do not cancel.
    two = np.array([[0.7, 0.3]] * 5 + [[0.9, 0.1]] * 5)
    assert ece(two, np.array([0] * 5 + [0] * 4 + [1]), "single") == pytest.approx(0.2)
    assert ece(np.array([[0.25, 1.0]] * 4), np.array([[True, True]] + [[False, True]] * 3), "multi") == pytest.approx(0)


def test_ordinal_choice_is_the_median() -> None:
    shares = np.array([[0.4, 0.25, 0.35], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])
    assert choose(shares, "ordinal").tolist() == [1, 0, 2]
    assert confidence_of(shares, "ordinal").tolist() == [0.25, 0.5, 1.0]


def f1(scores: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    chosen = scores >= threshold
    return float(2 * (chosen & truth).sum() / max(1, chosen.sum() + truth.sum()))


@given(st.integers(0, 2**16), st.integers(2, 90), st.integers(1, 5))
def test_no_threshold_beats_the_best_one(seed: int, rows: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, steps + 1, rows) / steps  # many are equal
    truth = rng.random(rows) < 0.4
    [threshold] = best_thresholds(scores[:, None], truth[:, None])
    if truth.sum() >= 20:
        every = max(f1(scores, truth, candidate) for candidate in (*scores, 2.0))
        assert f1(scores, truth, threshold) == pytest.approx(every)
    else:
        assert threshold == 0.5


def test_rare_labels_share_a_threshold() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((300, 12)) < np.array([0.3, *[0.01] * 11])
    scores = np.clip(truth * 0.3 + rng.random(truth.shape) * 0.4, 0, 1)
    scores[truth[:, 5], 5] = 0.0  # by its own F1 this label would be given to every row
    common, *rare = best_thresholds(scores, truth)
    assert common == best_thresholds(scores[:, :1], truth[:, :1])[0]
    assert set(rare) == {best_thresholds(scores.reshape(-1, 1), truth.reshape(-1, 1))[0]}


@pytest.mark.parametrize("kind", ["single", "ordinal", "multi"])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_hold_the_truth_as_often_as_stated(kind: str, coverage: float) -> None:
    held = []
    for seed in range(10):
        logits, truth = draw(2000, 4, seed, sharpness=1.7)
        if kind == "multi":
            truth = np.random.default_rng(seed).random(logits.shape) < 1 / (1 + np.exp(-logits / 1.7))
        fitted = calibrate(logits[:1000], truth[:1000], kind, "a draw")  # type: ignore[arg-type]
        sets = prediction_sets(probabilities(logits[1000:], kind, fitted), fitted, coverage)  # type: ignore[arg-type]
        new = truth[1000:]
        held.append((sets | ~new).all(axis=1) if kind == "multi" else sets[np.arange(len(new)), new])
    assert coverage - 0.015 < np.mean(held) < coverage + 0.02


@given(st.floats(0.02, 0.98), st.floats(0.02, 0.98), st.integers(0, 2**16))
def test_sets_grow_with_coverage_and_thresholds_fall_with_the_share_answered(
    one: float, other: float, seed: int
) -> None:
    low, high = sorted((one, other))
    logits, truth = draw(200, 4, seed)
    fitted = calibrate(logits[:100], truth[:100], "single", "a draw")
    found = probabilities(logits[100:], "single", fitted)
    assert not (prediction_sets(found, fitted, low) & ~prediction_sets(found, fitted, high)).any()
    assert threshold_for(fitted, low) >= threshold_for(fitted, high)


def test_too_few_rows_for_a_coverage_give_sets_of_every_label() -> None:
    logits, truth = draw(200, 4, 3)
    fitted = calibrate(logits[:20], truth[:20], "single", "a draw")
    assert prediction_sets(probabilities(logits, "single", fitted), fitted, 0.97).all()
    assert not prediction_sets(probabilities(logits, "single", fitted), fitted, 0.9).all()


def test_a_calibration_survives_json() -> None:
    logits, truth = draw(300, 4, 4)
    fitted = calibrate(logits, truth, "single", "a draw")
    again = Calibration.model_validate_json(fitted.model_dump_json())
    assert again == fitted
    found = probabilities(logits, "single", fitted)
    assert (prediction_sets(found, again, 0.9) == prediction_sets(found, fitted, 0.9)).all()


def test_what_cannot_be_calibrated_or_asked() -> None:
    logits, truth = draw(19, 3, 0)
    with pytest.raises(NautileError, match="19 held-out rows are too few"):
        calibrate(logits, truth, "single", "a draw")
    fitted = with_temperature(1.0)
    for share in (0, 1, 1.5, -0.1):
        with pytest.raises(NautileError, match="above 0 and below 1"):
            prediction_sets(np.ones((1, 3)) / 3, fitted, share)
        with pytest.raises(NautileError, match="above 0 and below 1"):
            threshold_for(fitted, share)


def test_rows_that_are_all_right_are_no_reason_to_be_certain() -> None:
    truth = np.arange(30) % 3
    logits = np.eye(3)[truth]
    for n in (20, 30):
        fitted = calibrate(logits[:n], truth[:n], "single", "a draw")
        assert probabilities(logits, "single", fitted).max() == pytest.approx(1 - 1 / (n + 2), abs=0.005)
    many = calibrate(logits, logits > 0, "multi", "a draw")
    assert probabilities(logits, "multi", many).max() < 0.98


def test_rows_of_one_text_are_in_one_fold() -> None:
    texts = [f"text {n % 37}" for n in range(200)]
    folds = folds_of_texts(texts)
    assert set(folds) == set(range(5))
    assert all(len({fold for fold, text in zip(folds, texts, strict=True) if text == one}) == 1 for one in set(texts))


def test_copies_are_no_further_evidence() -> None:
    logits, truth = draw(30, 4, 5)
    copied = np.repeat(np.arange(30), 10)
    fitted = calibrate(logits[copied], truth[copied], "single", "a draw", independent=30)
    assert fitted.rows == 30
    assert prediction_sets(probabilities(logits, "single", fitted), fitted, 0.97).all()
    with pytest.raises(NautileError, match="19 held-out rows are too few"):
        calibrate(logits[copied], truth[copied], "single", "a draw", independent=19)


def test_offsets_undo_what_was_added_to_a_label_and_are_fitted_without_the_row() -> None:
    logits, truth = draw(4000, 4, 7, sharpness=3.0)
    shifted = logits + np.array([9.0, 0.0, -6.0, 0.0])
    offsets, moved = fit_offsets(shifted, truth, folds_of(4000))
    gaps = offsets - offsets[1]
    assert gaps == pytest.approx([-9.0, 0.0, 6.0, 0.0], abs=0.8)
    assert (moved.argmax(1) == truth).mean() > (shifted.argmax(1) == truth).mean() + 0.05
    fitted = calibrate(moved, truth, "single", "a draw")
    assert fitted.temperature == pytest.approx(3.0, rel=0.08)
    one_more = fit_offsets(shifted, np.where(np.arange(4000) == 5, 0, truth), folds_of(4000))[1]
    assert np.array_equal(one_more[5], moved[5])


def test_labels_that_no_held_out_row_has_move_little() -> None:
    logits, truth = draw(60, 3, 1)
    offsets, _ = fit_offsets(np.hstack([logits, logits[:, :1] - 4]), truth, folds_of(60))
    assert np.isfinite(offsets).all()
    assert abs(offsets[3] - offsets[:3].mean()) < 3


def test_a_unit_head_does_not_see_how_long_a_vector_is() -> None:
    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    head = linear_head(("a", "b"), torch.ones(2, 8), torch.zeros(2), unit=True)
    assert head.logits(vectors) == pytest.approx(head.logits(vectors * torch.tensor([[0.1], [2], [1], [9], [3]])))
    assert to_unit(vectors).square().mean(1).numpy() == pytest.approx(np.ones(5), rel=1e-5)
    assert not to_unit(torch.zeros(1, 8)).any()
