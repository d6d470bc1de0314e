"""`analyze`: several judgments of the same texts; those that share a backbone read each text once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from nautile.engine.reader import Reader, Vectors
from nautile.errors import NautileError
from nautile.tasks.decide import decide
from nautile.tasks.frames import judged_frame
from nautile.tasks.heads.head import Head
from nautile.tasks.heads.loading import load_judging, load_task
from nautile.tasks.judge import calibrated
from nautile.tasks.question import TASKS, Policy, check_tasks
from nautile.tasks.row_judge import Finished, RowJudge


class Panel(RowJudge):
    """Several heads, each with columns that begin with its name."""

    def __init__(self, heads: dict[str, tuple[Reader, Head]], detail: bool) -> None:
        self.heads, self.detail = heads, detail
        names = [*self._names(), "windows", "note"]
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise NautileError(f"two columns would be named {twice[0]!r}: rename the folder of a fine-tuned model")

    def _names(self) -> Iterator[str]:
        for name, (_, head) in self.heads.items():
            yield from (name, f"{name}_confidence")
            yield from (f"{name}_{label}" for label in head.labels if self.detail)

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """NAME and NAME_confidence of each head, with `detail` NAME_LABEL as well; then windows and note."""
        labels = set(self.heads)
        columns = {name: pa.string() if name in labels else pa.float64() for name in self._names()}
        return {**columns, "windows": pa.int64(), "note": pa.string()}

    @property
    def main(self) -> tuple[str, str]:
        """Those of the first head."""
        name = next(iter(self.heads))
        return name, f"{name}_confidence"

    @property
    def remark(self) -> str:
        """How far each head's probabilities can be trusted."""
        return "; ".join(f"{name}: {calibrated(head.calibration)}" for name, (_, head) in self.heads.items())

    def read(self, texts: Sequence[str], finished: Finished) -> dict[str, list[Any]]:
        """Read the texts once a backbone, then apply the heads."""
        readers = list({id(reader): reader for reader, _ in self.heads.values()}.values())
        read: dict[int, Vectors] = {}
        for reader in readers:
            words = any(head.words_SC is not None for other, head in self.heads.values() if other is reader)
            told = finished if reader is readers[-1] else lambda index: None
            read[id(reader)] = reader(texts, finished=told, words=words)
        result: dict[str, list[Any]] = {"windows": read[id(readers[-1])].windows}
        notes: list[list[str]] = [[] for _ in texts]
        for name, (reader, head) in self.heads.items():
            found = head.probabilities(read[id(reader)].vectors_ND, read[id(reader)].words_NS)
            decided = decide(found, head.labels, head.kind, head.calibration, Policy())
            for said, note in zip(notes, decided.note, strict=True):
                said += [f"{name}: {note}"] if note else []
            result |= {name: decided.label, f"{name}_confidence": decided.confidence}
            result |= {f"{name}_{label}": found[:, n].tolist() for n, label in enumerate(head.labels)}
        return {**result, "note": ["; ".join(said) for said in notes]}


def analyze(
    texts: Any,
    column: str | None = None,
    *,
    tasks: Sequence[str | Path] = TASKS,
    detail: bool = False,
    precision: str = "float32",
    device: str = "cpu",
    progress: bool | None = None,
) -> pd.DataFrame:
    """Judge each text in several respects.

    Args:
        texts: one string, any iterable of strings, a Series, or a DataFrame with `column`.
        column: the DataFrame's column that holds the texts.
        tasks: built-in tasks ("sentiment", "emotion", "intent", "topic") and folders of fine-tuned models, which
            give their folder's name to their columns. Tasks on one backbone read each text once.
        detail: also a probability column a label.
        precision, device: see `classify`.
        progress: show a bar; by default from 1,000 texts on, where standard error is a terminal.

    Returns:
        A DataFrame on the input's index: for each task its label and NAME_confidence, then `windows` and `note`.

    Raises:
        NautileError: an unknown task, model or column, or two tasks of one name.
    """
    return judged_frame(load_panel(tasks, detail, precision, device), texts, column, progress)


def load_panel(
    tasks: Sequence[str | Path], detail: bool = False, precision: str = "float32", device: str = "cpu"
) -> Panel:
    """The panel of built-in tasks and fine-tuned folders; raises NautileError as `analyze` does."""
    if isinstance(tasks, str | Path) or not isinstance(tasks, Sequence):
        raise NautileError(f"tasks must be a list, such as ['sentiment'], not {tasks!r}")
    if odd := [task for task in tasks if not isinstance(task, str | Path)]:
        raise NautileError(f"tasks must be names or folders, not {odd[0]!r}")
    if nameless := [task for task in tasks if not Path(task).name]:
        raise NautileError(f"tasks must have names, not {str(nameless[0])!r}")
    check_tasks(task for task in tasks if isinstance(task, str))
    where = precision, device
    heads = {
        Path(task).name: load_task(str(task), *where) if task in TASKS else load_judging(task, *where) for task in tasks
    }
    if len(heads) < len(tasks) or not heads:
        raise NautileError("tasks must name at least one task, and no two of one name")
    return Panel(heads, detail)
