"""What a job shows on a terminal: how far it is, and its first rows as a table."""

import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from nautile.tasks.files.chunks import Chunk
from nautile.tasks.files.tally import Tally
from nautile.tasks.files.values import as_text
from nautile.tasks.files.writers import Results

_STYLES = {"positive": "green", "negative": "red", "neutral": "yellow"}


class Meter:
    """A progress bar with rows/s, a `Watcher` for jobs; without `visible` it only counts."""

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


class Preview:
    """The first rows of a job, as a table."""

    def __init__(self, column: str, prefix: str, most: int = 20) -> None:
        self._column, self._prefix, self._most = column, prefix, most
        self._rows: list[tuple[str, str, str, str]] = []

    def add(self, chunk: Chunk, results: Results) -> None:
        """Take rows of the chunk while there is room."""
        room = self._most - len(self._rows)
        if room <= 0:
            return
        texts = [as_text(cell) for cell in chunk.values(self._column)[:room]]
        labels, confidences, notes = (results[self._prefix + name] for name in ("label", "confidence", "note"))
        for text, label, confidence, note in zip(texts, labels, confidences, notes, strict=False):
            share = f"{confidence:.2f}" if isinstance(confidence, float) else ""
            self._rows.append((text, as_text(label), share, as_text(note)))

    def show(self, console: Console, tally: Tally) -> None:
        """Print the rows, how many more there are, and the rows of each label."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column(_visible(self._column), no_wrap=True, overflow="ellipsis", ratio=1)
        for name in ("label", "confidence", "note"):
            table.add_column(name, no_wrap=True, justify="right" if name == "confidence" else "left")
        for text, label, confidence, note in self._rows:
            table.add_row(_visible(text), Text(label, _STYLES.get(label, "")), confidence, _visible(note))
        console.print(table)
        if tally.rows > len(self._rows):
            console.print(f"... and {tally.rows - len(self._rows):,} rows more; pass --output to keep them all")
        console.print(_counts(tally.labels, tally.rows))


def _counts(labels: Counter[str], rows: int) -> Text:
    line = Text()
    for label, count in labels.most_common():
        line.append(f"{label} ", _STYLES.get(label, ""))
        line.append(f"{count:,} ({count / rows:.0%})  ")
    return line


def _visible(text: str, most: int = 500) -> Text:
    return Text("".join(char if char.isprintable() else " " for char in text[:most]))
