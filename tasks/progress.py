"""How far long work is: one bar on standard error, with rows a second."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Meter:
    """A progress bar with rows/s; without `visible` it only counts. File jobs use it as their `Watcher`."""

    def __init__(self, visible: bool) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not visible,
            transient=True,
        )
        self._task = self._bar.add_task("checking the input", total=None, speed="")
        self._judged = 0
        self._start = time.monotonic()
        self._seconds: float | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._seconds = time.monotonic() - self._start

    @property
    def rate(self) -> float:
        """Rows judged a second since judging began; rows kept from before a resume don't count."""
        seconds = time.monotonic() - self._start if self._seconds is None else self._seconds
        return self._judged / max(seconds, 1e-9)

    def check(self, rows: int) -> None:
        """So many more rows of the input have been found to be in order."""
        self._bar.advance(self._task, rows)

    def begin(self, total: int | None) -> None:
        """Judging begins; `total` rows, where they could be counted."""
        self._bar.reset(self._task, description="classifying", total=total)
        self._start = time.monotonic()

    def advance(self, rows: int, judged: bool) -> None:
        """So many more rows are done, judged now or (when False) before the job was resumed."""
        self._judged += rows if judged else 0
        self._bar.update(self._task, advance=rows, speed=f"{self.rate:,.0f} rows/s")
