"""The linear method's mathematics: whitening, regression, what held-out rows choose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from nautile.tasks.calibrate import probabilities
from nautile.tasks.classifier.linear import Recipe, Rows, fit_linear
from nautile.tasks.classifier.selection import as_often, choose_recipe, hold_out, judged, split_rows, worth


def blobs(seed: int, N: int = 60, D: int = 6, C: int = 3) -> Rows:
    rng = np.random.default_rng(seed)
    index_N = np.arange(N) % C
    vectors_ND = rng.normal(size=(C, D))[index_N] + rng.normal(size=(N, D))
    weight_N = rng.integers(1, 4, N).astype(float)
    return Rows(vectors_ND.astype(np.float32), np.eye(C)[index_N], weight_N, "single", np.arange(N))


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_without_whitening_it_is_logistic_regression(strength: float) -> None:
    rows = blobs(1)
    centred = rows.vectors_ND - np.average(rows.vectors_ND, axis=0, weights=rows.weight_N)
    length = np.sqrt(np.average((centred**2).sum(axis=1), weights=rows.weight_N))
    reference = LogisticRegression(C=strength, tol=1e-9, max_iter=2000)
    reference.fit(centred / length, rows.truth_NC.argmax(axis=1), rows.weight_N)
    found = fit_linear(rows, Recipe(1.0, strength), 1e-9).logits(rows.vectors_ND)
    np.testing.assert_allclose(
        probabilities(found, "single"), reference.predict_proba(centred / length), rtol=1e-4, atol=1e-5
    )


def test_words_are_features_beside_the_vectors() -> None:
    rng = np.random.default_rng(0)
    words_ND = (rng.random((60, 20)) < 0.2) / 2
    rows = blobs(1)._replace(words_NS=csr_array(words_ND), emphasis_N=None)
    centred = rows.vectors_ND - np.average(rows.vectors_ND, axis=0, weights=rows.weight_N)
    length = np.sqrt(np.average((centred**2).sum(axis=1), weights=rows.weight_N))
    features = np.hstack([centred / length, words_ND])
    reference = LogisticRegression(C=10, tol=1e-9, max_iter=2000)
    reference.fit(features, rows.truth_NC.argmax(axis=1), rows.weight_N)
    found = judged(fit_linear(rows, Recipe(1.0, 10.0, True), 1e-9), rows)
    expected = reference.predict_proba(features)
    np.testing.assert_allclose(probabilities(found, "single"), expected, rtol=5e-3, atol=5e-4)  # float16 weights
    silent = rows._replace(words_NS=csr_array(0 * words_ND))
    plain = fit_linear(rows, Recipe(1.0, 10.0), 1e-9)
    np.testing.assert_allclose(fit_linear(silent, Recipe(1.0, 10.0, True), 1e-9).weight_CD, plain.weight_CD, atol=1e-4)
    assert plain.words_SC is None


def test_held_out_rows_choose_words_where_these_tell_what_vectors_do_not() -> None:
    rows = blobs(6, N=120)
    telling = rows._replace(
        vectors_ND=np.random.default_rng(1).normal(size=(120, 6)).astype(np.float32),
        words_NS=csr_array(rows.truth_NC),
    )
    silent = rows._replace(words_NS=csr_array(np.random.default_rng(2).random((120, 200)) / 8))
    assert choose_recipe(telling, split_rows(telling, 5, 0), None, None)[0].words
    assert not choose_recipe(silent, split_rows(silent, 5, 0), None, None)[0].words
    few = telling.take(np.arange(49))
    assert not choose_recipe(few, split_rows(few, 5, 0), None, None)[0].words


def test_names_are_rows_of_their_classes() -> None:
    rows = blobs(7)._replace(
        names_CD=blobs(8, N=3).vectors_ND, words_NS=csr_array(np.random.default_rng(2).random((60, 5)))
    )
    lifted = rows._replace(emphasis_N=np.linspace(1, 2, 60))
    written = Rows(
        np.vstack([rows.vectors_ND, rows.names_CD]),
        np.vstack([rows.truth_NC, np.eye(3)]),
        np.append(lifted.learning, np.ones(3)),
        "single",
        np.arange(63),
        words_NS=csr_array(np.vstack([rows.words_NS.toarray(), np.zeros((3, 5))])),
    )
    found = fit_linear(lifted, Recipe(0.5, 1.0, words=True, names=True), 1e-9)
    expected = fit_linear(written, Recipe(0.5, 1.0, words=True), 1e-9)
    np.testing.assert_allclose(judged(found, rows), judged(expected, rows), atol=1e-4)


@pytest.mark.slow
def test_held_out_rows_choose_names_and_likeness_where_they_help() -> None:
    rng = np.random.default_rng(3)
    rows = blobs(9, N=80, D=20)
    truth = rows.truth_NC.argmax(axis=1)
    means_CD = np.stack([rows.vectors_ND[truth == c].mean(axis=0) for c in range(3)])
    telling, misleading = rows._replace(names_CD=means_CD), rows._replace(names_CD=20 * means_CD[[1, 2, 0]])
    assert choose_recipe(telling, split_rows(telling, 5, 0), None, None)[0].names
    assert not choose_recipe(misleading, split_rows(misleading, 5, 0), None, None)[0].names
    few = misleading.take(np.arange(49))
    assert choose_recipe(few, split_rows(few, 5, 0), None, None)[0].names
    noise = rows._replace(vectors_ND=np.hstack([rows.vectors_ND, rng.normal(0, 9, (80, 60))]).astype(np.float32))
    heard, deaf = (np.diag([*[good] * 20, *[1 - good] * 60]) for good in (1.0, 0.0))
    for turn_DD, helps in ((heard, True), (deaf, False)):
        turned = noise._replace(likeness_DD=turn_DD)
        assert choose_recipe(turned, split_rows(turned, 5, 0), None, None)[0].likeness is helps


def test_turned_vectors_are_fitted_as_if_they_had_come_so() -> None:
    rows = blobs(10)
    turn_DD = np.random.default_rng(4).normal(size=(6, 6))
    turned = rows._replace(vectors_ND=(rows.vectors_ND @ turn_DD).astype(np.float32))
    for shrinkage in (1.0, 0.3):
        found = fit_linear(rows._replace(likeness_DD=turn_DD), Recipe(shrinkage, 1.0, likeness=True), 1e-9)
        expected = fit_linear(turned, Recipe(shrinkage, 1.0), 1e-9).logits(turned.vectors_ND)
        np.testing.assert_allclose(found.logits(rows.vectors_ND), expected, atol=1e-4)


def test_several_labels_are_as_many_regressions() -> None:
    rows = blobs(2)._replace(kind="multi")
    together = fit_linear(rows, Recipe(1.0, 1.0), 1e-9)
    for n in range(3):
        alone = fit_linear(rows._replace(truth_NC=rows.truth_NC[:, n : n + 1]), Recipe(1.0, 1.0), 1e-9)
        np.testing.assert_allclose(together.weight_CD[n], alone.weight_CD[0], rtol=1e-3, atol=1e-5)


def test_whitened_answers_do_not_depend_on_how_the_vectors_are_turned_and_hardly_on_their_scales() -> None:
    rows = blobs(3, N=300)
    rng = np.random.default_rng(0)
    turn_DD, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    scales_D = np.array([1, 1, 1, 1, 1, 30.0])

    def answers(vectors_ND: np.ndarray) -> np.ndarray:
        changed = rows._replace(vectors_ND=vectors_ND.astype(np.float32))
        return probabilities(fit_linear(changed, Recipe(1e-6, 10.0), 1e-8).logits(changed.vectors_ND), "single")

    plain = answers(rows.vectors_ND)
    np.testing.assert_allclose(answers(rows.vectors_ND @ turn_DD + 5), plain, atol=1e-3)
    np.testing.assert_allclose(answers(rows.vectors_ND * scales_D), plain, atol=1e-3)


def test_held_out_rows_choose_whitening_where_classes_are_long_and_thin() -> None:
    rng = np.random.default_rng(5)
    index_N = np.arange(90) % 3
    signal = rng.normal(size=(3, 8))[index_N] + 0.2 * rng.normal(size=(90, 8))
    vectors_ND = np.hstack([signal, 40 * rng.normal(size=(90, 4))]).astype(np.float32)
    rows = Rows(vectors_ND, np.eye(3)[index_N], np.ones(90), "single", np.arange(90))
    splits = split_rows(rows, 5, 0)
    recipe, held = choose_recipe(rows, splits, None, None)
    assert held is not None
    assert recipe.shrinkage < 1
    assert held.log_loss() < hold_out(rows, splits, Recipe(1.0, 10.0)).log_loss() - 0.2
    assert choose_recipe(rows, splits, 0.8, 3.0)[0] == Recipe(0.8, 3.0)
    assert choose_recipe(rows, [], None, None) == (Recipe(1.0, 10.0), None)
    few = rows.take(np.arange(49))
    assert choose_recipe(few, split_rows(few, 5, 0), None, None)[0] == Recipe(1.0, 10.0)


def labelled_rows(labels: list[int], texts: list[int]) -> Rows:
    vectors_ND = np.zeros((len(labels), 2), np.float32)
    return Rows(vectors_ND, np.eye(6)[labels], np.ones(len(labels)), "single", np.array(texts))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 9))
def test_no_class_is_ever_missing_from_training(labels: list[int], folds: int, seed: int) -> None:
    rows = labelled_rows(labels, list(range(len(labels))))
    splits = split_rows(rows, folds, seed)
    for train, test in splits:
        assert set(np.array(labels)[train]) == set(labels)
        assert not set(train) & set(test)
    tested = [row for _, test in splits for row in test]
    assert sorted(tested) == [n for n, label in enumerate(labels) if labels.count(label) > 1]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20)), min_size=2, max_size=60), st.integers(2, 6))
def test_equal_texts_are_never_on_both_sides(pairs: list[tuple[int, int]], folds: int) -> None:
    labels, texts = map(np.array, zip(*pairs, strict=True))
    for train, test in split_rows(labelled_rows(list(labels), list(texts)), folds, 0):
        assert not set(texts[train]) & set(texts[test])
        assert set(labels[train]) == set(labels)
        assert sorted([*train, *test]) == list(range(len(pairs)))


def test_folds_of_repeated_texts_are_stratified_and_hold_out_nearly_all() -> None:
    texts = np.repeat(np.arange(60), 3)
    splits = split_rows(labelled_rows(list(texts % 6), list(texts)), 5, 1)
    assert [np.bincount(texts[test] % 6, minlength=6).tolist() for _, test in splits] == [[6] * 6] * 5


def test_repeated_texts_do_not_make_probabilities_sure() -> None:
    """Vectors that say nothing, each six times: a model that has seen them knows them by heart."""
    rng = np.random.default_rng(0)
    text_N = np.repeat(np.arange(30), 6)
    vectors_ND = rng.normal(size=(30, 40)).astype(np.float32)[text_N]
    rows = Rows(vectors_ND, np.eye(2)[text_N % 2], np.ones(180), "single", text_N)
    _, held = choose_recipe(rows, split_rows(rows, 5, 0), 1.0, 100.0)
    assert held is not None
    assert held.log_loss() > 0.6


def test_rows_are_worth_their_texts_and_heavy_ones_little_more() -> None:
    rows = labelled_rows([0, 1] * 30, list(np.arange(60) // 2))
    assert worth(rows) == 30
    assert worth(rows._replace(group_N=np.arange(60))) == 60
    assert worth(rows._replace(group_N=np.arange(60), weight_N=np.full(60, 7.0))) == 60
    heavy_N = np.where(np.arange(60) < 2, 1000.0, 1.0)
    assert worth(rows._replace(group_N=np.arange(60), weight_N=heavy_N)) == 2


def test_emphasis_is_for_learning_alone() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random(400) < 0.15).astype(int)
    vectors_ND = (rng.normal(size=(400, 5)) + truth[:, None] * 0.8).astype(np.float32)
    plain = Rows(vectors_ND, np.eye(2)[truth], np.ones(400), "single", np.arange(400))
    lifted = plain._replace(emphasis_N=np.where(truth == 1, 6.0, 1.0))
    recipe = Recipe(1.0, 1.0)
    usual, more = (fit_linear(rows, recipe).logits(vectors_ND).argmax(1).sum() for rows in (plain, lifted))
    assert more > usual
    held = hold_out(lifted, split_rows(lifted, 5, 0), recipe).calibration()
    assert held is not None
    assert held.rows == 400


def test_a_rare_label_of_many_is_in_every_training_part() -> None:
    truth = np.zeros((60, 5), dtype=int)
    truth[:, 0] = 1
    truth[[3, 9], 3] = 1
    truth[17, 4] = 1
    rows = Rows(np.zeros((60, 2), np.float32), truth.astype(float), np.ones(60), "multi", np.arange(60))
    for train, test in split_rows(rows, 5, 0):
        assert truth[train].any(axis=0)[[0, 3, 4]].all()
        assert 17 not in test


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30).filter(any))
def test_small_whole_weights_are_counts(weights: list[int]) -> None:
    index = as_often(np.array(weights, dtype=float))
    assert np.bincount(index, minlength=len(weights)).tolist() == weights


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30))
def test_other_weights_are_shares_of_bounded_many(weights: list[float]) -> None:
    given_N = np.array(weights)
    counts = np.bincount(as_often(given_N), minlength=len(weights))
    assert len(weights) <= counts.sum() <= 10 * len(weights)
    assert np.abs(counts - given_N / given_N.sum() * counts.sum()).max() <= 1 + 1e-6
