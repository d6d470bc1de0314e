"""Contenders timed in turn, round by round, so that what slows the machine for a while slows them all."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from nautile.tasks.evaluate.results import Result


class Spread(Result):
    """The median of some values, and the quartiles that half of them lie between."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of one value or more."""
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        return cls(median=median, low=low, high=high)


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender, a round each."""

    seconds: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        """Over the rounds."""
        return Spread.of(self.seconds)


def clock_of(device: torch.device) -> Callable[[], float]:
    """Tells seconds, once the device has done all that was asked of it."""
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def measure(
    contenders: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timing]:
    """Run each contender once to warm up, then all of them in turn, `repeats` times."""
    for run in contenders.values():
        run()
    rounds = [{name: _seconds(run, clock) for name, run in contenders.items()} for _ in range(repeats)]
    return {name: Timing(tuple(found[name] for found in rounds)) for name in contenders}


def ratio(of: Sequence[float], against: Sequence[float]) -> Spread:
    """How many times `against` one contender's values are, each compared with the other's of the same round."""
    return Spread.of([mine / theirs for mine, theirs in zip(of, against, strict=True)])


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start
