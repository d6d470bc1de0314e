"""Labelled rows brought to a model's labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nautile.errors import NautileError
from nautile.tasks.evaluate.contenders import Contender
from nautile.tasks.evaluate.measures import Decisions
from nautile.tasks.evaluate.scores import Judged
from nautile.tasks.kinds import Array
from nautile.tasks.labelled import Labelled, label_name
from nautile.tasks.wording import counted, few


def renamed(sets: Sequence[Labelled], names: Mapping[Any, Any]) -> list[Labelled]:
    """Several sets of rows with labels renamed; labels of one new name become one.

    Raises:
        NautileError: a name that no label of any set has.
    """
    if odd := [name for name in (*names, *names.values()) if not isinstance(name, str | Real | np.bool_)]:
        raise NautileError(f"rename takes labels, texts or whole numbers, not {odd[0]!r}")
    pairs = {label_name(old): label_name(new) for old, new in names.items()}
    there = list(dict.fromkeys(label for rows in sets for label in rows.labels))
    if absent := [name for name in pairs if name not in there]:
        raise NautileError(f"no label of the data is named {absent[0]!r}; there are {few(there)}")
    return [_renamed(rows, pairs) for rows in sets]


def _renamed(rows: Labelled, names: Mapping[str, str]) -> Labelled:
    new = [names.get(label, label) for label in rows.labels]
    labels = tuple(dict.fromkeys(new))
    place = np.array([labels.index(label) for label in new])
    if rows.kind != "multi":
        return rows._replace(labels=labels, truth=place[rows.truth])
    truth = np.stack([rows.truth[:, place == n].any(axis=1) for n in range(len(labels))], axis=1)
    return rows._replace(labels=labels, truth=truth)


def known_rows(rows: Labelled, labels: Sequence[str]) -> NDArray[np.bool_]:
    """(N): whether the row carries known labels only."""
    known = np.isin(rows.labels, labels)
    found = ~(rows.truth & ~known).any(axis=1) if rows.kind == "multi" else known[rows.truth]
    return np.asarray(found)


def keep_known(rows: Labelled, contenders: Sequence[Contender], ignore_unknown: bool) -> tuple[Labelled, list[str]]:
    """The rows whose labels every contender knows, and notes on what was left out.

    Raises:
        NautileError: there are others, and they are not to be ignored; or none is left.
    """
    notes = []
    for contender in contenders:
        kept_N = known_rows(rows, contender.labels)
        if kept_N.all():
            continue
        told = _unknown(rows, contender)
        if not ignore_unknown:
            raise NautileError(
                f"{told}; it knows {few(contender.labels)}: rename them with --rename OLD=NEW, "
                "or leave those rows out with --ignore-unknown"
            )
        rows = rows.where(kept_N)
        notes.append(f"{counted(int((~kept_N).sum()), 'row')} left out: {told}")
    if not rows.texts:
        raise NautileError("no row has a label that the model knows: look at the column of labels")
    return rows, notes


def truth_of(rows: Labelled, labels: Sequence[str]) -> Decisions:
    """The rows' truth as indices into `labels`, for "multi" (N,C) booleans; all labels that rows carry are known."""
    place = {label: n for n, label in enumerate(labels)}
    if rows.kind != "multi":
        of_data = np.array([place.get(label, -1) for label in rows.labels])
        found: Decisions = of_data[rows.truth]
        return found
    truth = np.zeros((len(rows.texts), len(labels)), dtype=bool)
    for column, label in zip(rows.truth.T, rows.labels, strict=True):
        if label in place:
            truth[:, place[label]] = column
    return truth


def ordered(rows: Labelled, labels: tuple[str, ...]) -> Labelled:
    """The rows with a model's ordered labels.

    Raises:
        NautileError: rows that carry other labels.
    """
    if not (known := known_rows(rows, labels)).all():
        others = {rows.labels[n] for n in np.unique(rows.truth[~known])}
        raise NautileError(f"training rows have labels that are not the model's: {few(sorted(others))}")
    return rows._replace(labels=labels, truth=truth_of(rows, labels), kind="ordinal")


def judged_rows(contender: Contender, rows: Labelled, probabilities_NC: Array) -> Judged:
    """What the contender said of the rows, beside the truth."""
    return Judged(
        contender.labels,
        contender.kind,
        probabilities_NC,
        truth_of(rows, contender.labels),
        contender.calibration,
        contender.out_of_scope,
        contender.alone,
    )


def restrict(judged: Judged) -> tuple[Judged, str]:
    """Choose among the labels that occur alone, and say what that means.

    The probabilities of one label a row are renormalised over those labels, so that the calibration no longer holds;
    those of "multi" stay as they are.

    Raises:
        NautileError: fewer than two labels occur.
    """
    multi = judged.kind == "multi"
    kept = np.flatnonzero(judged.truth.any(axis=0)) if multi else np.unique(judged.truth)
    if len(kept) < 2:
        raise NautileError(f"{len(kept)} label occurs in the data; to restrict a model to labels there must be two")
    if len(kept) == len(judged.labels):
        return judged, ""
    labels = tuple(judged.labels[n] for n in kept)
    left = [label for label in judged.labels if label not in labels]
    note = f"compared are only the {len(kept)} labels that occur, not {few(left)}"
    calibration, probabilities_NC = judged.calibration, judged.probabilities[:, kept]
    if multi:
        if calibration is not None and calibration.thresholds is not None:
            thresholds = [calibration.thresholds[n] for n in kept]
            calibration = calibration.model_copy(update={"thresholds": thresholds})
        truth = judged.truth[:, kept]
    else:
        probabilities_NC = probabilities_NC + np.finfo(float).tiny
        probabilities_NC /= probabilities_NC.sum(axis=1, keepdims=True)
        truth, calibration = np.searchsorted(kept, judged.truth), None
        note += ": their probabilities are renormalised, and a calibration on all labels no longer holds"
    scope = judged.out_of_scope if judged.out_of_scope in labels else None
    found = replace(
        judged, labels=labels, probabilities=probabilities_NC, truth=truth, calibration=calibration, out_of_scope=scope
    )
    return found, note


def _unknown(rows: Labelled, contender: Contender) -> str:
    """The labels that a contender does not know, in words, each with its rows."""
    counts = rows.truth.sum(axis=0) if rows.kind == "multi" else np.bincount(rows.truth, minlength=len(rows.labels))
    unknown = Counter({label: int(n) for label, n in zip(rows.labels, counts, strict=True) if n})
    said = [f"{label!r} ({counted(n, 'row')})" for label, n in unknown.most_common() if label not in contender.labels]
    return f"labels that {contender.name} does not know: {few(said)}"
