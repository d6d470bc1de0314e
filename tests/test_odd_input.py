"""What is odd but no error goes through, every row in its place."""

import csv
import json
import sys
from pathlib import Path

import fake_judge
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nautile.cli import main

ODD: dict[str, tuple[str, str | bytes, list[str], list[str]]] = {
    "header only": ("in.csv", "id,text\n", [], []),
    "5 MB in one cell": ("in.csv", "text\n" + "x" * 5_000_000 + "\nb\n", ["x" * 5_000_000, "b"], ["", ""]),
    "right to left": ("in.csv", "text\nשלום עולם\u202e!\nمرحبا\n", ["שלום עולם\u202e!", "مرحبا"], ["", ""]),
    "combining": ("in.csv", "text\ne\u0301\u200d🤷🏽\u200d♀️\n", ["e\u0301\u200d🤷🏽\u200d♀️"], [""]),
    "empty cells": ("in.csv", "id,text\n1,\n2,ok\n3,\n", ["", "ok", ""], ["empty text", "", "empty text"]),
    "mixed types": (
        "in.jsonl",
        '{"text": "a"}\n{"text": 5}\n{"text": null}\n{"text": ["b"]}\n{"id": 1}\n',
        ["a", "5", "", '["b"]', ""],
        ["", "not text", "missing", "not text", "missing"],
    ),
    "half a surrogate pair": ("in.jsonl", '{"text": "a\\ud800"}\n', ["a\ufffd"], [""]),
    "NUL in JSON": ("in.jsonl", '{"text": "a\\u0000b"}\n', ["a\0b"], [""]),
    "line ends of every kind": ("in.csv", "text\r\na\rb\n", ["a", "b"], ["", ""]),
    "formulas": ("in.csv", 'text\n=1+1\n"@x,y"\n', ["=1+1", "@x,y"], ["", ""]),
}


@pytest.mark.parametrize("output", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("case", ODD)
def test_what_is_merely_odd_goes_through(
    case: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content, texts, notes = ODD[case]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setitem(sys.modules, "nautile.tasks.classify", fake_judge.module())
    target = tmp_path / f"out.{output}"
    assert main(["classify", str(tmp_path / name), "-o", str(target)]) == 0
    assert f"{len(texts)} row" in capsys.readouterr().err
    written = [text.replace("\0", "\ufffd") for text in texts] if output == "csv" else texts
    assert shown(target) == (written, notes)


@pytest.mark.parametrize("output", ["csv", "tsv", "parquet"])
def test_a_nul_is_replaced_where_it_could_not_be_read_again_and_that_is_told(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a\\u0000b", "c": "\\u0000"}\n{"text": "b", "c": "d"}\n')
    monkeypatch.setitem(sys.modules, "nautile.tasks.classify", fake_judge.module())
    pq.write_table(
        pa.table({"text": ["a\0b", "b"], "c": pa.array(["\0", None]).dictionary_encode()}), tmp_path / "in.parquet"
    )
    for source in ("in.jsonl", "in.parquet"):
        first, second = tmp_path / f"{source}.{output}", tmp_path / f"{source}.again.{output}"
        assert main(["classify", str(tmp_path / source), "-o", str(first)]) == 0
        assert "; 1 row with a NUL character, which is U+FFFD in CSV and TSV;" in capsys.readouterr().err
        assert main(["classify", str(first), "-o", str(second), "--prefix", "p_"]) == 0
        assert ("a NUL" in capsys.readouterr().err) == (output == "parquet")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_limit_beyond_all_numbers_is_no_limit(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text("text\na\nb\n")
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    monkeypatch.setitem(sys.modules, "nautile.tasks.classify", fake_judge.module())
    assert main(["classify", str(tmp_path / f"in.{suffix}"), "--limit", str(10**30)]) == 0
    assert capsys.readouterr().err.startswith("2 rows")


def shown(target: Path) -> tuple[list[str], list[str]]:
    """The texts of an output, as a CSV shows them, and the notes."""
    if target.suffix == ".parquet":
        rows = pq.read_table(target).to_pylist()
    elif target.suffix == ".jsonl":
        rows = [json.loads(line) for line in target.read_text("utf-8").split("\n")[:-1]]
        halves = {"a\ud800": "a\ufffd"}
        rows = [{**row, "text": halves.get(str(row["text"]), row["text"])} for row in rows]
        rows = [
            {**row, "text": json.dumps(row["text"]) if isinstance(row["text"], list) else row["text"]} for row in rows
        ]
    else:
        with target.open(newline="", encoding="utf-8") as stream:
            csv.field_size_limit(1 << 26)
            rows = list(csv.DictReader(stream))
    texts = ["" if row["text"] is None else str(row["text"]) for row in rows]
    return texts, [row["note"] for row in rows]
