"""Words beside vectors: what counts as one, and heads that look at them."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import nautile
from nautile.engine.reader import BLOCK
from nautile.engine.words import BUCKETS, features_of, words_of
from nautile.errors import NautileError
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.finetune.head_only import Features, fit_head, train_head
from nautile.tasks.finetune.options import make_options
from nautile.tasks.finetune.split import Split
from nautile.tasks.heads.head import Head, linear_head, load_head
from nautile.tasks.heads.loading import base_reader, load_judging
from nautile.tasks.labelled import Labelled
from nautile.tasks.question import BASE

VOCABULARY = Vocabulary("nautile", 32_000)


def words(*texts: str) -> Tensor:
    return words_of(texts, VOCABULARY).to_dense()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(2, 40), max_size=12), max_size=6))
def test_each_text_has_its_own_features_once_and_a_row_of_length_one(rows: list[list[int]]) -> None:
    found_NS = features_of(rows).to_dense()
    assert found_NS.shape == (len(rows), BUCKETS)
    for row, found_S in zip(rows, found_NS, strict=True):
        tiny.close(found_S, features_of([row]).to_dense()[0])
        features = {*row, *itertools.pairwise(row)}
        assert found_S.count_nonzero() <= len(features)
        tiny.close(found_S.norm(), torch.tensor(float(bool(found_S.any()))))
        assert bool(row) == bool(found_S.any())


def test_neither_capitals_nor_where_a_word_stands_make_a_difference() -> None:
    torch.testing.assert_close(words("Cancel it"), words(" cancel\n\tIT\n"))
    alone, later = words("REFUND", "a refund")  # one token after a space, two at the beginning, three in capitals
    assert alone.count_nonzero() == 1
    assert (alone[alone != 0] * later[alone != 0]).item() > 0
    assert not words(" \n", "").any()


def test_order_and_neighbours_make_one() -> None:
    first, second = words("not good but bad", "not bad but good")
    assert 0.3 < first @ second < 0.9  # the same words, other pairs
    alone, other = words("card", "transfer")
    assert alone @ other == 0


def test_features_rarely_share_a_bucket() -> None:
    found_NS = features_of([[token] for token in range(2000)])
    used = found_NS.indices()[1].unique()
    assert len(used) > 0.97 * BUCKETS * (1 - np.exp(-2000 / BUCKETS))  # as many as random throws would hit
    assert abs(found_NS.values().sum()) < 4 * 2000**0.5


def test_a_reader_finds_the_words_of_every_block_and_of_no_text() -> None:
    reader = base_reader(BASE)
    texts = [f"row {n % 50}" for n in range(BLOCK + 3)]
    found = reader([*texts, ""], words=True).words_NS
    assert found is not None
    torch.testing.assert_close(found.to_dense(), words(*texts, ""))
    assert reader([], words=True).words_NS.shape == (0, BUCKETS)
    assert reader(["a"]).words_NS is None


def stand_in(vectors_ND: Tensor, words_NS: Tensor) -> Any:
    """A reader of texts that begin with their row's number."""

    def read(texts: list[str], words: bool) -> Any:
        rows = torch.tensor([int(text.split()[0]) for text in texts], dtype=torch.long)
        return SimpleNamespace(vectors_ND=vectors_ND[rows], words_NS=words_NS.index_select(0, rows))

    return read


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("telling", [False, True])
def test_a_head_looks_at_words_where_they_tell_what_vectors_do_not(telling: bool, refit: bool) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 120)
    vectors_ND = torch.from_numpy(rng.normal(size=(120, 16)))
    vectors_ND[:, 0] += 0 if telling else torch.from_numpy(40.0 * truth - 20)
    texts = [f"{n} {'cancel' if truth[n] else 'confirm'} it" if telling else f"{n}" for n in range(120)]
    reader = stand_in(vectors_ND, base_reader(BASE)(texts, words=True).words_NS)

    def rows(chosen: range) -> Labelled:
        return Labelled([texts[n] for n in chosen], truth[list(chosen)], ("a", "b"), "single", [])

    options = make_options({"method": "head", "refit": refit})
    head, logits_NC, history = train_head(reader, Split(rows(range(80)), rows(range(80, 120)), []), options)
    assert [record["words"] for record in history[:-1]] == [False] * (len(history) - 2) + [True]
    assert (head.words_SC is not None) == telling
    assert (logits_NC.argmax(1) == truth[80:]).mean() == 1.0


def test_without_validation_rows_words_are_left_out() -> None:
    data = Labelled(["0 a", "1 b"] * 8, np.array([0, 1] * 8), ("a", "b"), "single", [])
    reader = stand_in(torch.randn(2, 4), words("a", "b").to_sparse())
    nothing = Labelled([], np.zeros(0, dtype=int), ("a", "b"), "single", [])
    head, logits_NC, history = train_head(reader, Split(data, nothing, []), make_options({"method": "head"}))
    assert head.words_SC is None
    assert not history
    assert logits_NC.shape == (0, 2)


def test_the_fit_is_the_one_of_vectors_and_words_side_by_side() -> None:
    rng = np.random.default_rng(0)
    vectors_ND, words_NS = torch.from_numpy(rng.normal(size=(60, 4))), words(*(f"w{n % 7} v{n % 5}" for n in range(60)))
    data = Labelled(["x"] * 60, rng.integers(0, 3, 60), ("a", "b", "c"), "single", [])
    features = Features(vectors_ND, words_NS.to_sparse())
    found = features.logits(fit_head(features, data, 0.1, weigh=False))
    mean, scale = vectors_ND.mean(0), vectors_ND.std(0, unbiased=False)
    dense = torch.cat([(vectors_ND - mean) / scale, 2.0 * words_NS], dim=1).double()  # 2: the root of D
    from sklearn.linear_model import LogisticRegression

    theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(dense, data.truth).decision_function(dense)
    ours = found - found.mean(axis=1, keepdims=True)
    assert np.abs(ours - (theirs - theirs.mean(axis=1, keepdims=True))).max() < 5e-3


def with_words(head: Head) -> Head:
    torch.manual_seed(0)
    return replace(head, words_SC=torch.randn(BUCKETS, len(head.labels)).half())


def test_a_head_is_the_same_after_saving(tmp_path: Path) -> None:
    head = with_words(linear_head(("a", "b"), torch.randn(2, 256), torch.randn(2), unit=True))
    head.save(tmp_path)
    read = base_reader(BASE)(["Cancel it", "Confirm it", ""], words=True)
    there = load_head(tmp_path).logits(read.vectors_ND, read.words_NS)
    np.testing.assert_array_equal(there, head.logits(read.vectors_ND, read.words_NS))
    np.testing.assert_allclose(there[2], head.bias_C.double())


def test_weights_of_words_for_other_labels_are_refused() -> None:
    with pytest.raises(NautileError, match=r"2 labels has weights of words of shape \(8192, 3\)"):
        replace(linear_head(("a", "b"), torch.randn(2, 4), torch.randn(2)), words_SC=torch.zeros(BUCKETS, 3))


def test_a_fine_tuned_head_of_words_judges_in_every_way(tmp_path: Path) -> None:
    rows = pd.DataFrame({"text": [f"please {'cancel' if n % 2 else 'confirm'} number {n}" for n in range(120)]})
    rows["label"] = ["no" if n % 2 else "yes" for n in range(120)]
    folder = nautile.finetune(rows, output=str(tmp_path / "run"), method="head", seed=0, quiet=True)
    reader, head = load_judging(folder)
    tried = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["words"] for record in tried[:-1]] == [False] * (len(tried) - 2) + [True]
    said = "looks at a text's words" in (folder / "README.md").read_text()
    assert said == (head.words_SC is not None)
    with_words(head).save(folder)
    texts = ["cancel 1", "confirm it, please", "cancel 1"]
    read = reader(texts, words=True)
    wanted = with_words(head).probabilities(read.vectors_ND, read.words_NS)
    alone = nautile.classify(texts, model=str(folder))
    np.testing.assert_allclose(alone[list(head.labels)], wanted, atol=1e-6)
    beside = nautile.analyze(texts, tasks=["sentiment", str(folder)], detail=True)
    np.testing.assert_allclose(beside[[f"run_{label}" for label in head.labels]], wanted, atol=1e-6)
