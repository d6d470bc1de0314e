"""Scaling: a temperature, and a power of a row's size where held-out rows ask for one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nautile.tasks.calibrate import calibrate, ece, probabilities
from nautile.tasks.folds import folds_of
from nautile.tasks.kinds import Array, Kind, Truth
from nautile.tasks.likelihood import cross_entropy, shares
from nautile.tasks.scaling import Scaling, fit_scaling, softened

KINDS: tuple[Kind, ...] = ("single", "multi")


def draw(kind: Kind, scaling: Scaling, rows: int = 5000, labels: int = 5) -> tuple[Array, Truth]:
    """Logits, and a truth that is drawn by what the scaling makes of them."""
    rng = np.random.default_rng(0)
    logits_NC = rng.normal(size=(rows, labels)) * rng.uniform(0.2, 6, size=(rows, 1))
    shares_NC = probabilities(scaling(logits_NC, kind), kind)
    if kind == "multi":
        return logits_NC, rng.random(shares_NC.shape) < shares_NC
    return logits_NC, (shares_NC.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(max=labels - 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("made", [Scaling(0.7, 0.5), Scaling(2.0, 1.4)])
def test_the_scaling_that_made_the_truth_is_found(kind: Kind, made: Scaling) -> None:
    logits_NC, truth = draw(kind, made)
    found = calibrate(logits_NC, truth, kind, "a draw")
    assert found.temperature == pytest.approx(made.temperature, rel=0.12)
    assert found.power == pytest.approx(made.power, abs=0.08)


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_temperature_says_it_all_the_power_is_one(kind: Kind) -> None:
    logits_NC, truth = draw(kind, Scaling(2.0))
    found = calibrate(logits_NC, truth, kind, "a draw")
    assert found.power == 1
    assert found.temperature == pytest.approx(2, rel=0.05)


def test_a_power_calibrates_what_a_temperature_cannot() -> None:
    logits_NC, truth = draw("single", Scaling(0.7, 0.5))
    alone = fit_scaling(logits_NC, truth, "single", with_power=False)
    assert ece(probabilities(alone(logits_NC, "single"), "single"), truth, "single") > 0.03
    assert calibrate(logits_NC, truth, "single", "a draw").ece < 0.015


@given(st.floats(-4, 4), st.sampled_from(KINDS), st.booleans())
@settings(max_examples=12)
def test_logits_on_another_scale_get_the_same_probabilities(log_scale: float, kind: Kind, with_power: bool) -> None:
    logits_NC, truth = draw(kind, Scaling(1.5, 0.7), rows=200)
    scaled_NC, others_NC = (
        probabilities(fit_scaling(found_NC, truth, kind, with_power)(found_NC, kind), kind)
        for found_NC in (logits_NC, logits_NC * np.exp(log_scale))
    )
    assert np.allclose(scaled_NC, others_NC, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "labels"), [(16, 2), (40, 10), (200, 5)])
def test_no_scaling_on_a_grid_is_likelier(kind: Kind, rows: int, labels: int) -> None:
    logits_NC, truth = draw(kind, Scaling(2.0), rows, labels)
    grid = [Scaling(t, p) for t in np.geomspace(0.05, 20, 40) for p in np.linspace(0.25, 2, 15)]

    def loss(scaling: Scaling) -> float:
        return float(cross_entropy(scaling(logits_NC, kind), softened(truth, logits_NC.shape, kind), kind).mean())

    assert loss(fit_scaling(logits_NC, truth, kind, with_power=True)) <= min(map(loss, grid)) + 1e-4


def test_copies_of_rows_are_no_reason_for_a_power() -> None:
    logits_NC, truth = draw("single", Scaling(2.0), rows=50)
    once = calibrate(logits_NC, truth, "single", "a draw")
    copies, folds_N = np.tile(np.arange(50), 10), np.tile(folds_of(50), 10)
    often = calibrate(logits_NC[copies], truth[copies], "single", "a draw", 50, folds_N)
    assert once.power == often.power == 1


@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_get_no_power_of_their_own(kind: Kind) -> None:
    logits_NC, truth = draw(kind, Scaling(2.0), rows=20)
    assert calibrate(logits_NC, truth, kind, "a draw").power == 1


@given(
    arrays(float, (3, 4), elements=st.floats(-50, 50)),
    st.floats(0.05, 20),
    st.floats(0.25, 2),
    st.sampled_from(KINDS),
)
def test_the_order_of_a_rows_labels_stays(logits_NC: Array, temperature: float, power: float, kind: Kind) -> None:
    scaled_NC = Scaling(temperature, power)(logits_NC, kind)
    assert np.isfinite(scaled_NC).all()
    order_NC = np.argsort(logits_NC, axis=1, kind="stable")
    sorted_NC = np.take_along_axis(scaled_NC, order_NC, axis=1)
    assert (np.diff(sorted_NC, axis=1) >= -1e-9 * np.abs(sorted_NC).max()).all()


@given(arrays(float, (3, 4), elements=st.floats(-50, 50)), st.floats(0.05, 20), st.sampled_from(KINDS))
def test_a_power_of_one_is_a_temperature(logits_NC: Array, temperature: float, kind: Kind) -> None:
    assert np.allclose(Scaling(temperature)(logits_NC, kind), logits_NC / temperature, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_slope_of_the_loss_is_its_slope(kind: Kind) -> None:
    logits_NC, truth = draw(kind, Scaling(), rows=4)
    wanted_NC = softened(truth, logits_NC.shape, kind)
    slope_NC = shares(logits_NC, kind) - wanted_NC
    for place in np.ndindex(logits_NC.shape):
        moved = np.zeros_like(logits_NC)
        moved[place] = 1e-6
        up, down = (cross_entropy(logits_NC + sign * moved, wanted_NC, kind).sum() for sign in (1, -1))
        assert slope_NC[place] == pytest.approx((up - down) / 2e-6, abs=1e-7)
