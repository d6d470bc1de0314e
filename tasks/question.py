"""What is asked of each text, checked once: a task or labels, a model, and when to keep silent."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from nautile.errors import NautileError
from nautile.model.places import locate
from nautile.tasks.extras import require
from nautile.tasks.files.values import distinct_keys, mended
from nautile.tasks.names import check_labels

DEFAULT_TASK = "sentiment"
TASKS = ("sentiment", "emotion", "intent", "topic")
BASE = "nautile-mini"
PRECISIONS = ("float32", "bfloat16", "int8", "auto")
MOST_PERMUTATIONS = 1_000
FILE = re.compile(r"\.(csv|tsv|tab|jsonl|ndjson|ya?ml|toml|parquet|xlsx?|gz|bz2|xz|md)")
DEVICE = re.compile(r"cpu|auto|cuda(:\d{1,3})?")


@dataclass(frozen=True)
class Policy:
    """When to answer: from a confidence on, or for a share of rows; whether with sets of a stated coverage.

    `detail` says whether every label gets a column of probabilities.
    """

    threshold: float | None = None
    answer_share: float | None = None
    set_coverage: float | None = None
    detail: bool = True

    def __post_init__(self) -> None:
        for name in ("threshold", "answer_share", "set_coverage"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, Real) or not 0 < float(value) < 1:
                raise NautileError(f"{name} must be above 0 and below 1, not {value!r}")
            object.__setattr__(self, name, float(value))
        if self.threshold is not None and self.answer_share is not None:
            raise NautileError("give threshold or answer_share, not both: each sets the confidence to answer from")


@dataclass(frozen=True)
class Question:
    """A built-in task or a model's own labels, or (zero-shot) `labels`, pairs of name and description ("": none).

    `precision` is what the backbone reads in, `device` where.
    """

    task: str | None = None
    model: str | None = None
    labels: tuple[tuple[str, str], ...] | None = None
    multi_label: bool = False
    none_of_these: bool = False
    permutations: int = 1
    policy: Policy = Policy()
    precision: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.task is not None and not isinstance(self.task, str):
            raise NautileError(f"task must be a name, not {self.task!r}; for several tasks use nautile.analyze")
        if self.task == "":
            raise NautileError("task is an empty name; leave it out, or name one")
        if self.task is not None and "," in self.task:
            check_tasks(task.strip() for task in self.task.split(","))
        elif self.task is not None:
            check_task(self.task)
        if self.model == "":
            raise NautileError("model is an empty name; leave it out, or give a folder or a checkpoint")
        check_precision(self.precision)
        check_device(self.device)
        object.__setattr__(self, "permutations", _permutations(self.permutations))
        if self.labels is None:
            extra = ("multi_label", self.multi_label), ("none_of_these", self.none_of_these)
            for name, given in (*extra, ("permutations", self.permutations != 1)):
                if given:
                    raise NautileError(f"{name} goes with labels=…: a head decides such things by itself")
            return
        if self.task is not None:
            raise NautileError(f"give task={self.task!r} or labels=…, not both")
        names = [name for name, _ in self.labels]
        check_labels(names, joined=self.multi_label)
        _check_choice(names, alone=self.none_of_these or self.multi_label)


def check_task(task: Any) -> None:
    """Raise NautileError where it is no built-in task."""
    if task not in TASKS:
        raise NautileError(f"unknown task {task!r}; there are: {', '.join(TASKS)}")


def check_tasks(tasks: Iterable[str]) -> None:
    """Raise NautileError where one is neither a built-in task nor the name of a model."""
    for task in tasks:
        try:
            locate(task)
        except NautileError:
            if "/" in task:  # meant as a path
                raise
            check_task(task)


def _permutations(given: Any) -> int:
    if not isinstance(given, Integral) or isinstance(given, bool) or not 1 <= int(given) <= MOST_PERMUTATIONS:
        raise NautileError(f"permutations must be a whole number from 1 up to {MOST_PERMUTATIONS:,}, not {given!r}")
    return int(given)


def _check_choice(names: Sequence[str], alone: bool) -> None:
    """Raise NautileError where labels cannot be told apart, or leave nothing to choose; one may stand `alone`."""
    from nautile.tasks.zero_shot.labels import NONE, heard

    read = [heard(name) for name in names]
    if "" in read:
        raise NautileError(f"a label holds nothing that can be seen: {names[read.index('')]!r}")
    if twice := [said for said, times in Counter(read).items() if times > 1]:
        raise NautileError(f"labels that read the same cannot be told apart: {', '.join(map(repr, twice[:5]))}")
    if read == [NONE]:
        raise NautileError(f"{names[0]!r} alone leaves nothing to choose: give a label beside it")
    if len(read) < 2 and not alone:
        raise NautileError(
            "one label leaves nothing to choose: add labels, or ask for none_of_these or multi_label as well"
        )


def check_precision(precision: str) -> None:
    """Raise NautileError where it is none of PRECISIONS, or needs an extra that is not installed."""
    if precision not in PRECISIONS:
        raise NautileError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "int8":
        require("int8", "torchao")


def check_device(device: str) -> None:
    """Raise NautileError where it is no name of a device; whether it is there, loading finds out."""
    if not isinstance(device, str) or not DEVICE.fullmatch(device):
        raise NautileError(f"device must be cpu, cuda, cuda:1 and so on, or auto, not {device!r}")


def question(
    task: str | None = None,
    model: str | Path | None = None,
    labels: Iterable[str] | Mapping[str, str] | None = None,
    **options: Any,
) -> Question:
    """A question from what users type: labels as a list, or as names with descriptions.

    Raises:
        NautileError: labels that are one string, a list for each row, or not distinct texts; options that clash.
    """
    return Question(task, None if model is None else str(model), _labels(labels), **options)


def labels_from(given: str) -> list[str] | dict[str, str]:
    """Labels as the command line takes them: comma-separated, or a file of one a line (.txt) or a list or dict (.json).

    Raises:
        NautileError: a file that is missing or holds something else.
    """
    path = Path(given)
    if path.suffix.lower() not in (".json", ".txt"):
        if given.lstrip().startswith(("[", "{")) or ("," not in given and FILE.fullmatch(path.suffix.lower())):
            raise NautileError(f"{given}: give labels with commas between them, or a file of them, .txt or .json")
        if not given.strip():
            raise NautileError("labels is empty; give some with commas between them, or a file of them")
        labels = [label.strip() for label in given.split(",")]
        if "" in labels:
            raise NautileError(f"labels {given!r}: one of them is empty; is there a comma too many, as at the end?")
        return labels
    try:
        content = path.read_text(encoding="utf-8-sig")
        read = partial(json.loads, object_pairs_hook=distinct_keys)
        found = read(content) if path.suffix.lower() == ".json" else list(map(str.strip, content.splitlines()))
    except (OSError, ValueError, RecursionError) as error:
        raise NautileError(f"{given}: cannot be read as a label list ({error})") from None
    if isinstance(found, dict):
        return found
    if not isinstance(found, list):
        raise NautileError(f"{given}: give a list of labels, or an object of labels and descriptions")
    return [label for label in found if not isinstance(label, str) or label.strip()]


def _labels(labels: Any) -> tuple[tuple[str, str], ...] | None:
    if labels is None:
        return None
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise NautileError(f"labels must be a list of texts or a dict of descriptions, not {labels!r}")
    if isinstance(labels, Mapping):
        pairs = [(name, "" if said is None else said) for name, said in labels.items()]
    else:
        pairs = [(name, "") for name in labels]
    if any(isinstance(name, list | tuple | set) for name, _ in pairs):
        raise NautileError(
            "labels holds a list for each row: one label list serves all texts, so call once for each list"
        )
    for name, said in pairs:
        if not isinstance(name, str) or not isinstance(said, str):
            raise NautileError(f"labels and their descriptions must be texts, not {name!r}: {said!r}")
    return tuple((mended(str(name)), mended(str(said)).strip()) for name, said in pairs)  # NumPy's texts are str too
