"""How the backbone learns: what it starts as, what it reads, what it leaves out, and that a run goes on."""

import json
import lzma
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.backbone import train
from nautile.tasks.backbone.label_sets import LabelSet
from nautile.tasks.backbone.objectives import Embedding, NamedLabels, Sentiment, SoftLabels, Student, alike
from nautile.tasks.backbone.texts import gather, key, passages
from nautile.tasks.backbone.train import Part, Run
from nautile.tasks.heads.rows import ADDED, part
from nautile.tasks.heads.sentiment_data import NEGATIVE, NEUTRAL, POSITIVE, Example
from nautile.tasks.heads.topics import topic_of
from nautile.tasks.zero_shot.head import SHARED_WIDTH

VOCABULARY = Vocabulary("nautile", 300)
WORDS = ["red", "green", "blue", "warm", "cold", "early", "late", "slow", "fast", "near", "far"]
TEXTS = [" ".join(random.Random(n).choices(WORDS, k=1 + n % 7)) for n in range(120)]


def student() -> Student:
    torch.manual_seed(0)
    return Student(tiny.config(vocab_size=VOCABULARY.size), VOCABULARY)


def teacher(texts: Sequence[str]) -> Tensor:
    """Which words a text holds, as unit vectors."""
    counts = torch.zeros(len(texts), SHARED_WIDTH)
    for row, text in enumerate(texts):
        for word in text.split():
            counts[row, WORDS.index(word)] += 1
    return F.normalize(counts, dim=-1)


def test_a_student_begins_as_the_mean_of_its_token_vectors() -> None:
    new = student()
    table, projection = torch.randn(VOCABULARY.size, 32), torch.randn(SHARED_WIDTH, 32)
    new.begin(table, projection)
    with torch.inference_mode():
        found = new.matching.embed(new.read(TEXTS[:5])[0])
    for vector, ids in zip(found, VOCABULARY.encode_batch(TEXTS[:5]), strict=True):
        normed = F.rms_norm(table[ids], (32,), eps=new.backbone.config.norm_eps)
        tiny.close(vector, F.normalize(normed.mean(0) @ projection.T, dim=-1))


def objectives() -> dict[str, object]:
    labels = [text.split()[:1] for text in TEXTS]
    named = LabelSet(TEXTS, labels, {word: (word, f"{word} indeed") for word in WORDS}, ("{}", "about {}"))
    examples = [Example(text, POSITIVE if "warm" in text else NEGATIVE, has_neutral=False) for text in TEXTS]
    return {
        "embedding": Embedding(TEXTS, teacher, 12),  # type: ignore[arg-type]
        "soft": SoftLabels(TEXTS, teacher, 8),  # type: ignore[arg-type]
        "named": NamedLabels([named], 8),
        "sentiment": Sentiment(examples, 12),
    }


@pytest.mark.parametrize("name", ["embedding", "soft", "named", "sentiment"])
def test_each_objective_falls_when_its_batch_is_repeated(name: str) -> None:
    objective, learner = objectives()[name], student()
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = objective(learner, random.Random(3))  # type: ignore[operator]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0], losses


def test_where_annotators_had_no_neutral_choice_neutral_is_not_pushed_down() -> None:
    learner = student()
    objectives()["sentiment"](learner, random.Random(0)).backward()  # type: ignore[operator]
    grad = learner.sentiment.weight.grad
    assert grad is not None
    assert grad[NEUTRAL].abs().max() == 0 < grad[POSITIVE].abs().max()


def test_texts_of_a_batch_are_of_about_one_length() -> None:
    spans = [[len(TEXTS[n]) for n in alike(TEXTS, 10, random.Random(seed))] for seed in range(20)]
    assert sum(max(span) - min(span) for span in spans) / 20 < 0.6 * (max(map(len, TEXTS)) - min(map(len, TEXTS)))


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(train.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(train, "SAVE_EVERY", 3)
    parts = {"embedding": Part(objectives()["embedding"]), "late": Part(objectives()["soft"], start=0.5)}

    def run(folder: Path, seconds: int) -> Run:
        folder.mkdir(exist_ok=True)
        return Run(student(), folder, seconds / 60, 1e-3, 0)

    whole = run(tmp_path / "whole", 9)
    whole.train(parts)
    assert whole.step == 9

    stopped = run(tmp_path / "stopped", 9)
    update = stopped._update

    def until_a_kill() -> None:
        if stopped.step == 5:
            raise KeyboardInterrupt
        update()

    monkeypatch.setattr(stopped, "_update", until_a_kill)
    with pytest.raises(KeyboardInterrupt):
        stopped.train(parts)
    resumed = run(tmp_path / "stopped", 9)
    assert (resumed.step, resumed.spent) == (3, 3.0)
    resumed.train(parts)
    for name, parameter in whole.student.named_parameters():
        assert torch.equal(parameter, resumed.student.get_parameter(name)), name
        assert torch.equal(whole.average[name], resumed.average[name]), name


def test_a_folder_begun_with_something_else_is_refused(tmp_path: Path) -> None:
    train._begin(tmp_path, {"seed": 0})
    train._begin(tmp_path, {"seed": 0})
    with pytest.raises(NautileError, match="was begun with"):
        train._begin(tmp_path, {"seed": 1})


def write(path: Path, texts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(path, "wt") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def test_what_is_kept_back_is_not_gathered(tmp_path: Path) -> None:
    write(tmp_path / "corpus" / "talk.jsonl.xz", ["User: A first sentence.\nAssistant: Kept  back!"])
    write(tmp_path / "data" / "intent" / "clinc150" / "train.jsonl.xz", ["an intent that must not be seen"])
    write(tmp_path / "data" / "topic" / "trec6" / "train.jsonl.xz", ["Who was first?"])
    write(tmp_path / "data" / "topic" / "trec6" / "dev.jsonl.xz", ["kept back"])
    found = {key(text) for text in gather(tmp_path / "corpus", tmp_path / "data")}
    assert "afirstsentence" in found or "afirstsentencekeptback" in found
    assert "whowasfirst" in found
    assert not found & {"keptback", "anintentthatmustnotbeseen"}
    with pytest.raises(NautileError, match=r"no \.jsonl\.xz files"):
        gather(tmp_path / "nothing", tmp_path / "nothing")


def test_passages_are_whole_and_leave_out_who_speaks() -> None:
    found = list(passages("User: One thing. Another thing! A third?\nASSISTANT: The last.", random.Random(0)))
    assert " ".join(found) == "One thing. Another thing! A third? The last."


@pytest.mark.parametrize(
    ("article", "topic"),
    [
        ("A. Person\n\nA. Person (born 1970) is a Scottish footballer who plays in goal.", "sport"),
        ("B. Person\n\nB. Person was a bishop and politician.", None),
        ("Thing\n\nThing is a thing.", None),
        ("Thing\n\nNothing is defined here", None),
    ],
)
def test_an_article_has_a_topic_where_its_definition_names_one(article: str, topic: str | None) -> None:
    assert topic_of(article) == topic


def test_rows_to_calibrate_on_are_no_added_ones_and_share_no_text_with_training() -> None:
    import pandas as pd

    frame = pd.DataFrame({"text": [f"Text {n % 40}!" for n in range(80)], ADDED: [n % 4 == 0 for n in range(80)]})
    training, kept_back = part(frame, 0.2)
    assert not kept_back[ADDED].any()
    assert not set(training["text"]) & set(kept_back["text"])
    assert len(kept_back) == 12
