"""What can be wrong with input and options: one clear line, exit code 2, and nothing on the disk has changed."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_judge
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

import nautile
from nautile.cli import main
from nautile.model.checkpoints import save
from nautile.model.heads import NautileForSequenceClassification
from nautile.tasks.files.chunks import CHUNK_ROWS

Setting = Callable[[Path], Any]
GOOD = "id,text\n1,good\n"


def write(name: str, content: str | bytes) -> Setting:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def write_parquet(name: str, table: pa.Table, keep: slice = slice(None), flip: bool = False) -> Setting:
    def setting(folder: Path) -> None:
        pq.write_table(table, folder / name, compression="snappy")
        data = (folder / name).read_bytes()[keep]
        (folder / name).write_bytes(data[:40] + b"\xff" * 200 + data[240:] if flip else data)

    return setting


def all_of(*settings: Setting) -> Setting:
    return lambda folder: [setting(folder) for setting in settings]


def unfinished(folder: Path) -> None:
    (folder / "out.csv.partial").mkdir()
    (folder / "out.csv.partial" / "manifest.json").write_text(json.dumps({"job": {"task": "other"}, "rows": 1}))


def linked(name: str, hard: bool) -> Setting:
    def setting(folder: Path) -> None:
        (folder / name).hardlink_to(folder / "in.csv") if hard else (folder / name).symlink_to(folder / "in.csv")

    return setting


VARIED = pa.table({"text": [f"{n} good" * 9 for n in range(3000)]})
INPUT = write("in.csv", GOOD)
OUT = ["-o", "out.csv"]

BAD: dict[str, tuple[Setting, list[str], str]] = {
    "missing column": (INPUT, ["in.csv", "-c", "body"], "no column 'body'; pass --column with one of: id, text"),
    "no text column": (write("in.csv", "a,b\n1,2\n"), ["in.csv"], "no column 'text'"),
    "empty file": (write("in.csv", ""), ["in.csv"], "is empty"),
    "empty JSONL": (write("in.jsonl", "\n\n"), ["in.jsonl"], "is empty"),
    "empty Parquet": (write("in.parquet", ""), ["in.parquet"], "not a whole Parquet file"),
    "NUL in a CSV": (write("in.csv", "text\na\0b\n"), ["in.csv"], "line 2: a NUL character"),
    "UTF-16": (write("in.csv", GOOD.encode("utf-16")), ["in.csv"], "pass --encoding utf-16"),
    "UTF-16 without a mark": (write("in.csv", GOOD.encode("utf-16-le")), ["in.csv"], "--encoding utf-16-le"),
    "Latin-1": (write("in.csv", "text\nok\ntrès café\n".encode("latin-1")), ["in.csv"], "line 3: byte 0xe8 at offset"),
    "no such encoding": (INPUT, ["in.csv", "--encoding", "klingon"], "no such text encoding"),
    "a binary file": (write("in.csv", bytes(range(256)) * 9), ["in.csv"], "line 2: byte 0x80 at .* looks like no text"),
    "an Excel file": (write("in.csv", b"PK\x03\x04\x14\0\x08\xff\xfe"), ["in.csv"], "Excel or ZIP"),
    "a column twice": (write("in.csv", "text,text\na,b\n"), ["in.csv"], "names the column 'text' more than once"),
    "a Parquet column twice": (
        write_parquet("in.parquet", pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"])),
        ["in.parquet"],
        "more than once",
    ),
    "a cell too few": (write("in.csv", "a,text\n1,b\n2\n"), ["in.csv"], "line 3: 1 cells, but the header has 2"),
    "a cell too many": (write("in.csv", "a,text\n\n1,b,c\n"), ["in.csv"], "line 3: 3 cells"),
    "an open quote": (write("in.csv", 'text\nok\n"open\nmore\n'), ["in.csv"], "line 3: a quote that opens"),
    "a semicolon file": (write("in.csv", "id;text\n1;a\n"), ["in.csv"], "pass --delimiter ';'"),
    "a long delimiter": (INPUT, ["in.csv", "--delimiter", "::"], "--delimiter '::'"),
    "broken JSON": (write("in.jsonl", '{"text": 1}\n{"text": \n'), ["in.jsonl"], "line 2: broken JSON"),
    "JSON that is no object": (write("in.jsonl", '{"text": 1}\n["a"]\n'), ["in.jsonl"], "line 2: no JSON object"),
    "NaN in JSON": (write("in.jsonl", '{"text": NaN}\n'), ["in.jsonl"], "line 1: NaN is not JSON"),
    "no name of a model": (write("in.csv", GOOD), ["in.csv", "--model", ""], "model is an empty name"),
    "an odd format of texts": (write("in.csv", GOOD), ["--text", "hi", "--format", "xml"], "unknown format 'xml'"),
    "Parquet to a pipe": (
        write_parquet("in.parquet", VARIED),
        ["in.parquet", "--format", "parquet"],
        "name a file with --output",
    ),
    "a label twice": (
        lambda folder: [write("in.csv", GOOD)(folder), write("l.json", '{"a": "x", "b": "", "a": "y"}')(folder)],
        ["in.csv", "--labels", "l.json"],
        "a key stands twice",
    ),
    "a key too late": (
        write("in.jsonl", b'{"text": "a"}\n' * CHUNK_ROWS + b'{"txt": "a"}\n'),
        ["in.jsonl"],
        f"line {CHUNK_ROWS + 1}: the key 'txt'",
    ),
    "cut Parquet": (write_parquet("in.parquet", VARIED, slice(0, -50)), ["in.parquet"], "not a whole Parquet file"),
    "damaged Parquet": (write_parquet("in.parquet", VARIED, flip=True), ["in.parquet"], "damaged"),
    "not gzip": (write("in.csv.gz", GOOD), ["in.csv.gz"], "cannot be read"),
    "cut gzip": (write("in.csv.gz", gzip.compress(GOOD.encode() * 99)[:-9]), ["in.csv.gz"], "is the file whole?"),
    "cut xz": (write("in.csv.xz", b"\xfd7zXZ\x00\x00"), ["in.csv.xz"], "is the file whole?"),
    "unknown suffix": (write("in.docx", "a"), ["in.docx"], "no format has this suffix; .* pass --format"),
    "an Excel file by its name": (write("in.xlsx", "a"), ["in.xlsx"], "looks like an Excel file; save it as comma-"),
    "unknown format": (INPUT, ["in.csv", "--format", "xml"], "unknown format 'xml'"),
    "no such file": (INPUT, ["absent.csv"], "absent.csv: there is no such file"),
    "a folder as input": (lambda folder: (folder / "in.csv").mkdir(), ["in.csv"], "is a folder"),
    "a folder of no suffix as input": (lambda folder: (folder / "in").mkdir(), ["in"], "in is a folder"),
    "no name of an input": (INPUT, [""], "the input is an empty name"),
    "no name of an output": (INPUT, ["in.csv", "-o", ""], "the output is an empty name"),
    "Parquet through a pipe": (INPUT, ["-", "--format", "parquet"], "can't come through a pipe"),
    "no input": (INPUT, [], "give one input"),
    "two inputs": (INPUT, ["in.csv", "--text", "a"], "give one input"),
    "limit 0": (INPUT, ["in.csv", "--limit", "0"], "--limit 0"),
    "limit -1": (INPUT, ["in.csv", "--limit", "-1"], "--limit -1"),
    "limit many": (INPUT, ["in.csv", "--limit", "many"], "--limit"),
    "an unknown option": (INPUT, ["in.csv", "--colour", "red"], "--colour"),
    "a result column": (write("in.csv", "text,label\na,b\n"), ["in.csv"], "'label' already; .* --prefix pred_"),
    "a prefix in use": (write("in.csv", "text,pred_note\na,b\n"), ["in.csv", "--prefix", "pred_"], "nautile_"),
    "no folder": (INPUT, ["in.csv", "-o", "absent/out.csv"], "no folder"),
    "output is a folder": (
        all_of(INPUT, lambda folder: (folder / "out.csv").mkdir()),
        ["in.csv", *OUT, "--overwrite"],
        "out.csv is a folder",
    ),
    "output is a folder of no suffix": (
        all_of(INPUT, lambda folder: (folder / "out").mkdir()),
        ["in.csv", "-o", "out"],
        "out is a folder",
    ),
    "output is a device": (INPUT, ["in.csv", "-o", "null.csv", "--overwrite"], "not a regular file"),
    "output of no format": (
        write("in.txt", GOOD),
        ["in.txt", "--format", "csv", "-o", "out.txt"],
        r"out.txt: no format has this suffix; [^-]*\)$",
    ),
    "output to Excel": (INPUT, ["in.csv", "-o", "out.xlsx"], r"out.xlsx: no format has this suffix; [^-]*\)$"),
    "output exists": (all_of(INPUT, write("out.csv", "mine")), ["in.csv", *OUT], "exists already; pass --overwrite"),
    "output is the input": (INPUT, ["in.csv", "-o", "in.csv", "--overwrite"], "is the input itself"),
    "output is a link to the input": (
        all_of(INPUT, linked("out.csv", hard=False)),
        ["in.csv", *OUT, "--overwrite"],
        "is the input itself",
    ),
    "output is a hard link to the input": (
        all_of(INPUT, linked("out.csv", hard=True)),
        ["in.csv", *OUT, "--overwrite"],
        "is the input itself",
    ),
    "an unfinished job": (all_of(INPUT, unfinished), ["in.csv", *OUT], "pass --resume .* or --overwrite"),
    "another job to resume": (all_of(INPUT, unfinished), ["in.csv", *OUT, "--resume"], "begun with another"),
    "resume from a pipe": (INPUT, ["-", *OUT, "--resume"], "--resume needs a file"),
    "partial is a file": (all_of(INPUT, write("out.csv.partial", "x")), ["in.csv", *OUT], "is in the way"),
    "unknown task": (INPUT, ["in.csv", "--task", "astrology"], "unknown task 'astrology'"),
    "an unknown task of several": (
        INPUT,
        ["in.csv", "--task", "topic,astrology"],
        "unknown task 'astrology'; there are",
    ),
    "an empty label": (INPUT, ["in.csv", "--labels", "a,b,"], "labels 'a,b,': one of them is empty; is there a comma"),
    "labels too deep": (
        all_of(INPUT, write("l.json", "[" * 100_000)),
        ["in.csv", "--labels", "l.json"],
        "l.json: cannot be read as a label list",
    ),
    "too many orders": (
        INPUT,
        ["in.csv", "--labels", "a,b", "--permutations", "1001"],
        "permutations must be a whole number from 1 up to 1,000, not 1001",
    ),
    "unknown model": (INPUT, ["in.csv", "--model", "no-such"], "unknown model 'no-such'"),
    "no threads": (INPUT, ["in.csv", "--threads", "0"], "threads must be at least 1"),
    "a model folder of nothing": (
        all_of(INPUT, lambda folder: (folder / "model").mkdir()),
        ["in.csv", "--model", "./model"],
        "model: cannot be loaded",
    ),
}


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("case", BAD)
def test_one_clear_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setting, arguments, message = BAD[case]
    setting(tmp_path)
    monkeypatch.chdir(tmp_path)
    if "null.csv" in arguments:
        (tmp_path / "null.csv").symlink_to(os.devnull)
    if not {"--task", "--model", "--threads"} & set(arguments):
        monkeypatch.setitem(sys.modules, "nautile.tasks.classify", fake_judge.module())
    before = tree(tmp_path)
    code = main(["classify", *arguments])
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    assert captured.err.startswith("nautile: error: ")
    assert captured.err.count("\n") == 1
    assert re.search(message, captured.err)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("case", ["a cell too few", "broken JSON", "damaged Parquet", "cut gzip", "a key too late"])
def test_a_fault_far_down_is_found_before_any_work(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setting, arguments, message = BAD[case]
    setting(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setitem(sys.modules, "nautile.tasks.classify", fake_judge.module())
    assert main(["classify", *arguments, *OUT]) == 2
    assert not (tmp_path / "log").exists()
    assert not (tmp_path / "out.csv.partial").exists()
    assert message.split(";")[0] in capsys.readouterr().err


@pytest.mark.parametrize("case", ["no such file", "an unknown option", "Latin-1", "unknown task"])
def test_the_process_itself_ends_with_2_and_no_traceback(case: str, tmp_path: Path) -> None:
    setting, arguments, _ = BAD[case]
    setting(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "nautile.cli", "classify", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nautile: error: ")
    assert done.stderr.count("\n") == 1


def test_an_unknown_task_is_answered_before_torch_is_loaded() -> None:
    code = "import sys; from nautile.cli import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "classify", "in.csv", "--task", "astrology"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
    assert done.stderr.startswith("nautile: error: unknown task 'astrology'")


def test_a_folder_that_forbids_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text(GOOD)
    monkeypatch.setattr(os, "access", lambda path, mode: (Path(path), mode) != (tmp_path, os.W_OK))
    assert main(["classify", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv")]) == 2
    assert "can't be written to" in capsys.readouterr().err


def test_a_full_disk_is_one_line_too(capfd: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is full")
    command = [sys.executable, fake_judge.__file__, "classify", "--text", "good"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "nautile: error: standard output: No space left on device\n"


def test_a_closed_standard_output_is_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(GOOD)
    script = 'exec "$@" >&-'
    command = ["sh", "-c", script, "sh", sys.executable, fake_judge.__file__, "classify", str(tmp_path / "in.csv")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "nautile: error: standard output is closed; give --output FILE\n")
    written = subprocess.run([*command, "-q", "-o", str(tmp_path / "out.csv")], env=environment)
    assert written.returncode == 0
    assert (tmp_path / "out.csv").read_text().startswith("id,text,label")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model that has a head of three labels."""
    folder = tmp_path_factory.mktemp("model")
    labels = dict(enumerate(fake_judge.LABELS))
    save(tiny.model(NautileForSequenceClassification, vocab_size=600, id2label=labels), folder)
    return folder


def test_the_real_judge_gives_a_file_what_it_gives_a_frame(checkpoint: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["good", "", None, "bad " * 200, "good"]})
    frame.to_parquet(tmp_path / "in.parquet")
    model = str(checkpoint)
    assert main(["classify", str(tmp_path / "in.parquet"), "-o", str(tmp_path / "out.parquet"), "--model", model]) == 0
    expected = nautile.classify(frame, "text", model=model)
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert list(found.columns) == ["text", *expected.columns]
    found["label"] = found["label"].astype(object).where(found["label"].notna(), None)  # pandas reads them as nan
    pd.testing.assert_frame_equal(found[expected.columns], expected, check_dtype=False)
    assert found["windows"][3] > 1
    assert found["note"][1:3].tolist() == ["empty text", "missing"]


def test_cut_weights_are_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in.csv").write_text(GOOD)
    code = main(["classify", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv"), "--model", str(checkpoint)])
    weights.write_bytes(whole)
    errors = capsys.readouterr().err
    assert code == 2
    assert errors.startswith(f"nautile: error: {checkpoint}: cannot be loaded")
    assert errors.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()
