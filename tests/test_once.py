"""Within a run a text is judged once: over chunks, over a kill, within a bound on memory."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_judge
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nautile.cli import main
from nautile.tasks import once
from nautile.tasks.frames import CHUNK_ROWS, judged_frame
from nautile.tasks.once import Once

CELLS = st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=30)


class Counting(fake_judge.FakeJudge):
    """Remembers the cells that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def __call__(self, texts: list[object], progress: Callable[[int], None], /) -> dict[str, list[Any]]:
        self.asked += texts
        return super().__call__(texts, progress)


def silent(rows: int) -> None:
    """No progress."""


@given(st.lists(CELLS, max_size=4))
def test_answers_are_those_of_the_judge_whatever_was_asked_before(chunks: list[list[Any]]) -> None:
    judge, told = Once(Counting()), list[int]()
    for cells in chunks:
        assert judge(cells, told.append) == fake_judge.FakeJudge()(cells, silent)
    assert sum(told) == sum(map(len, chunks))


def test_a_text_of_an_earlier_chunk_is_not_judged_again() -> None:
    judge = Counting()
    frame = judged_frame(judge, ["good", "bad"] * CHUNK_ROWS, None, progress=False)  # type: ignore[arg-type]
    assert len(frame) == 2 * CHUNK_ROWS
    assert judge.asked.count("good") <= CHUNK_ROWS // 2  # of the first chunk, within which a real judge counts repeats


@given(st.lists(CELLS, max_size=4), st.integers(0, 3))
def test_what_was_kept_makes_a_resumed_run_ask_the_same(chunks: list[list[Any]], killed: int) -> None:
    asked, asked_again = Counting(), Counting()
    whole, resumed = Once(asked), Once(asked_again)
    for number, cells in enumerate(chunks):
        asked.asked.clear()
        asked_again.asked.clear()
        answers = whole(cells, silent)
        if number < killed:
            resumed.learn(whole.added())
        else:
            assert resumed(cells, silent) == answers
            assert asked_again.asked == asked.asked


def test_the_oldest_texts_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "MOST", 3 * len(fake_judge.FakeJudge.columns))
    judge = Counting()
    memory = Once(judge)
    memory(["a", "b", "c"], silent)
    memory(["a", "d"], silent)
    memory(["b", "c", "d", "a"], silent)
    assert judge.asked == ["a", "b", "c", "d", "a"]


def test_floats_are_kept_to_the_last_bit() -> None:
    judge = Counting()
    first, second = Once(fake_judge.FakeJudge()), Once(judge)
    answers = first(["one", "three"], silent)
    second.learn(first.added())
    assert second(["one", "three"], silent) == answers
    assert not judge.asked


def test_a_file_and_a_frame_agree_on_repeats_over_many_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Counting()
    module = fake_judge.module()
    module.load_judge = lambda *options: judge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nautile.tasks.classify", module)
    texts = [f"text {n % (CHUNK_ROWS + 7)}" for n in range(3 * CHUNK_ROWS)]
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "in.csv", index=False)
    assert main(["classify", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv"), "-q"]) == 0
    assert len(judge.asked) == CHUNK_ROWS + 7
    frame = judged_frame(fake_judge.FakeJudge(), texts, None, progress=False)  # type: ignore[arg-type]
    assert pd.read_csv(tmp_path / "out.csv")["label"].tolist() == frame["label"].tolist()
