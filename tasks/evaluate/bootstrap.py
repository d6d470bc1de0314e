"""Bootstrap: rows drawn again with replacement, every measure taken of the same draws."""

from collections.abc import Iterator, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from nautile.errors import NautileError
from nautile.tasks.evaluate.measures import Measure
from nautile.tasks.evaluate.results import Estimate
from nautile.tasks.kinds import Array

LEVEL = 0.95
CHUNK = 1_000_000  # weights held at once


def wilson(hits: Any, rows: Any) -> Array:
    """(2,…): the ends of Wilson's 95 % interval of the share of `hits` among `rows`."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle, reach = hits + z**2 / 2, z * np.sqrt(hits * (rows - hits) / rows + z**2 / 4)
    found: Array = np.clip(np.stack([middle - reach, middle + reach]) / (rows + z**2), 0, 1)
    return found


def draws(rows: int, resamples: int, seed: int) -> Iterator[Array]:
    """Weights (R,N) in parts: how often each row was drawn; each resample has as many draws as there are rows."""
    generator = np.random.default_rng(seed)
    step = max(1, CHUNK // rows)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        keys = generator.integers(0, rows, (count, rows)) + np.arange(count)[:, None] * rows
        yield np.bincount(keys.ravel(), minlength=count * rows).reshape(count, rows).astype(float)


def bootstrap(measures: Mapping[str, Measure], rows: int, resamples: int, seed: int) -> dict[str, list[Estimate]]:
    """Each measure's values on the rows as they are, with their 95 % intervals (none for 0 resamples).

    Raises:
        NautileError: no rows, or a negative number of resamples.
    """
    if rows < 1 or resamples < 0:
        raise NautileError(f"{rows} rows, {resamples} resamples: give at least one row and 0 resamples or more")
    plain = {name: measure(np.ones((1, rows)))[0] for name, measure in measures.items()}
    drawn: dict[str, list[Array]] = {name: [] for name in measures}
    for weights_RN in draws(rows, resamples, seed):
        for name, measure in measures.items():
            drawn[name].append(measure(weights_RN))
    return {
        name: [
            interval(float(value), np.concatenate(drawn[name])[:, place] if resamples else np.empty(0))
            for place, value in enumerate(values)
        ]
        for name, values in plain.items()
    }


def interval(value: float, sample_R: Array) -> Estimate:
    """The percentile interval of a resampled figure; resamples in which it is undefined are left out."""
    sample_R = sample_R[~np.isnan(sample_R)]
    if not len(sample_R):
        return Estimate(value=value)
    low, high = np.quantile(sample_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=value, low=float(low), high=float(high))


def calibration_interval(estimate: Estimate, by_chance: Array) -> Estimate:
    """The interval of an error of calibration, from its percentile one and the errors that chance alone makes.

    Noise can only raise such a figure, and a resample adds noise to what is noise already: its percentiles may all lie
    above the value. So they are mirrored at the value (the basic bootstrap), and the interval begins at zero where
    chance explains the value.
    """
    if estimate.low is None or estimate.high is None:
        return estimate
    chance = estimate.value <= np.quantile(by_chance, (1 + LEVEL) / 2)
    low = 0.0 if chance else min(estimate.value, max(0.0, 2 * estimate.value - estimate.high))
    return Estimate(value=estimate.value, low=low, high=max(estimate.value, 2 * estimate.value - estimate.low))
