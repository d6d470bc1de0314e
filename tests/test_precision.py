"""Reading in bfloat16: by choice, for every way to ask, and within a stated distance of float32."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import nautile
from nautile.cli import main
from nautile.errors import NautileError
from nautile.tasks.files.run import judge_identity
from nautile.tasks.heads.loading import load_task
from nautile.tasks.question import question

TEXTS = [
    "The staff were kind and the room was spotless.",
    "Never again: cold food, and an hour late.",
    "It arrived on Tuesday in a brown box.",
    "can you move my dentist appointment to friday",
    "The central bank left interest rates unchanged, citing slower growth in exports.",
    "ok",
] * 3
SAME = 0.03  # the furthest that a probability may move


def probabilities(found: pd.DataFrame) -> np.ndarray:
    return found.select_dtypes("float").drop(columns=["agreement"], errors="ignore").to_numpy()


@pytest.mark.parametrize("asked", [{}, {"task": "topic"}, {"labels": ["praise", "complaint", "news"]}], ids=str)
def test_bfloat16_answers_within_the_stated_distance(asked: dict[str, object]) -> None:
    exact = probabilities(nautile.classify(TEXTS, **asked))
    rounded = probabilities(nautile.classify(TEXTS, **asked, precision="bfloat16"))
    assert 0 < np.abs(exact - rounded).max() < SAME


def test_analyze_and_its_readers_take_the_precision() -> None:
    exact = nautile.analyze(TEXTS, tasks=["sentiment", "topic"])
    rounded = nautile.analyze(TEXTS, tasks=["sentiment", "topic"], precision="bfloat16")
    assert 0 < np.abs(probabilities(exact) - probabilities(rounded)).max() < SAME
    assert load_task("topic", "bfloat16")[0] is load_task("emotion", "bfloat16")[0]
    assert load_task("topic")[0] is not load_task("topic", "bfloat16")[0]


def test_the_command_line_takes_it_and_a_resumed_job_must_have_the_same(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("text\n" + "\n".join(f'"{text}"' for text in TEXTS))
    for precision in ("float32", "bfloat16"):
        assert main(["classify", str(source), "-o", str(tmp_path / f"{precision}.csv"), "--precision", precision]) == 0
    one, other = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("float32", "bfloat16"))
    assert list(one) == list(other)
    assert 0 < (one["confidence"] - other["confidence"]).abs().max() < SAME
    exact = question("topic")
    assert judge_identity(exact, None) != judge_identity(dataclasses.replace(exact, precision="bfloat16"), None)


@pytest.mark.parametrize("ask", [nautile.classify, nautile.analyze])
def test_another_precision_is_refused(ask: object) -> None:
    with pytest.raises(NautileError, match="precision must be float32 or bfloat16, not 'int4'"):
        ask(["a"], precision="int4")  # type: ignore[operator]
