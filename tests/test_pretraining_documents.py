"""Documents of a source: every format gives the same, from any place on, and corrupt input is named and passed over."""

import gzip
import json
import lzma
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nautile.errors import NautileError
from nautile.pretraining.curriculum import Curriculum, Source, Stage
from nautile.pretraining.documents import Cursor, Document, Reader, Share

KINDS = ["jsonl", "jsonl.gz", "jsonl.xz", "jsonl.zst", "parquet"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(content)
    else:
        path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)(content))
    return path


def rows_of(start: int, count: int) -> list[dict[str, Any]]:
    return [{"text": f"document {n}", "other": n} for n in range(start, start + count)]


def texts(reader: Reader, size: int) -> list[str]:
    return [document.text for document in reader.read(size).documents]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """50 documents in five files, ten in each of the formats, the files' order that of their names."""
    folder = tmp_path_factory.mktemp("mixed")
    for place, kind in enumerate(KINDS):
        write(folder / f"{place}.{kind}", rows_of(10 * place, 10))
    return Source("mixed", f"{folder}/*")


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_its_rows_in_order_pass_after_pass(tmp_path: Path, kind: str) -> None:
    write(tmp_path / f"a.{kind}", rows_of(0, 20))
    reader = Reader(Source("a", f"{tmp_path}/a.*"))
    expected = [f"document {n}" for n in range(20)]
    assert texts(reader, 15) + texts(reader, 15) == expected
    assert reader.cursor.epoch == 1
    assert texts(reader, 20) == expected
    assert reader.cursor == Cursor(1, 0, 20, 20)


@settings(max_examples=40, deadline=None)
@given(first=st.integers(1, 60), second=st.integers(1, 60), process=st.integers(0, 2))
def test_a_reader_goes_on_from_any_cursor(mixed: Source, first: int, second: int, process: int) -> None:
    reader = Reader(mixed, Share(process, 3))
    reader.read(first)
    resumed = Reader(mixed, Share(process, 3))
    resumed.seek(Cursor(*json.loads(json.dumps(reader.cursor))))
    for _ in range(3):
        assert resumed.read(second) == reader.read(second)
        assert resumed.cursor == reader.cursor


@settings(max_examples=30, deadline=None)
@given(processes=st.integers(1, 12), held_out=st.sampled_from([0, 2, 3, 8]))
def test_shares_part_the_documents_without_overlap(mixed: Source, processes: int, held_out: int) -> None:
    trained = [texts(Reader(mixed, Share(p, processes, held_out)), 100) for p in range(processes)]
    kept = [[n for n in range(50) if held_out and n in Share(p, processes, held_out, True)] for p in range(processes)]
    together = [int(text.split()[1]) for share in trained for text in share] + [n for share in kept for n in share]
    assert sorted(together) == list(range(50))
    assert sum(map(len, kept)) == (-(-50 // held_out) if held_out else 0)
    assert max(map(len, trained)) - min(map(len, trained)) <= 1
    if not held_out:
        assert trained[0] == [f"document {n}" for n in range(0, 50, processes)]


def test_blank_documents_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n\n{"text": " \\n"}\n{"text": "two"}\n{"text": ""}')
    block = Reader(Source("a", str(path))).read(9)
    assert [document.text for document in block.documents] == ["one", "two"]
    assert block.empty == 3


BROKEN = [
    b'{"text": "a',
    b"[1]",
    b'{"body": "a"}',
    b'{"text": 3}',
    b'{"text": null}',
    b'{"text": "\xff"}',
    b"[" * 99999,
]


def test_corrupt_lines_are_named_and_passed_over_once_for_all_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([b'{"text": "one"}', *BROKEN, b'{"text": "two"}']))
    reader = Reader(Source("a", str(path), max_corrupt=len(BROKEN)))
    for _ in range(3):
        assert texts(reader, 5) == ["one", "two"]
    assert list(reader.corrupt) == [f"{path}:{n}" for n in range(2, 2 + len(BROKEN))]


def test_beyond_the_limit_the_error_names_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([b'{"text": "one"}', *BROKEN]))
    with pytest.raises(NautileError, match=r"'a': 5 rows .* max_corrupt is 4: .*a\.jsonl:2, .*a\.jsonl:3, .*:4, …"):
        Reader(Source("a", str(path), max_corrupt=4)).read(5)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_broken_file_is_named_and_the_next_one_read(tmp_path: Path, kind: str) -> None:
    rows = [{"text": f"{n} {n * 7919 % 100003} {n * 104729 % 1000003}"} for n in range(20000)]
    whole = write(tmp_path / f"a.{kind}", rows).read_bytes()
    (tmp_path / f"a.{kind}").write_bytes(whole[: len(whole) // 2])
    write(tmp_path / "b.jsonl", rows_of(0, 3))
    reader = Reader(Source("a", f"{tmp_path}/*"))
    everything = texts(reader, 30000)
    assert everything[-3:] == ["document 0", "document 1", "document 2"]
    assert 0 < len(everything) - 3 < 20000 or kind == "parquet"
    assert all(text.startswith(f"{n} ") for n, text in enumerate(everything[:-3]))
    assert len(reader.corrupt) == 1
    assert next(iter(reader.corrupt)) == f"{tmp_path}/a.{kind} from row {len(everything) - 2} on"
    assert texts(reader, 30000) == everything
    assert len(reader.corrupt) == 1


def test_a_source_without_a_document_is_an_error_not_a_loop(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": ""}])
    with pytest.raises(NautileError, match="holds no document"):
        Reader(Source("a", str(path))).read(1)
    write(path, rows_of(0, 1))
    with pytest.raises(NautileError, match="no document for process 1 of 2"):
        Reader(Source("a", str(path)), Share(1, 2)).read(1)


def test_chat_rows_under_other_column_names(tmp_path: Path) -> None:
    rows = [{"query": "q", "thought": "r", "reply": "a"}, {"query": "q", "thought": None, "reply": "a"}]
    rows += [{"query": "q", "thought": "r", "reply": " "}, {"query": "q"}]
    source = Source("a", str(write(tmp_path / "a.jsonl", rows)), format="chat", reasoning="thought", answer="reply")
    reader = Reader(source)
    assert reader.read(9) == ([Document("q", "r", "a"), Document("q", None, "a")], 1)
    assert list(reader.corrupt) == [f"{tmp_path}/a.jsonl:4"]


class FakeStream:
    def __init__(self, rows: list[dict[str, Any]], fails: bool = False) -> None:
        self.rows, self.fails = rows, fails

    def skip(self, count: int) -> "FakeStream":
        return FakeStream(self.rows[count:], self.fails)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from self.rows
        if self.fails:
            raise ConnectionError("reset")


def test_the_hub_is_streamed_and_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*names: Any, **options: Any) -> FakeStream:
        asked.append((names, options))
        return FakeStream(rows_of(0, 10))

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    source = Source("web", "hub:owner/web", subset="small")
    reader = Reader(source, Share(1, 2))
    assert texts(reader, 2) == ["document 1", "document 3"]
    resumed = Reader(source, Share(1, 2))
    resumed.seek(reader.cursor)
    assert texts(resumed, 9) == ["document 5", "document 7", "document 9"]
    assert asked[0] == (("owner/web", "small"), {"split": "train", "streaming": True})


def test_the_hub_out_of_reach_or_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(load_dataset=lambda *_, **__: FakeStream(rows_of(0, 1), fails=True))
    monkeypatch.setitem(sys.modules, "datasets", fake)
    with pytest.raises(NautileError, match=r"'web': the hub does not answer \(reset\)"):
        Reader(Source("web", "hub:owner/web")).read(2)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(NautileError, match="pip install datasets"):
        Reader(Source("web", "hub:owner/web")).read(2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": 0.0}, "positive"),
        ({"weight": float("nan")}, "positive"),
        ({"weight": float("inf")}, "positive"),
        ({"name": ""}, "name"),
        ({"location": "hub:"}, "location"),
        ({"format": "csv"}, "format"),
        ({"loss": "some"}, "loss"),
        ({"loss": "answer"}, "prompt"),
        ({"max_corrupt": -1}, "max_corrupt"),
    ],
)
def test_a_source_that_cannot_be_meant(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(NautileError, match=message):
        Source(**{"name": "a", "location": "a.jsonl", **wrong})


def test_files_that_are_not_there_or_not_readable(tmp_path: Path) -> None:
    with pytest.raises(NautileError, match="no file matches"):
        Source("a", f"{tmp_path}/*.jsonl").files()
    for name in ("a.csv", "a.parquet.gz", "a"):
        (tmp_path / name).touch()
        with pytest.raises(NautileError, match=r"pretraining reads \.jsonl"):
            Source("a", f"{tmp_path}/{name}").files()
    (tmp_path / "b[1].jsonl").touch()
    assert Source("a", f"{tmp_path}/b[1].jsonl").files() == [tmp_path / "b[1].jsonl"]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.jsonl").touch()
    assert Source("a", f"{tmp_path}/**/c.jsonl").files() == [tmp_path / "deep" / "c.jsonl"]


def test_stages_and_recipes_that_cannot_be_meant() -> None:
    source = Source("a", "a.jsonl")
    stage = Stage("one", (source,), 1000)
    for wrong in ({"sources": ()}, {"tokens": 0}, {"sources": (source, source)}):
        with pytest.raises(NautileError, match="stage 'one'"):
            Stage(**{"name": "one", "sources": (source,), "tokens": 1, **wrong})
    for wrong in (
        {"stages": ()},
        {"stages": (stage, stage)},
        {"length": 1},
        {"rows": 0},
        {"held_out": 1},
        {"ranks": 3},
    ):
        with pytest.raises(NautileError):
            Curriculum(**{"stages": (stage,), **wrong})


def test_shares_and_steps_of_a_stage() -> None:
    stage = Stage("one", (Source("a", "a.jsonl", weight=3), Source("b", "hub:b/b")), 1000)
    assert stage.shares == {"a": 0.75, "b": 0.25}
    assert Curriculum((stage,), length=100, rows=3).steps(stage) == 4
    assert Curriculum((stage,), length=100, rows=5).steps(stage) == 2
