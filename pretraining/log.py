"""What a run tells: `metrics.jsonl`, one JSON object a line, and a progress bar."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nautile.pretraining.data import SourceReport

METRICS = "metrics.jsonl"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run; a last line that a kill cut off is left out."""
    path = folder / METRICS
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class Window:
    """The steps between two reports: their mean loss, and their speed without compiling, evaluation and saving."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._norm = 0.0
        self._timed = -1  # the first step is the one that is compiled
        self._since = time.monotonic()

    def add(self, loss: float, norm: float) -> None:
        """One more step."""
        self._losses.append(loss)
        self._norm = norm
        self._timed += 1
        if self._timed == 0:
            self._since = time.monotonic()

    def restart(self) -> None:
        """Something else took time: the clock starts anew."""
        self._timed, self._since = min(self._timed, 0), time.monotonic()

    def close(self) -> tuple[float, float, float | None]:
        """Mean loss, the last gradient norm, and steps a second, None where no step was timed; starts a new window."""
        mean = sum(self._losses) / len(self._losses)
        seconds = time.monotonic() - self._since
        speed = self._timed / seconds if self._timed > 0 else None
        self._losses.clear()
        self.restart()
        return mean, self._norm, speed


class Log:
    """Keeps the records of a run from `step` on; those of steps that will be made again are dropped first.

    Of several processes only the first one writes and shows (`active`).
    """

    def __init__(self, folder: Path, step: int, total: int, active: bool = True, visible: bool = True) -> None:
        self._path, self._active = folder / METRICS, active
        self._console = Console(stderr=True)
        self._corrupt: set[str] = set()
        shown = active and visible
        self._say = shown
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (shown and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task("pretraining", total=total, completed=step, figures="")
        if active:
            kept = [json.dumps(record) + "\n" for record in read_metrics(folder) if 0 < step >= record["step"]]
            partial = self._path.with_suffix(".partial")
            partial.write_text("".join(kept), encoding="utf-8")
            partial.replace(self._path)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        """So many steps are done."""
        self._bar.update(self._task, completed=step)

    def train(self, record: dict[str, Any]) -> None:
        """Keep and show the figures of some steps."""
        self._write({"kind": "train", **record})
        figures = [f"loss {record['loss']:.3f}"]
        if record["tokens_per_second"]:
            figures.append(f"{record['tokens_per_second']:,.0f} tokens/s")
        if record["mfu"]:
            figures.append(f"MFU {record['mfu']:.1%}")
        self._bar.update(self._task, description=record["stage"], figures=" · ".join(figures))

    def evaluation(self, records: list[dict[str, Any]]) -> None:
        """Keep the held-out figures of each source, and show the last, which is their mixture's."""
        for record in records:
            self._write({"kind": "evaluation", **record})
        last = records[-1]
        self.say(f"step {last['step']:,}  held out: {last['bits_per_byte']:.4f} bits/byte, loss {last['loss']:.4f}")

    def data(self, step: int, stage: str, read: Mapping[str, SourceReport]) -> None:
        """Keep what was read of each source, and name what has been passed over as corrupt since the last time."""
        self._write({"kind": "data", "step": step, "stage": stage, "sources": {k: asdict(v) for k, v in read.items()}})
        for source, found in read.items():
            self.passed_over(source, found.corrupt)

    def passed_over(self, source: str, places: Sequence[str]) -> None:
        """Name the corrupt rows and files of a source that have not been named yet."""
        if new := [place for place in places if place not in self._corrupt]:
            self._corrupt.update(new)
            named = ", ".join(new[:3]) + (", …" if len(new) > 3 else "")
            self.say(f"{source}: passed over as corrupt, {len(places)} in all: {named}")

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Keep and show how the model continues a prompt."""
        self._write({"kind": "sample", "step": step, "prompt": prompt, "text": text})
        self.say(f"step {step:,}  {prompt!r} → {text!r}")

    def say(self, line: str) -> None:
        """A line for the eye, on standard error."""
        if self._say:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _write(self, record: dict[str, Any]) -> None:
        if self._active:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
