"""The command line: pipes, terminals, texts, the column, and what is told along the way."""

import csv
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import fake_judge
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nautile.cli import main

ROWS = 3000
COMMAND = [sys.executable, fake_judge.__file__, "classify"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nautile.tasks.classify", fake_judge.module())


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A CSV of ROWS rows, some empty."""
    path = tmp_path / "reviews.csv"
    texts = ["" if n % 100 == 7 else f"review {n}" for n in range(ROWS)]
    pd.DataFrame({"id": range(ROWS), "text": texts}).to_csv(path, index=False)
    return path


def classify(*arguments: object) -> int:
    return main(["classify", *map(str, arguments)])


def start(*arguments: object) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=pipe)


def test_rows_go_through_a_pipe(reviews: Path) -> None:
    process = start("-")
    out, errors = process.communicate(reviews.read_bytes())
    assert process.returncode == 0
    rows = list(csv.DictReader(out.decode().splitlines(keepends=True)))
    assert [int(row["id"]) for row in rows] == list(range(ROWS))
    assert rows[7]["note"] == "empty text"
    assert errors.decode().count("\n") == 1


def test_a_pipe_can_speak_json_lines(judge: None, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text('{"text": "a", "n": 1}\n')
    assert classify(tmp_path / "in.txt", "--format", "jsonl", "-q") == 0
    captured = capsysbinary.readouterr()
    assert json.loads(captured.out)["n"] == 1
    assert captured.err == b""


def test_a_reader_that_goes_away_is_no_error(reviews: Path) -> None:
    process = start(reviews)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b"id,text,label")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_a_job_from_a_pipe_leaves_no_unfinished_parts(tmp_path: Path) -> None:
    process = start("-", "-o", tmp_path / "out.csv")
    _, errors = process.communicate(b"a,text\n" + b"1,good\n" * 3000 + b"ragged\n")
    assert process.returncode == 2
    assert b"line 3002: 1 cells" in errors
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_gets_a_table_and_counts(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n" + "".join(f"[bold]row {n}\x1b[2J\n" for n in range(30)))
    near, far = pty.openpty()
    environment = {**ENVIRONMENT, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run([*COMMAND, tmp_path / "in.csv"], env=environment, stdout=far, stderr=subprocess.PIPE)
    os.close(far)
    shown = os.read(near, 1 << 16).decode()
    os.close(near)
    assert done.returncode == 0
    assert "[bold]row 19" in shown
    assert "row 20" not in shown
    assert "\x1b[2J" not in shown
    assert "... and 10 more rows" in shown
    assert "%)" in shown
    assert b"30 rows, 30 judged" in done.stderr


def test_a_text_needs_no_file(judge: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert classify("--text", "I love it", "--text", "", "-q") == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["text"], row["label"], row["note"]) for row in rows] == [
        ("I love it", "negative", ""),
        ("", "", "empty text"),
    ]


@pytest.mark.parametrize(
    ("header", "options", "labelled"),
    [("text,b", [], "aa"), ("b,text", [], "bbb"), ("b,c", ["--column", "c"], "bbb"), ("only", [], "aa")],
)
def test_the_text_column(
    header: str, options: list[str], labelled: str, tmp_path: Path, judge: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text(header + "\n" + ",".join(["aa", "bbb"][: header.count(",") + 1]) + "\n")
    assert classify(tmp_path / "in.csv", "-q", *options) == 0
    row = next(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert row["label"] == fake_judge.LABELS[len(labelled) % 3]


def test_long_texts_are_counted(tmp_path: Path, judge: None, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text(f"text\n{'x' * 2500}\n{'x' * 1000}\nshort\n")
    assert classify(tmp_path / "in.csv", "-o", tmp_path / "out.parquet", "--prefix", "p_") == 0
    assert "2 long texts took 3 further windows" in capsys.readouterr().err
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["p_windows"].to_pylist() == [3, 2, 1]
    assert table.schema.field("p_confidence").type == pa.float64()


def test_an_input_that_ends_before_its_time_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut(*_: object, **__: object) -> None:
        raise EOFError

    (tmp_path / "in.csv").write_text("text\none\n")
    module = fake_judge.module()
    monkeypatch.setattr(module, "load_judge", cut)
    monkeypatch.setitem(sys.modules, "nautile.tasks.classify", module)
    assert classify(tmp_path / "in.csv") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].endswith("an input ended before its time: is the file whole?")
    assert "Traceback" not in said.err


def test_an_error_in_the_input_is_told_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    script = f"import sys; from nautile.cli import main; main(['classify', {str(tmp_path / 'in.csv')!r}]); "
    script += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert "no column 'text'" in done.stderr


def test_labels_cannot_style_the_terminal_in_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("text\n" + "xxx\n" * 3)
    monkeypatch.setattr(fake_judge, "LABELS", ("[bold]\x1b[2Jx", "b", "c"))
    monkeypatch.setitem(sys.modules, "nautile.tasks.classify", fake_judge.module())
    assert classify(tmp_path / "in.csv") == 0
    assert capsys.readouterr().err.startswith("3 rows, 3 judged (3 [bold] [2Jx);")


@pytest.mark.parametrize("command", [[], ["classify"], ["evaluate"], ["finetune"], ["convert"], ["pretrain", "plan"]])
@pytest.mark.parametrize("width", ["80", "40"])
def test_help_is_shown_whatever_the_terminal_can_encode(command: list[str], width: str) -> None:
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "latin-1", "COLUMNS": width}
    called = [sys.executable, "-m", "nautile.cli", *command, "--help"]
    done = subprocess.run(called, env=environment, capture_output=True, check=True)
    assert done.stdout.startswith(b" ")
    assert done.stderr == b""
    if command == ["classify"] and width == "80":
        assert b"cuda:1 ..., or" in done.stdout


def test_help_and_version_load_nothing_heavy() -> None:
    script = "import sys; from nautile.cli import main; main(['--help']); main(['classify', '--help']); "
    script += (
        "main(['--version']); print([m for m in ('torch', 'transformers', 'pyarrow', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "nautile classify reviews.csv -o labelled.csv" in done.stdout
