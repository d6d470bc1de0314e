"""Whatever is measured, a model or a baseline: its labels, its calibration, and how it measures texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nautile.errors import NautileError, first_line
from nautile.tasks.calibrate import Calibration
from nautile.tasks.files.chunks import CHUNK_ROWS
from nautile.tasks.kinds import Array, Kind
from nautile.tasks.labelled import label_name

if TYPE_CHECKING:
    from nautile.tasks.judge import Judge


@dataclass(frozen=True)
class Contender:
    """A name for reports, and `measure`: texts to probabilities (N,C), a column a label.

    Where several labels may be given, the one named `alone` is never given with others.
    """

    name: str
    labels: tuple[str, ...]
    kind: Kind
    measure: Callable[[Sequence[str]], Array]
    calibration: Calibration | None = None
    out_of_scope: str | None = None
    alone: str | None = None

    def measure_all(
        self, texts: Sequence[str], done: Callable[[int], None] = lambda rows: None, chunk: int = CHUNK_ROWS
    ) -> Array:
        """(N,C), in parts of `chunk` texts; `done` gets the number of texts of each part."""
        parts = []
        for start in range(0, len(texts), chunk):
            parts.append(self.measure(texts[start : start + chunk]))
            done(len(parts[-1]))
        return np.concatenate(parts)


def of_judge(judge: "Judge", name: str) -> Contender:
    """A loaded model as a contender; a judge without a head (zero-shot) has no label for what is out of scope."""
    out_of_scope = getattr(getattr(judge, "head", None), "out_of_scope", None)
    place = getattr(judge, "alone", None)
    alone = None if place is None else judge.labels[place]
    return Contender(name, tuple(judge.labels), judge.kind, judge.measure, judge.calibration, out_of_scope, alone)


def of_estimator(model: Any) -> Contender:
    """A fitted estimator of texts: `Classifier`, or a scikit-learn pipeline that begins with its vectoriser.

    Raises:
        NautileError: it is not fitted, or no estimator with probabilities at all.
    """
    name = type(model).__name__
    if not hasattr(model, "predict_proba") or not hasattr(model, "classes_"):
        known = "a task's name, a folder, a judge, or a fitted estimator with predict_proba and classes_"
        unfitted = hasattr(model, "fit") and not hasattr(model, "classes_")
        raise NautileError(f"the model must be {known}, not {name}" + "; fit it first" * unfitted)
    labels = tuple(label_name(label) for label in np.asarray(model.classes_).tolist())
    inner = _innermost(model)
    several = getattr(inner, "multi_label", False) or getattr(inner, "multilabel_", False)
    calibration = getattr(inner, "calibration_", None)

    def measure(texts: Sequence[str]) -> Array:
        try:
            found = np.asarray(model.predict_proba(list(texts)), dtype=float)
        except NautileError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            reason = first_line(error)
            raise NautileError(f"{name}: predict_proba takes no list of texts ({reason})") from None
        if found.shape != (len(texts), len(labels)):
            raise NautileError(f"{name}: predict_proba gives the shape {found.shape} for {len(labels)} classes_")
        return found

    kept = calibration if isinstance(calibration, Calibration) else None
    return Contender(name, labels, "multi" if several else "single", measure, kept)


def _innermost(model: Any) -> Any:
    """What a search has chosen, and a pipeline ends with: they do not say what that knows of itself."""
    while hasattr(model, "best_estimator_") or hasattr(model, "steps"):
        model = model.best_estimator_ if hasattr(model, "best_estimator_") else model.steps[-1][1]
    return model


def find_contender(
    model: Any,
    task: str | None = None,
    labels: Sequence[str] | Mapping[str, str] | None = None,
    precision: str = "float32",
    device: str = "cpu",
) -> Contender:
    """A model by the name of a built-in task or by folder, a judge, or a fitted estimator.

    With `labels` it is asked for those, zero-shot. "nautile-mini" stands for the built-in `task`, by default sentiment.
    A `precision` other than float32 stands in its name.

    Raises:
        NautileError: an unknown name or precision, a model without labels, or options that clash.
    """
    if not isinstance(model, str | Path):
        if task is not None or labels is not None:
            raise NautileError(f"a {type(model).__name__} has its labels already: give neither task nor labels")
        if (precision, device) != ("float32", "cpu"):
            raise NautileError(
                f"a {type(model).__name__} is loaded already: precision and device go with a model's name"
            )
        if hasattr(model, "measure"):
            return of_judge(model, getattr(model, "name", type(model).__name__))
        return of_estimator(model)
    from nautile.tasks.classify import judge_for
    from nautile.tasks.question import BASE, DEFAULT_TASK, TASKS, question

    named = str(model)
    if not named:
        raise NautileError("a model has an empty name; give a task, a folder or a checkpoint")
    if named in TASKS:
        if labels is not None:
            raise NautileError(f"labels go with a model such as {BASE}; {named} is a task with labels of its own")
        if task not in (None, named):
            raise NautileError(f"{named} is a task already: give {BASE} as the model, or leave task out")
        named, task = BASE, named
    if named == BASE and labels is None:
        task = DEFAULT_TASK if task is None else task
        asked, said = question(task, precision=precision, device=device), f"{BASE} {task}"
    else:
        asked, said = question(task, named, labels, precision=precision, device=device), named
    notes = ["zero-shot"] * (labels is not None) + [precision] * (precision != "float32")
    return of_judge(judge_for(asked), ", ".join([said, *notes]))


def as_kind(contender: Contender, kind: Kind | None) -> Contender:
    """The same, its labels judged as ordered ("ordinal") or not ("single"); numbers are ordered by their value.

    Raises:
        NautileError: a kind that the model's probabilities cannot be read as.
    """
    if kind is None or kind == contender.kind:
        return contender
    if "multi" in (kind, contender.kind):
        raise NautileError(f"{contender.name} judges as {contender.kind}; it cannot be evaluated as {kind}")
    contender = replace(contender, kind=kind)
    try:
        return in_order(contender, tuple(sorted(contender.labels, key=float)))
    except ValueError:  # names, whose order is the model's
        return contender


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
