"""One run: what was asked for, and what has been found so far."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from nautile.engine.processor import find_device
from nautile.tasks.bench.speed.memory import peak_growth
from nautile.tasks.bench.speed.results import Figure, Ratio, Roof
from nautile.tasks.bench.speed.roofline import Roofline
from nautile.tasks.bench.speed.timing import Spread, Timing, clock_of, measure, ratio

PEAK = "MB at the peak"


@dataclass(frozen=True)
class Settings:
    """What was asked for; no names stand for all benchmarks, `rows` is the length of the file that is classified."""

    names: tuple[str, ...] = ()
    threads: int | None = None
    repeats: int = 5
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    tiny: bool = False
    rows: int = 20_000
    output: Path | None = None
    device: str = "cpu"


class Case(NamedTuple):
    """What contenders are compared in; figures are units a second, or with `cost` milliseconds a unit."""

    benchmark: str
    name: str
    dtype: str
    unit: str
    cost: bool = False

    @property
    def title(self) -> str:
        """The name with the type of the numbers."""
        return f"{self.name}, {self.dtype}"

    @property
    def measure(self) -> str:
        """The unit of the figures."""
        return f"ms a {self.unit}" if self.cost else f"{self.unit}s/s"

    def value(self, seconds: float, units: float) -> float:
        """The figure of one call."""
        return 1000 * seconds / units if self.cost else units / seconds


class Work(NamedTuple):
    """What one call of a contender does: how many units, and the FLOPs and bytes that it needs at the least.

    `held` are the bytes of its model's weights, embeddings and all, where they are told.
    """

    run: Callable[[], object]
    units: float
    flops: float
    read: float = 0
    held: float = 0


@dataclass
class Session:
    """Benchmarks measure through it, and leave their findings here; `tell` hears what is measured next."""

    settings: Settings
    tell: Callable[[str], None] = lambda line: None
    figures: list[Figure] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = find_device(self.settings.device)

    def compare(self, case: Case, works: Mapping[str, Work], pairs: Iterable[tuple[str, str]]) -> dict[str, Timing]:
        """Time the contenders of a case in turn; note their figures, and the ratios of `pairs` of them."""
        self.tell(f"{case.benchmark}: {case.title}")
        roofline = Roofline(getattr(torch, case.dtype), self.settings.tiny, self.device)
        runs = {name: work.run for name, work in works.items()}
        timings = measure({**runs, **roofline.probes}, self.settings.repeats, clock_of(self.device))
        values = {}
        for name, work in works.items():
            seconds = timings[name].seconds
            values[name] = [case.value(one, work.units) for one in seconds]
            roof = roofline.roof(timings, seconds, work.flops, work.read)
            self._note_figure(case, case.measure, name, Spread.of(values[name]), roof)
        for of, against in pairs:
            self.note_ratio(case, case.measure, of, against, ratio(values[of], values[against]))
        return timings

    def compare_sizes(
        self, case: Case, unit: str, sizes: Mapping[str, float], pairs: Iterable[tuple[str, str]]
    ) -> None:
        """Note sizes of contenders, which have no spread, and their ratios."""
        for name, size in sizes.items():
            self._note_figure(case, unit, name, Spread.of([size]))
        for of, against in pairs:
            self.note_ratio(case, unit, of, against, ratio([sizes[of]], [sizes[against]]))

    def compare_peaks(self, case: Case, works: Mapping[str, Work], pairs: Iterable[tuple[str, str]]) -> None:
        """Run the contenders once more and note how far each raises the memory in use."""
        peaks = {name: peak_growth(work.run, self.device) for name, work in works.items()}
        known = {name: peak for name, peak in peaks.items() if peak is not None}
        if len(known) < len(peaks):
            self.notes.append(f"{case.benchmark}: no peak memory, which only Linux tells")
            return
        told = [pair for pair in pairs if all(known[name] > 0 for name in pair)]  # less than a page is 0
        self.compare_sizes(case, PEAK, known, told)

    def note_ratio(self, case: Case, unit: str, of: str, against: str, value: Spread) -> None:
        """Note a ratio of two figures in `unit`."""
        self.ratios.append(
            Ratio(benchmark=case.benchmark, case=case.title, unit=unit, of=of, against=against, value=value)
        )

    def _note_figure(self, case: Case, unit: str, contender: str, value: Spread, roof: Roof | None = None) -> None:
        self.figures.append(
            Figure(benchmark=case.benchmark, case=case.title, contender=contender, unit=unit, value=value, roof=roof)
        )
