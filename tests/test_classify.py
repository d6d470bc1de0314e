import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nautile
from nautile.engine.batching import batches, windows
from nautile.errors import NautileError
from nautile.tasks.cells import VISIBLE
from nautile.tasks.classify import load_judge

LABELS = ["negative", "neutral", "positive"]


def test_a_string_gives_one_row_with_probabilities_that_sum_to_one() -> None:
    result = nautile.classify("An absolute delight from start to finish, I loved every minute.")
    assert list(result.columns) == ["label", "confidence", *LABELS, "windows", "note"]
    assert result["label"].tolist() == ["positive"]
    assert math.isclose(result[LABELS].sum(axis=1)[0], 1, abs_tol=1e-9)
    assert result["confidence"][0] == result["positive"][0] == result[LABELS].max(axis=1)[0]


def test_obvious_texts_get_the_obvious_label() -> None:
    texts = ["I love this, wonderful!", "Terrible, broken, a waste of money.", "The meeting is on Tuesday at 3 pm."]
    assert nautile.classify(texts)["label"].tolist() == ["positive", "negative", "neutral"]


def test_a_series_keeps_its_index_duplicates_included() -> None:
    series = pd.Series(["good", "bad", "fine"], index=["b", "a", "b"])
    assert nautile.classify(series).index.equals(series.index)


def test_a_frame_needs_its_column() -> None:
    frame = pd.DataFrame({"text": ["good", "bad"], "n": [1, 2]}, index=[10, 5])
    assert nautile.classify(frame, "text").index.tolist() == [10, 5]
    with pytest.raises(NautileError, match="there are: text, n"):
        nautile.classify(frame)
    with pytest.raises(NautileError, match=r"no column \['text'\]"):
        nautile.classify(frame, ["text"])  # type: ignore[arg-type]
    with pytest.raises(NautileError, match="no column 'txt'"):
        nautile.classify(frame, "txt")
    with pytest.raises(NautileError, match="2 columns are named 'text'"):
        nautile.classify(pd.concat([frame, frame], axis=1), "text")


@pytest.mark.parametrize(
    "texts",
    [3, None, b"bytes", 2.5, {"review": ["good"]}, np.array("good"), np.array([["good"]]), pa.table({"a": ["x"]})],
)
def test_what_holds_no_texts_is_refused(texts: object) -> None:
    with pytest.raises(NautileError, match="texts must be"):
        nautile.classify(texts)  # type: ignore[arg-type]


def test_unknown_task_and_model_are_named() -> None:
    with pytest.raises(NautileError, match="unknown task 'mood'"):
        nautile.classify("x", task="mood")
    with pytest.raises(NautileError, match="unknown model 'nautile-maxi'"):
        nautile.classify("x", model="nautile-maxi")


@pytest.mark.parametrize("task", [None, "topic"])
def test_the_base_of_the_tasks_is_no_model_with_labels(task: str | None) -> None:
    with pytest.raises(NautileError, match="leave model out, and give a task or labels"):
        nautile.classify("x", task=task, model="nautile-mini")


def test_rows_without_text_keep_their_place_and_say_why() -> None:
    cells = ["good", "", None, float("nan"), "  \n", 7, pd.NA, pd.NaT, np.float32("nan"), "\u200b\ufeff", "NaT"]
    result = nautile.classify(cells)
    assert result["note"].tolist() == [
        "", "empty text", "missing", "missing", "empty text", "not text: int",
        "missing", "missing", "missing", "empty text", "",
    ]  # fmt: skip
    without = result["note"] != ""
    assert result.loc[without, ["label", "confidence", *LABELS]].isna().all().all()
    assert result.loc[~without, "label"].notna().all()
    assert (result.loc[without, "windows"] == 0).all()


@pytest.mark.parametrize("texts", [[], pd.Series([], dtype=object), iter(())])
def test_nothing_in_gives_an_empty_frame_with_all_columns(texts: object) -> None:
    result = nautile.classify(texts)  # type: ignore[arg-type]
    assert list(result.columns) == ["label", "confidence", *LABELS, "windows", "note"]
    assert len(result) == 0
    assert result.dtypes.tolist() == nautile.classify(["good", None]).dtypes.tolist()


def test_a_missing_label_is_none_whatever_stands_beside_it() -> None:
    for texts in ([None], ["good", None]):
        assert nautile.classify(texts)["label"].iloc[-1] is None


def test_an_arrow_array_is_a_list_of_texts() -> None:
    assert nautile.classify(pa.chunked_array([["good"], [None]]))["note"].tolist() == ["", "missing"]


def test_a_long_text_is_read_to_its_end_in_windows() -> None:
    praise, blame = "What a wonderful, brilliant, lovely thing. ", "What an awful, broken, terrible thing. "
    start, end = nautile.classify([praise * 80 + blame, praise + blame * 80]).itertuples()
    assert start.windows > 3
    assert start.label == "positive"
    assert end.label == "negative"


def test_order_neighbours_and_repeats_do_not_matter() -> None:
    texts = ["good film", "bad film", "the film was long, but the ending made up for all of it", "good film", "no"]
    together = nautile.classify(texts)
    backwards = nautile.classify(texts[::-1]).iloc[::-1].reset_index(drop=True)
    alone = pd.concat([nautile.classify(text) for text in texts], ignore_index=True)
    for other in (backwards, alone):
        assert together["label"].tolist() == other["label"].tolist()
        np.testing.assert_allclose(together[LABELS], other[LABELS], atol=1e-5)


def test_progress_counts_every_row_once() -> None:
    counted: list[int] = []
    load_judge()(["a good day", "", "a good day", None, "x " * 400], counted.append)
    assert sum(counted) == 5


@given(st.integers(0, 5000), st.integers(1, 300))
def test_windows_cover_everything_evenly(length: int, width: int) -> None:
    spans = windows(length, width)
    assert [position for start, end in spans for position in range(start, end)] == list(range(length))
    sizes = [end - start for start, end in spans]
    assert all(size <= width for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 2000))
def test_batches_hold_every_index_once_within_the_budget(lengths: list[int], max_tokens: int) -> None:
    groups = list(batches(lengths, max_tokens))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or max(lengths[index] for index in group) * len(group) <= max_tokens


@settings(max_examples=15, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=40), st.none(), st.integers(), st.floats()), max_size=12))
def test_any_list_comes_back_row_for_row(cells: list) -> None:
    result = nautile.classify(cells)
    assert len(result) == len(cells)
    for cell, label, note in zip(cells, result["label"], result["note"], strict=True):
        judged = isinstance(cell, str) and VISIBLE.search(cell) is not None
        assert (label in LABELS) == judged
        assert (note == "") == judged
