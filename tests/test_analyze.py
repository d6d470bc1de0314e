"""Several heads on one backbone: each text read once, every row in its place."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

import nautile
from nautile.engine.reader import Reader
from nautile.errors import NautileError
from nautile.model.model import NautileModel
from nautile.tasks.analyze import Panel
from nautile.tasks.heads.head import Head, linear_head, load_head
from nautile.tasks.judge import HeadJudge

TEXTS = ["good", None, "the parcel never came", "good", ""]


def head(*labels: str, kind: str = "single", seed: int = 0) -> Head:
    torch.manual_seed(seed)
    return linear_head(labels, torch.randn(len(labels), 32), torch.randn(len(labels)), kind)  # type: ignore[arg-type]


def reader() -> Reader:
    return Reader(tiny.model(NautileModel, vocab_size=308))


def test_a_panel_reads_once_and_says_what_each_head_alone_would(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = reader()
    heads = {"mood": head("bad", "good"), "themes": head("money", "post", kind="multi", seed=1)}
    panel = Panel({name: (shared, one) for name, one in heads.items()}, detail=True)
    calls: list[int] = []
    read = Reader.__call__
    monkeypatch.setattr(
        Reader, "__call__", lambda self, texts, *a, **k: calls.append(len(texts)) or read(self, texts, *a, **k)
    )  # type: ignore[func-returns-value]
    together = panel(TEXTS)
    assert calls == [2], "one reading, of the distinct texts"
    for name, one in heads.items():
        alone = HeadJudge(shared, one)(TEXTS)
        assert together[name] == alone["label"]
        for label in one.labels:
            assert together[f"{name}_{label}"] == alone[label]
    without = ["" if theme else "themes: no label fits" for theme in together["themes"]]
    assert together["note"] == [without[0], "missing", *without[2:4], "empty text"]
    assert list(together) == list(panel.columns)


def test_two_backbones_are_read_once_each() -> None:
    panel = Panel({"a": (reader(), head("x", "y")), "b": (reader(), head("x", "y"))}, detail=False)
    counted: list[int] = []
    found = panel(TEXTS, counted.append)
    assert sum(counted) == len(TEXTS)
    assert found["a"] == found["b"]
    assert panel.remark == "a: probabilities are not calibrated; b: probabilities are not calibrated"


def test_built_in_tasks_answer_on_the_frames_own_index() -> None:
    frame = pd.DataFrame({"text": ["I love it", "Where is my card?"]}, index=["b", "a"])
    found = nautile.analyze(frame, "text", tasks=["sentiment", "topic"])
    assert found.index.tolist() == ["b", "a"]
    assert list(found.columns) == ["sentiment", "sentiment_confidence", "topic", "topic_confidence", "windows", "note"]
    alone = nautile.classify(frame, "text")
    assert found["sentiment"].tolist() == alone["label"].tolist()
    np.testing.assert_allclose(found["sentiment_confidence"], alone["confidence"])


@pytest.mark.parametrize(
    ("tasks", "complaint"),
    [
        ("sentiment", "must be a list"),
        ([], "at least one"),
        (["sentiment", "sentiment"], "no two of one name"),
        (["mood"], "unknown task 'mood'"),
        (["./mood"], "unknown model './mood'"),
    ],
)
def test_tasks_that_cannot_be_answered_are_refused(tasks: object, complaint: str) -> None:
    with pytest.raises(NautileError, match=complaint):
        nautile.analyze("x", tasks=tasks)  # type: ignore[arg-type]


def test_a_head_comes_back_from_its_folder_as_it_was(tmp_path: Path) -> None:
    one = head("in", "out", kind="single")
    one = Head(one.labels, one.weight_CD, one.bias_C, "single", None, "out", about={"base": "nautile-mini"})
    one.save(tmp_path)
    back = load_head(tmp_path)
    assert (back.labels, back.kind, back.out_of_scope, back.about) == (one.labels, "single", "out", one.about)
    assert torch.equal(back.weight_CD, one.weight_CD)


@pytest.mark.parametrize("damage", ["missing", "json", "kind", "weights", "shape", "tensor"])
def test_a_damaged_head_is_named(damage: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    head("a", "b").save(tmp_path)
    known = tmp_path / "head.json"
    if damage == "missing":
        known.unlink()
    elif damage == "json":
        known.write_text("{")
    elif damage == "kind":
        known.write_text(known.read_text().replace('"single"', '"odd"'))
    elif damage == "weights":
        (tmp_path / "head.safetensors").write_bytes(b"nothing")
    else:
        wrong = (
            {"weight": torch.zeros(3, 32), "bias": torch.zeros(3)} if damage == "shape" else {"weight": torch.zeros(2)}
        )
        save_file(wrong, tmp_path / "head.safetensors")
    with pytest.raises(NautileError, match=r"head"):
        load_head(tmp_path)


@pytest.mark.parametrize("labels", [("a", "a"), ("", "b"), ("label", "b"), ()])
def test_labels_that_cannot_be_columns_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(NautileError, match="labels"):
        head(*labels)


def test_labels_that_could_not_be_told_apart_when_joined_are_refused() -> None:
    with pytest.raises(NautileError, match="joined by"):
        head("a; b", "c", kind="multi")


def test_a_file_can_get_several_judgments_at_once(tmp_path: Path) -> None:
    from nautile.cli import main

    (tmp_path / "in.csv").write_text("text\nI love it\n\nWhere is my card?\n")
    arguments = ["classify", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv"), "-q", "--overwrite"]
    assert main([*arguments, "--task", "sentiment, topic"]) == 0
    found = pd.read_csv(tmp_path / "out.csv")
    judgments = ["sentiment", "sentiment_confidence", "topic", "topic_confidence"]
    assert list(found.columns) == ["text", *judgments, "windows", "note"]
    assert found["sentiment"].notna().tolist() == [True, False, True]
    assert found["note"].tolist()[1] == "empty text"
    assert main([*arguments, "--task", "sentiment, topic", "--detail"]) == 0
    assert {"sentiment_neutral", "topic_sport"} < set(pd.read_csv(tmp_path / "out.csv").columns)


def test_several_tasks_go_without_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    from nautile.cli import main

    assert main(["classify", "--text", "x", "--task", "sentiment,topic", "--threshold", "0.5"]) == 2
    assert "several tasks go without" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["", "."])
def test_a_task_without_a_name_is_refused(task: str) -> None:
    with pytest.raises(NautileError, match="tasks must have names"):
        nautile.analyze(["a text"], tasks=["sentiment", task])
