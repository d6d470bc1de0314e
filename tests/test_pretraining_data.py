"""Packed batches: every token a target once, shares of tokens kept, and an order that any state resumes exactly."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nautile.errors import NautileError
from nautile.model.vocabulary import Vocabulary
from nautile.pretraining.curriculum import Curriculum, Source, Stage
from nautile.pretraining.data import Batch, batches, report
from nautile.pretraining.documents import Document
from nautile.pretraining.packing import Row, Tokens, tokenise

VOCABULARY = Vocabulary(ranks=500)
EOS = VOCABULARY.eos_id


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def words(name: str, count: int, longest: int) -> list[str]:
    """Texts that tell themselves apart, of 1 to `longest` words in an irregular order."""
    return [f"{name}{n}" + " and so on" * (n * 7919 % longest) for n in range(count)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A source of short texts, one of long texts, one of three documents, and a chat."""
    folder = tmp_path_factory.mktemp("sources")
    chat = [{"query": f"q{n}", "reasoning": "so " * (n % 5), "answer": f"a{n}"} for n in range(30)]
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chat))
    short = words("s", 97, 4)
    (folder / "short.jsonl").write_text("broken\n\n" + "".join(json.dumps({"text": text}) + "\n" for text in short))
    return Stage(
        "mix",
        (
            Source("short", str(folder / "short.jsonl"), weight=5),
            Source("long", write(folder / "long.jsonl", words("l", 40, 60)), weight=3),
            Source("few", write(folder / "few.jsonl", words("f", 3, 3))),
            Source("chat", str(folder / "chat.jsonl"), format="chat", loss="answer"),
        ),
        tokens=10_000,
    )


def recipe(stage: Stage, **changes: Any) -> Curriculum:
    return Curriculum((stage,), **{"length": 24, "rows": 4, "ranks": 500, "seed": 7, "block": 16, **changes})


def take(iterator: Any, count: int) -> list[Batch]:
    return [next(iterator) for _ in range(count)]


def equal(ours: list[Batch], theirs: list[Batch]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(np.array_equal(a[name], b[name]) for a, b in pairs for name in ("ids", "document", "weight"))


def documents(taken: list[Batch], vocabulary: Vocabulary = VOCABULARY) -> list[str]:
    """The whole texts of some batches of plain text, pieces put together again."""
    ids: list[int] = []
    for batch in taken:
        for row, pieces in zip(batch["ids"], batch["document"], strict=True):
            for piece in range(1, pieces.max() + 1):
                part = row[pieces == piece].tolist()
                ids += part[1:] if ids and ids[-1] != EOS else part
    return vocabulary.decode(ids).split("<|endoftext|>")[:-1]


@settings(max_examples=200)
@given(
    sizes=st.lists(st.tuples(st.integers(2, 50), st.integers(0, 50)), min_size=1, max_size=20),
    length=st.integers(2, 40),
)
def test_every_token_but_a_documents_first_is_a_target_once(sizes: list[tuple[int, int]], length: int) -> None:
    made = [Tokens(np.arange(1, size + 1, dtype=np.int32) + 100 * n, prompt) for n, (size, prompt) in enumerate(sizes)]
    rows = [Row(length)]
    for tokens in made:
        start: int | None = 0
        while start is not None:
            if rows[-1].full:
                rows.append(Row(length))
            start = rows[-1].add(tokens, start)
    targets, learnt = [], []
    for row in rows:
        assert (row.ids[row.used :] == 0).all()
        assert (row.document[: row.used] > 0).all()
        assert not row.document[row.used :].any()
        assert not row.weight[row.used :].any()
        assert set(np.diff(row.document[: row.used])) <= {0, 1}
        assert row.document[0] == 1
        follows = np.flatnonzero(row.document[1:] * (row.document[1:] == row.document[:-1])) + 1
        assert (row.ids[follows] == row.ids[follows - 1] + 1).all()
        assert set(np.flatnonzero(row.weight)) <= set(follows)
        targets += row.ids[follows].tolist()
        learnt += row.ids[row.weight > 0].tolist()
    assert all(row.used >= length - 1 for row in rows[:-1])
    assert targets == [token for tokens in made for token in tokens.ids[1:]]
    assert learnt == [token for tokens in made for token in tokens.ids[max(1, tokens.prompt) :]]


def test_text_ends_with_the_end_and_a_chats_prompt_is_left_out() -> None:
    text = tokenise(Document("a <|im_end|> b"), VOCABULARY)
    assert text.ids.tolist() == [*VOCABULARY.encode("a <|im_end|> b"), EOS]
    assert text.prompt == 0
    chat = tokenise(Document("why <|think_start|>", "so", "yes"), VOCABULARY, "answer")
    assert chat.ids.tolist() == VOCABULARY.render_chat("why <|think_start|>", "so", "yes")
    assert chat.ids[: chat.prompt].tolist() == VOCABULARY.render_chat("why <|think_start|>")
    assert tokenise(Document("why", "so", "yes"), VOCABULARY, "all").prompt == 0


def test_the_shape_of_a_batch_and_its_order_from_the_seed(stage: Stage) -> None:
    taken = take(batches(recipe(stage), stage), 8)
    for batch in taken:
        assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
            "ids": ((4, 24), "int32"),
            "document": ((4, 24), "int32"),
            "weight": ((4, 24), "float32"),
        }
    assert equal(taken, take(batches(recipe(stage), stage, prefetch=0), 8))
    assert not equal(taken, take(batches(recipe(stage, seed=8), stage), 8))


@settings(max_examples=25, deadline=None)
@given(
    before=st.integers(0, 40),
    after=st.integers(1, 6),
    block=st.sampled_from([1, 5, 16, 200]),
    process=st.integers(0, 1),
    prefetch=st.sampled_from([0, 3]),
    warm=st.integers(0, 3),
)
def test_a_state_resumes_exactly(
    stage: Stage, before: int, after: int, block: int, process: int, prefetch: int, warm: int
) -> None:
    parts = recipe(stage, block=block)
    straight = batches(parts, stage, process, 2, prefetch=prefetch)
    take(straight, before)
    state = json.dumps(straight.get_state())
    expected = take(straight, after)
    resumed = batches(parts, stage, process, 2, prefetch=prefetch)
    take(resumed, warm)
    resumed.set_state(json.loads(state))
    assert json.dumps(resumed.get_state()) == state
    assert equal(take(resumed, after), expected)
    assert resumed.get_state() == straight.get_state()
    straight.close()
    resumed.close()


def test_shares_are_of_tokens_and_a_source_that_runs_out_begins_again(stage: Stage) -> None:
    iterator = batches(recipe(stage), stage)
    taken = take(iterator, 200)
    found = report([iterator.get_state()])
    total = sum(source.tokens for source in found.values())
    assert total == sum((batch["document"] > 0).sum() for batch in taken) >= 200 * 4 * 23
    for name, share in stage.shares.items():
        assert found[name].tokens / total == pytest.approx(share, abs=0.01), name
    assert found["few"].epoch > 50
    assert found["few"].documents == pytest.approx(3 * found["few"].epoch, abs=6)
    assert found["short"].epoch >= 2
    assert found["short"].empty >= found["short"].epoch
    assert found["short"].corrupt == (stage.sources[0].location + ":1",)
    assert found["long"].corrupt == ()
    iterator.close()


def test_what_is_skipped_is_reported_from_the_first_block_on(stage: Stage) -> None:
    iterator = batches(recipe(stage), stage)
    take(iterator, 1)
    assert report([iterator.get_state()])["short"].corrupt == (stage.sources[0].location + ":1",)
    assert report([iterator.get_state()])["short"].empty == 1


def test_blank_rows_are_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f"\n{json.dumps({'text': text})}\n" for text in words("d", 200, 5)))
    stage = Stage("one", (Source("a", str(path)),), 1)
    iterator = batches(recipe(stage, rows=1, block=1), stage)
    for _ in range(50):
        next(iterator)
        found = report([iterator.get_state()])["a"]
        assert found.empty == found.documents > 0
    assert found.epoch == 0


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("block", [1, 16, 1000])
def test_processes_read_the_documents_of_a_pass_between_them(tmp_path: Path, processes: int, block: int) -> None:
    texts = words("d", 90, 9)
    stage = Stage("one", (Source("a", write(tmp_path / "a.jsonl", texts)),), 1)
    read: list[str] = []
    orders = []
    for process in range(processes):
        mine = texts[process::processes]
        iterator = batches(recipe(stage, block=block), stage, process, processes)
        found = documents(take(iterator, 500 // (4 // processes)))
        orders.append(found[: len(mine)] != mine)
        assert sorted(found[: len(mine)]) == sorted(found[len(mine) : 2 * len(mine)])
        read += found[: len(mine)]
        iterator.close()
    assert sorted(read) == sorted(texts)
    assert any(orders) == (block > 1)


def test_passes_are_shuffled_anew(tmp_path: Path) -> None:
    stage = Stage("one", (Source("a", write(tmp_path / "a.jsonl", words("d", 40, 5))),), 1)
    found = documents(take(batches(recipe(stage, block=1000), stage), 60))
    assert sorted(found[:40]) == sorted(found[40:80])
    assert found[:40] != found[40:80]


def test_held_out_rows_are_never_trained_on(tmp_path: Path) -> None:
    texts = words("d", 60, 5)
    stage = Stage("one", (Source("a", write(tmp_path / "a.jsonl", texts)),), 1)
    parts = recipe(stage, held_out=10)
    assert set(documents(take(batches(parts, stage), 100))) == set(texts) - set(texts[::10])
    assert set(documents(take(batches(parts, stage, evaluate=True), 20))) == set(texts[::10])
    with pytest.raises(NautileError, match="holds nothing out"):
        batches(recipe(stage), stage, evaluate=True)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"length": 30}, {"block": 3}, {"ranks": 600}, {"rows": 2}])
def test_a_state_of_another_recipe_is_refused(stage: Stage, changes: dict[str, Any]) -> None:
    state = batches(recipe(stage), stage).get_state()
    with pytest.raises(NautileError, match=next(iter(changes))):
        batches(recipe(stage, **changes), stage).set_state(state)


def test_a_state_with_more_sources_is_refused(stage: Stage) -> None:
    fewer = Stage("mix", stage.sources[:-1], 1)
    with pytest.raises(NautileError, match="source chat"):
        batches(recipe(fewer), fewer).set_state(batches(recipe(stage), stage).get_state())


def test_a_state_outlives_a_move_of_its_files_but_not_a_change(tmp_path: Path) -> None:
    def at(folder: str, texts: list[str]) -> Any:
        (tmp_path / folder).mkdir()
        stage = Stage("one", (Source("a", write(tmp_path / folder / "a.jsonl", texts)),), 1)
        return batches(recipe(stage), stage)

    first = at("here", words("d", 40, 5))
    take(first, 3)
    moved = at("there", words("d", 40, 5))
    moved.set_state(first.get_state())
    assert equal(take(moved, 3), take(first, 3))
    with pytest.raises(NautileError, match="source a"):
        at("changed", words("d", 41, 5)).set_state(first.get_state())


def test_processes_that_cannot_share(stage: Stage) -> None:
    with pytest.raises(NautileError, match="4 rows"):
        batches(recipe(stage), stage, 0, 3)
    with pytest.raises(NautileError, match="process 2 of 2"):
        batches(recipe(stage), stage, 2, 2)


def test_too_much_corruption_reaches_the_reader_through_the_prefetch(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n' * 50 + "broken\n" * 3)
    stage = Stage("one", (Source("a", str(path), max_corrupt=2),), 1)
    iterator = batches(recipe(stage), stage)
    with pytest.raises(NautileError, match=r"a\.jsonl:51"):
        take(iterator, 100)


def test_data_takes_neither_torch_nor_transformers() -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; import nautile.pretraining.data as d; "
        "print(d.batches.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "batches\n", done.stderr
