"""The rows of a set: read, brought to the model's labels, and sampled the same way each time."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nautile.tasks.backbone.heads.halves import calibrates
from nautile.tasks.bench.sets import BenchSet, Settings
from nautile.tasks.evaluate.rows import renamed, truth_of
from nautile.tasks.labelled import Labelled, read_labelled


class Material(NamedTuple):
    """Rows to measure on, rows to train baselines on, if any, and what was done to both, in words."""

    rows: Labelled
    examples: Labelled | None
    notes: list[str]


def read_set(entry: BenchSet, settings: Settings) -> Material:
    """A set's rows, at most `settings.rows` of them; rows to train on are never sampled.

    Raises:
        NautileError: files that cannot be read, or labels that are not there.
    """
    rows, *training = renamed([read_labelled(path) for path in entry.files(settings.data)], entry.rename)
    notes = list(rows.notes)
    if entry.without is not None:
        rows, note = without(rows, entry.without)
        notes.append(note)
    if entry.halved:
        rows, note = not_calibrated_on(rows)
        notes.append(note)
    total = len(rows.texts)
    places = sample(total, settings.rows, settings.seed)
    if len(places) < total:
        notes.append(f"a random sample of {len(places):,} rows of {total:,}, seed {settings.seed}")
    rows = at(rows, places)
    for examples in training:
        shared = len(set(rows.texts) & set(examples.texts))
        notes.append(f"{len(examples.texts):,} training rows; {shared:,} of the texts measured on are among them")
        notes += [f"training: {note}" for note in examples.notes]
    return Material(rows, training[0] if training else None, notes)


def without(rows: Labelled, label: str) -> tuple[Labelled, str]:
    """The rows of one label a text that have another label than this, which is no longer one, and a note."""
    kept = rows.where(np.array(rows.labels)[rows.truth] != label)
    labels = tuple(other for other in rows.labels if other != label)
    left = len(rows.texts) - len(kept.texts)
    return kept._replace(labels=labels, truth=truth_of(kept, labels)), f"{left:,} rows labelled {label!r} are left out"


def not_calibrated_on(rows: Labelled) -> tuple[Labelled, str]:
    """The rows that no built-in head is calibrated on, and a note."""
    kept = rows.where(np.array([not calibrates(text) for text in rows.texts]))
    return kept, f"{len(rows.texts) - len(kept.texts):,} rows that the head is calibrated on are left out"


def sample(rows: int, most: int, seed: int) -> NDArray[np.int64]:
    """Places of a random sample of at most `most` rows (0: all), in order; smaller samples lie within larger ones."""
    shuffled = np.random.default_rng(seed).permutation(rows)
    return np.sort(shuffled[: most or None])


def at(rows: Labelled, places: NDArray[np.int64]) -> Labelled:
    """The rows at these places; labels stay as they are."""
    return rows._replace(texts=[rows.texts[place] for place in places], truth=rows.truth[places])
