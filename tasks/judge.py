"""A model with a head, applied to any list of texts: every row keeps its place, none is cut without a word."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from nautile.engine.batching import batches, pad_right, windows
from nautile.errors import NautileError
from nautile.model.checkpoints import load, vocabulary_of
from nautile.model.heads import NautileForSequenceClassification

WINDOW_TOKENS = 128
BATCH_TOKENS = 1024  # small enough for the cache, and for the heap to stay whole over millions of rows
RESERVED = {"label", "confidence", "windows", "note"}
TASKS = {"sentiment": "nautile-mini"}


# Anything but white space, controls and format characters such as the zero-width space and the byte order mark.
VISIBLE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff]")


class Reading(NamedTuple):
    """What can be said of one row before the model reads it: its text, or why there is none."""

    text: str | None
    note: str


def read_cell(value: Any) -> Reading:
    """The text of a cell; None, NaN, empty text and what is not text are told apart."""
    if isinstance(value, str):
        return Reading(value, "") if VISIBLE.search(value) else Reading(None, "empty text")
    if (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, float | np.floating) and value != value)
    ):
        return Reading(None, "missing")
    return Reading(None, f"not text: {type(value).__name__}")


class Judge:
    """Label texts with a sequence classification head.

    Texts of more than `window` tokens are read in even windows; their probabilities are averaged, weighted by length.
    """

    def __init__(
        self, model: NautileForSequenceClassification, window: int = WINDOW_TOKENS, batch_tokens: int = BATCH_TOKENS
    ) -> None:
        self.model = model.eval()
        self.window, self.batch_tokens = window, batch_tokens
        self.vocabulary = vocabulary_of(model.config)
        self.labels: list[str] = [model.config.id2label[n] for n in range(model.config.num_labels)]
        if clash := sorted(RESERVED & set(self.labels)) or len(set(self.labels)) < len(self.labels):
            raise NautileError(f"labels must be distinct and none of {', '.join(sorted(RESERVED))}: {clash}")

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The result's columns, in order, and their types."""
        probabilities = dict.fromkeys(self.labels, pa.float64())
        ends = {"windows": pa.int64(), "note": pa.string()}
        return {"label": pa.string(), "confidence": pa.float64(), **probabilities, **ends}

    def __call__(
        self, texts: Sequence[Any], progress: Callable[[int], None] = lambda rows: None
    ) -> dict[str, list[Any]]:
        """The columns of the result, as long as `texts` and in their order; the same for the same list.

        `progress` is called with the number of rows finished since the last call.
        """
        readings = [read_cell(value) for value in texts]
        distinct = list(dict.fromkeys(reading.text for reading in readings if reading.text is not None))
        progress(sum(reading.text is None for reading in readings))
        rows_of = dict.fromkeys(distinct, 0)
        for reading in readings:
            if reading.text is not None:
                rows_of[reading.text] += 1
        judged = self._judge(distinct, lambda index: progress(rows_of[distinct[index]]))
        found = dict(zip(distinct, judged, strict=True))
        return self._columns([(r.note, *found[r.text]) if r.text is not None else (r.note, None, 0) for r in readings])

    def _judge(self, texts: list[str], finished: Callable[[int], None]) -> list[tuple[list[float], int]]:
        """Probabilities and number of windows of each text."""
        ids = self.vocabulary.encode_batch(texts)
        spans = [(text, part) for text, row in enumerate(ids) for part in windows(len(row), self.window)]
        left = [len(windows(len(row), self.window)) for row in ids]
        counts = list(left)
        total = torch.zeros(len(texts), len(self.labels), dtype=torch.float64)
        for group in batches([end - start for _, (start, end) in spans], self.batch_tokens):
            rows = [ids[spans[index][0]][slice(*spans[index][1])] for index in group]
            weighted = self._probabilities(rows) * torch.tensor([[len(row)] for row in rows])
            for index, probabilities in zip(group, weighted, strict=True):
                text = spans[index][0]
                total[text] += probabilities
                left[text] -= 1
                if not left[text]:
                    finished(text)
        total /= total.sum(1, keepdim=True)
        return list(zip(total.tolist(), counts, strict=True))

    @torch.inference_mode()
    def _probabilities(self, rows: list[list[int]]) -> Tensor:
        ids, mask = pad_right(rows)
        device = self.model.device
        logits = self.model(ids.to(device), mask.to(device)).logits
        return logits.double().softmax(-1).cpu()

    def _columns(self, rows: list[tuple[str, list[float] | None, int]]) -> dict[str, list[Any]]:
        result: dict[str, list[Any]] = {name: [] for name in self.columns}
        for note, probabilities, count in rows:
            best = None if probabilities is None else max(range(len(self.labels)), key=probabilities.__getitem__)
            result["label"].append(None if best is None else self.labels[best])
            result["confidence"].append(None if best is None or probabilities is None else probabilities[best])
            for n, label in enumerate(self.labels):
                result[label].append(None if probabilities is None else probabilities[n])
            result["windows"].append(count)
            result["note"].append(note)
        return result


def load_judge(task: str = "sentiment", model: str | Path | None = None, threads: int | None = None) -> Judge:
    """The judge of a built-in task, or of a checkpoint with a sequence classification head.

    Raises:
        NautileError: an unknown task or model, or a model without such a head.
    """
    if not isinstance(task, str) or task not in TASKS:
        raise NautileError(f"unknown task {task!r}; there are: {', '.join(TASKS)}")
    if threads is not None:
        if threads < 1:
            raise NautileError(f"threads must be at least 1, not {threads}")
        torch.set_num_threads(threads)
    loaded = load(TASKS[task] if model is None else model)
    if not isinstance(loaded, NautileForSequenceClassification):
        raise NautileError(
            f"{model}: a {type(loaded).__name__} has no labels; give a sequence classification checkpoint"
        )
    return Judge(loaded)
