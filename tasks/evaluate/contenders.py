"""Whatever is measured, a model or a baseline: its labels, its calibration, and how it measures texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nautile.errors import NautileError
from nautile.tasks.calibrate import Array, Calibration, Kind

if TYPE_CHECKING:
    from nautile.tasks.judge import Judge

CHUNK_ROWS = 2048


@dataclass(frozen=True)
class Contender:
    """A name for reports, and `measure`: texts to probabilities (N,C), a column a label."""

    name: str
    labels: tuple[str, ...]
    kind: Kind
    measure: Callable[[Sequence[str]], Array]
    calibration: Calibration | None = None
    out_of_scope: str | None = None

    def measure_all(self, texts: Sequence[str], done: Callable[[int], None] = lambda rows: None) -> Array:
        """(N,C), in parts of 2,048 texts; `done` gets the number of texts of each part."""
        parts = []
        for start in range(0, len(texts), CHUNK_ROWS):
            parts.append(self.measure(texts[start : start + CHUNK_ROWS]))
            done(len(parts[-1]))
        return np.concatenate(parts)


def of_judge(judge: "Judge", name: str) -> Contender:
    """A loaded model as a contender; a judge without a head (zero-shot) has no label for what is out of scope."""
    out_of_scope = getattr(getattr(judge, "head", None), "out_of_scope", None)
    return Contender(name, tuple(judge.labels), judge.kind, judge.measure, judge.calibration, out_of_scope)


def find_contender(
    model: Any, task: str | None = None, labels: Sequence[str] | Mapping[str, str] | None = None
) -> Contender:
    """A model by the name of a built-in task, by folder, or a judge; with `labels` it is asked for those, zero-shot.

    "nautile-mini" stands for the built-in `task`, by default sentiment.

    Raises:
        NautileError: an unknown name, a model without labels, or options that clash.
    """
    if hasattr(model, "measure"):
        if task is not None or labels is not None:
            raise NautileError("a judge has its labels already: give neither task nor labels")
        return of_judge(model, getattr(model, "name", type(model).__name__))
    from nautile.tasks.classify import judge_for
    from nautile.tasks.heads.loading import TASKS
    from nautile.tasks.question import BASE, DEFAULT_TASK, question

    named = str(model)
    if named in TASKS and task is None and labels is None:
        named, task = BASE, named
    if named == BASE and labels is None:
        return of_judge(judge_for(question(task or DEFAULT_TASK)), f"{BASE} {task or DEFAULT_TASK}")
    said = named if labels is None else f"{named}, zero-shot"
    return of_judge(judge_for(question(task, named, labels)), said)


def as_kind(contender: Contender, kind: Kind | None) -> Contender:
    """The same, its labels judged as ordered ("ordinal") or not ("single").

    Raises:
        NautileError: a kind that the model's probabilities cannot be read as.
    """
    if kind is None or kind == contender.kind:
        return contender
    if "multi" in (kind, contender.kind):
        raise NautileError(f"{contender.name} judges as {contender.kind}; it cannot be evaluated as {kind}")
    return replace(contender, kind=kind)


def in_order(contender: Contender, labels: tuple[str, ...]) -> Contender:
    """The same with its labels in another order.

    Raises:
        NautileError: it has other labels.
    """
    if contender.labels == labels:
        return contender
    if set(contender.labels) != set(labels):
        raise NautileError(f"{contender.name} has other labels; ordered ones can only be compared label by label")
    order = [contender.labels.index(label) for label in labels]
    return replace(contender, labels=labels, measure=lambda texts: contender.measure(texts)[:, order])
