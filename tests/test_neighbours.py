"""Rows that a head asks beside its linear layer, and biases that move only where held-out rows say so."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from torch import Tensor

import nautile
from nautile.engine.words import BUCKETS
from nautile.errors import NautileError
from nautile.tasks.finetune import head_only
from nautile.tasks.finetune.head_only import train_head
from nautile.tasks.finetune.options import make_options
from nautile.tasks.finetune.split import Split
from nautile.tasks.folds import FOLDS
from nautile.tasks.heads import neighbours
from nautile.tasks.heads.head import Head, linear_head, load_head
from nautile.tasks.heads.loading import load_judging
from nautile.tasks.heads.neighbours import NEAREST, SHARE, WIDTH, Neighbours
from nautile.tasks.heads.offsets import fit_offsets
from nautile.tasks.labelled import Labelled


def by_definition(rows: np.ndarray, labels: np.ndarray, logits: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The blend, one text at a time, in float64; rows as they are kept."""
    mean, scale, blended = rows.mean(0), rows.std(0), []
    unit = lambda x: x / np.linalg.norm(x)  # noqa: E731
    kept = np.stack([unit((row - mean) / scale) for row in rows]).astype(np.float16).astype(float)
    for logit, vector in zip(logits, vectors, strict=True):
        cosines = kept @ unit((vector - mean) / scale)
        nearest = np.argsort(-cosines)[:NEAREST]
        weights = np.exp(cosines[nearest] / WIDTH)
        share = np.bincount(labels[nearest], weights / weights.sum(), minlength=len(logit))
        own = np.exp(logit - logit.max())
        blended.append(np.log((1 - SHARE) * own / own.sum() + SHARE * share))
    return np.stack(blended)


@given(N=st.integers(2, 60), M=st.integers(0, 7), seed=seeds())
def test_a_blend_is_what_its_definition_says(N: int, M: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, vectors, logits, labels = (rng.normal(size=size) for size in ((N, 5), (M, 5), (M, 3), N))
    classes = np.digitize(labels, [-0.4, 0.4])
    asked = Neighbours.of(torch.from_numpy(rows), torch.from_numpy(classes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "AT_ONCE", 3)
        got = asked.blend(torch.from_numpy(logits).float(), torch.from_numpy(vectors))
    assert got.shape == (M, 3)
    assert torch.isfinite(got).all()
    tiny.close(got.exp().sum(1), torch.ones(M))
    if M:
        want = by_definition(rows, classes, logits, vectors)
        torch.testing.assert_close(got.double(), torch.from_numpy(want), rtol=1e-3, atol=1e-3)


def test_a_head_that_is_sure_stays_finite() -> None:
    """Where no near row has a label, a temperature still needs its logarithm."""
    asked = Neighbours.of(torch.randn(30, 4), torch.zeros(30))
    got = asked.blend(torch.tensor([[0.0, 1e4, -1e4]]), torch.randn(1, 4))
    assert torch.isfinite(got).all()


def asking(classes: int = 2, width: int = 4) -> Head:
    torch.manual_seed(0)
    rows = Neighbours.of(torch.randn(30, width), torch.arange(30) % classes)
    labels = tuple("abcdef"[:classes])
    return replace(linear_head(labels, torch.randn(classes, width), torch.randn(classes), unit=True), neighbours=rows)


def test_a_head_asks_the_same_rows_after_saving(tmp_path: Path) -> None:
    head, vectors_ND = asking(), torch.randn(9, 4)
    head.save(tmp_path)
    there = load_head(tmp_path)
    np.testing.assert_array_equal(there.logits(vectors_ND), head.logits(vectors_ND))
    without = replace(head, neighbours=None)
    assert np.abs(without.probabilities(vectors_ND) - head.probabilities(vectors_ND)).max() > 0.01
    without.save(tmp_path)
    assert load_head(tmp_path).neighbours is None


@pytest.mark.parametrize(
    "changes",
    [
        {"labels_N": torch.full((30,), 2)},
        {"labels_N": torch.full((30,), -1)},
        {"labels_N": torch.zeros(29, dtype=torch.int)},
        {"rows_ND": torch.zeros(30, 5)},
        {"labels_N": torch.zeros(30, 1)},
        {"labels_N": torch.tensor(0)},
        {"mean_D": torch.zeros(5)},
        {"rows_ND": torch.zeros(0, 4), "labels_N": torch.zeros(0)},
    ],
    ids=str,
)
def test_rows_that_do_not_fit_the_head_are_refused(changes: dict[str, Tensor]) -> None:
    head = asking()
    assert head.neighbours is not None
    with pytest.raises(NautileError, match="rows to ask"):
        replace(head, neighbours=head.neighbours._replace(**changes))
    with pytest.raises(NautileError, match="multi head"):
        replace(head, kind="multi")


def groups(rows: int, telling: bool) -> tuple[Any, list[str], np.ndarray]:
    """A reader, texts and labels: many tight groups of rows, whose labels no line can part, or mere noise."""
    rng = np.random.default_rng(0)
    group = np.arange(rows) % 24
    truth = rng.permutation(24)[group] % 2 if telling else rng.integers(0, 2, rows)
    centres = rng.normal(size=(24, 6))
    vectors_ND = torch.from_numpy(centres[group] + 0.05 * rng.normal(size=(rows, 6)))

    def read(texts: list[str], words: bool) -> Any:
        at = torch.tensor([int(text) for text in texts], dtype=torch.long)
        return SimpleNamespace(vectors_ND=vectors_ND[at], words_NS=torch.zeros(len(texts), BUCKETS).to_sparse())

    return read, [str(n) for n in range(rows)], truth


def trained(rows: int = 360, telling: bool = True, **options: Any) -> tuple[Head, np.ndarray, list[dict[str, Any]]]:
    """A head of two thirds of the rows, validated on the others."""
    read, texts, truth = groups(rows, telling)
    parts = [slice(0, rows * 2 // 3), slice(rows * 2 // 3, rows)]
    train, valid = (Labelled(texts[part], truth[part], ("a", "b"), "single", []) for part in parts)
    made = make_options({"method": "head", "monitor": "log_loss", **options})
    head, logits_NC, history = train_head(read, Split(train, valid, []), made)
    return head, logits_NC.argmax(1) == valid.truth, history


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("telling", [False, True])
def test_rows_are_asked_where_they_tell_what_no_line_does(telling: bool, refit: bool) -> None:
    head, right, history = trained(telling=telling, refit=refit)
    assert [record["neighbours"] for record in history] == [False] * (len(history) - 1) + [True]
    assert (head.neighbours is not None) == telling
    if telling:
        assert head.neighbours is not None
        assert len(head.neighbours.labels_N) == (360 if refit else 240)
        plain, right_without, _ = trained(telling=telling, refit=refit, neighbours=False)
        assert plain.neighbours is None
        assert right.mean() > right_without.mean()


def test_the_rows_of_a_fold_are_judged_without_themselves() -> None:
    """Asked about itself, a row would answer with its own label, which here is noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_only, "scores", lambda logits, data: {"macro_f1": 0.0, "log_loss": float(-len(calls))})
        calls: list[int] = []
        real = head_only.with_neighbours
        patch.setattr(head_only, "with_neighbours", lambda *given: (calls.append(len(given[2].texts)), real(*given))[1])
        head, right, _ = trained(telling=False, refit=True)
    assert head.neighbours is not None
    assert len(calls) == FOLDS + 2
    assert right.mean() < 0.65


def test_neither_many_rows_nor_several_labels_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_only, "MOST", 239)
    assert not any(record["neighbours"] for record in trained()[2])


def test_a_fine_tuned_head_that_asks_judges_in_every_way(tmp_path: Path) -> None:
    rows = pd.DataFrame({"text": [f"please {'cancel' if n % 2 else 'confirm'} number {n}" for n in range(120)]})
    rows["label"] = ["no" if n % 2 else "yes" for n in range(120)]
    folder = nautile.finetune(rows, output=str(tmp_path / "run"), method="head", seed=0, quiet=True)
    reader, head = load_judging(folder)
    said = "keeps its rows' vectors" in (folder / "README.md").read_text()
    assert said == (head.neighbours is not None)
    torch.manual_seed(0)
    asked = Neighbours.of(torch.randn(40, head.weight_CD.shape[1]), torch.arange(40) % 2)
    replace(head, neighbours=asked, calibration=None).save(folder)
    texts = ["cancel 1", "confirm it, please", "cancel 1"]
    read = reader(texts, words=True)
    wanted = replace(head, neighbours=asked, calibration=None).probabilities(read.vectors_ND, read.words_NS)
    found = nautile.classify(texts, model=str(folder))
    np.testing.assert_allclose(found[list(head.labels)], wanted, atol=1e-6)


def test_offsets_are_taken_where_labels_are_rarer_than_in_training_and_not_where_they_are_chance() -> None:
    rng = np.random.default_rng(0)
    truth, folds = rng.integers(0, 3, 300), np.arange(300) % FOLDS
    logits = 3.0 * np.eye(3)[truth] + rng.normal(size=(300, 3))
    shifted = logits + np.array([2.0, 0.0, -1.0])
    offsets, moved = fit_offsets(shifted, truth, folds)
    assert offsets[0] < -1 < 0.3 < offsets[2]
    assert (moved.argmax(1) == truth).mean() > (shifted.argmax(1) == truth).mean()
    many = rng.integers(0, 60, 300)
    flat = 5.0 * np.eye(60)[many] + rng.normal(size=(300, 60))
    offsets, moved = fit_offsets(flat, many, folds)
    np.testing.assert_array_equal(offsets, 0)
    np.testing.assert_array_equal(moved, flat)
