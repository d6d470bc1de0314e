"""Which rows to train on and which to validate on: by label, by seed, and never the same text on both sides."""

from typing import NamedTuple

import numpy as np

from nautile.errors import NautileError
from nautile.tasks.calibrate import FEWEST_ROWS, rarest
from nautile.tasks.labelled import Labelled
from nautile.tasks.wording import counted, few

USUAL_SHARE = 0.1
ENOUGH_TEXTS = 60


class Split(NamedTuple):
    """Rows to train on and to validate on, and what is to be said about them."""

    train: Labelled
    valid: Labelled
    notes: list[str]


def split_rows(data: Labelled, share: float | None, seed: int) -> Split:
    """Keep back about `share` of the rows, in proportion to the labels; the same for the same rows and seed.

    By default a tenth; of 60 to 200 texts 20, as many as a calibration takes, if their labels leave enough to train on.

    Rows with the same text stay together, under the label of the first of them; of each label that comes first so, one
    text stays in training. For "multi" the rarest label of a row counts as its label.
    """
    strata = _strata(data)
    first: dict[str, int] = {}
    groups = np.array([first.setdefault(text, n) for n, text in enumerate(data.texts)])
    distinct = np.flatnonzero(groups == np.arange(len(groups)))
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(distinct[strata[distinct] == label]) for label in np.unique(strata)]
    spare = np.concatenate([rows[1:] for rows in shuffled])
    wanted = _usual_share(len(distinct), len(spare)) if share is None else share
    steps = rng.random() + np.arange(len(spare) + 1) * min(1.0, wanted * len(distinct) / max(1, len(spare)))
    held = np.zeros(len(groups), dtype=bool)
    held[spare[np.floor(steps[1:]) > np.floor(steps[:-1])]] = True
    alone = sum(len(rows) == 1 for rows in shuffled)
    notes = _notes(data, held, alone, wanted)
    if share is None and wanted > USUAL_SHARE:
        kept = f"{held.sum()} of {len(distinct)} texts are kept back"
        notes.insert(0, f"{kept}, more than the usual tenth, to calibrate the probabilities")
    return Split(data.where(~held[groups]), data.where(held[groups]), notes)


def given_split(train: Labelled, valid: Labelled) -> Split:
    """Rows that the user has split; a text that stands on both sides is left out of training."""
    seen = set(valid.texts)
    keep = np.array([text not in seen for text in train.texts])
    left = counted(int((~keep).sum()), "row")
    notes = [] if keep.all() else [f"not trained on: {left} with a text of the validation rows"]
    if not keep.any():
        raise NautileError("every text of the data also stands in the validation rows; nothing is left to train on")
    if lost := sorted(_labels_of(train) - _labels_of(train.where(keep))):
        notes.append(f"no row is left to learn {few(lost)} from")
    return Split(train.where(keep), valid, [*(f"validation: {note}" for note in valid.notes), *notes])


def _labels_of(rows: Labelled) -> set[str]:
    """The labels that rows have."""
    index = np.flatnonzero(rows.truth.any(axis=0)) if rows.kind == "multi" else np.unique(rows.truth)
    return {rows.labels[n] for n in index}


def _usual_share(texts: int, spare: int) -> float:
    """The share to keep back where none is given; `spare` of the texts may be kept back."""
    if texts < ENOUGH_TEXTS or spare < 2 * FEWEST_ROWS:
        return USUAL_SHARE
    return max(USUAL_SHARE, (FEWEST_ROWS + 0.5) / texts)  # half a row more, so that rounding leaves 20


def _strata(data: Labelled) -> np.ndarray:
    """(N): each row's label; for "multi" its rarest one, -1 where it has none."""
    return rarest(data.truth) if data.kind == "multi" else data.truth


def _notes(data: Labelled, held: np.ndarray, alone: int, share: float) -> list[str]:
    notes = []
    if alone and share:
        notes.append(f"not validated: {counted(alone, 'label')} with a single text, which stays in training")
    truths: dict[str, set[bytes]] = {}
    for text, truth in zip(data.texts, data.truth, strict=True):
        truths.setdefault(text, set()).add(truth.tobytes())
    if odd := sum(len(found) > 1 for found in truths.values()):
        notes.append(f"{counted(odd, 'text')} more than once there, with different labels")
    if share and not held.any():
        notes.append("too few rows to keep any back: nothing is validated")
    return notes
