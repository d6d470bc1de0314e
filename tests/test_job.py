"""File jobs: killed anywhere and resumed, the output is that of an undisturbed run; memory doesn't grow."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fake_judge
import pandas as pd
import pytest

from nautile.cli import main
from nautile.errors import NautileError
from nautile.tasks.files.chunks import CHUNK_ROWS
from nautile.tasks.files.tally import Tally
from nautile.tasks.files.workspace import Workspace

ROWS = 5 * CHUNK_ROWS + 100
ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, fake_judge.__file__, "classify"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
OUTPUTS = ["out.csv", "out.jsonl.gz", "out.parquet"]
BY_FORMAT = [pytest.param(name, marks=[pytest.mark.slow] * name.endswith(".gz")) for name in OUTPUTS]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nautile.tasks.classify", fake_judge.module())


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of ROWS rows, some empty."""
    path = tmp_path_factory.mktemp("input") / "reviews.csv"
    texts = ["" if n % 100 == 7 else f'"review"\n{n}' * (n % 5 + 1) for n in range(ROWS)]
    pd.DataFrame({"id": range(ROWS), "text": texts}).to_csv(path, index=False)
    return path


def classify(*arguments: object) -> int:
    return main(["classify", *map(str, arguments)])


def start(*arguments: object, **variables: str) -> "subprocess.Popen[bytes]":
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, env={**ENVIRONMENT, **variables}, preexec_fn=_listen_to_ctrl_c, **pipes)


def _listen_to_ctrl_c() -> None:
    """A shell that runs the tests in the background has its children ignore the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def parts(output: Path) -> list[Path]:
    return sorted(output.with_name(output.name + ".partial").glob("*.part"))


def wait_for_parts(output: Path, count: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while len(parts(output)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_what_goes_with_an_output_is_refused_without_one(
    option: str, reviews: Path, judge: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(reviews, option) == 2
    assert capsys.readouterr().err == f"nautile: error: {option} goes with --output FILE\n"


@pytest.mark.parametrize("name", BY_FORMAT)
def test_killed_and_resumed_the_output_has_the_bytes_of_an_undisturbed_run(
    name: str, reviews: Path, tmp_path: Path, judge: None
) -> None:
    undisturbed, output, log = tmp_path / f"whole_{name}", tmp_path / name, tmp_path / "log"
    assert classify(reviews, "-o", undisturbed, "-q") == 0
    for already in (1, 3):
        process = start(reviews, "-o", output, "--resume", FAKE_SECONDS="0.2", FAKE_LOG=str(log))
        wait_for_parts(output, already, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not output.exists()
        assert len(parts(output)) == already
    judged = log.read_text().split()
    assert classify(reviews, "-o", output, "--resume", "-q") == 0
    assert output.read_bytes() == undisturbed.read_bytes()
    assert sum(map(int, judged)) <= 5 * CHUNK_ROWS, "finished parts were judged again"
    assert {path.name for path in tmp_path.iterdir()} == {output.name, undisturbed.name, "log"}


class KilledError(Exception):
    """Stands in for the end of the process, at a place that a signal would seldom hit."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the job at its `step`-th contact with the disk: half-way in a file, before or after it has its name."""
    left = iter(range(step))

    def live() -> None:
        if next(left, None) is None:
            raise KilledError

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            live()
            return call(*arguments, **options)

        return wrapper

    for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (Path, "rmdir"), (os, "fsync")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


@pytest.mark.parametrize("name", BY_FORMAT)
def test_it_may_end_between_any_two_steps_on_disk(
    name: str, tmp_path: Path, judge: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output, undisturbed = tmp_path / "in.csv", tmp_path / name, tmp_path / f"whole_{name}"
    pd.DataFrame({"text": [str(n) for n in range(CHUNK_ROWS + 5)]}).to_csv(source, index=False)
    assert classify(source, "-o", undisturbed, "-q") == 0
    for step in range(200):
        with monkeypatch.context() as patched:
            kill_at(step, patched)
            try:
                assert classify(source, "-o", output, "-q") == 0
                break
            except KilledError:
                pass
        if not output.exists() or Workspace(output).folder.exists():
            assert classify(source, "-o", output, "--resume", "-q") == 0
        assert output.read_bytes() == undisturbed.read_bytes(), f"after step {step}"
        output.unlink()
        Workspace(output).clear()
    assert step > 10


def test_ctrl_c_keeps_finished_parts_and_says_how_to_go_on(reviews: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    process = start(reviews, "-o", output, FAKE_SECONDS="0.2")
    wait_for_parts(output, 2, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.decode().splitlines() == ["nautile: stopped; what is done is kept: go on with --resume"]
    assert len(parts(output)) == 2


def test_a_resumed_job_counts_all_rows_in_its_summary(
    reviews: Path, tmp_path: Path, judge: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(reviews, "-o", tmp_path / "a.csv") == 0
    undisturbed = capsys.readouterr().err.split(" rows/s")[0].rpartition(";")[0]
    process = start(reviews, "-o", tmp_path / "b.csv", FAKE_SECONDS="0.2")
    wait_for_parts(tmp_path / "b.csv", 2, process)
    process.kill()
    process.communicate()
    assert classify(reviews, "-o", tmp_path / "b.csv", "--resume") == 0
    assert capsys.readouterr().err.startswith(undisturbed)
    empty = len(range(7, ROWS, 100))
    assert undisturbed.startswith(f"{ROWS:,} rows, {ROWS - empty:,} judged")
    assert f"{empty:,} without a label ({empty} empty text)" in undisturbed


def interrupted(source: Path, output: Path, *options: object) -> None:
    """Leave an unfinished job behind."""
    source.write_text("text\n" + "good\n" * CHUNK_ROWS * 2)

    def stop(self: Workspace, count: int, join: Callable[[Iterator[bytes], BinaryIO], None]) -> None:
        raise KilledError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Workspace, "publish", stop)
        with pytest.raises(KilledError):
            classify(source, "-o", output, "-q", *options)


@pytest.mark.parametrize(
    ("change", "options", "named"),
    [
        ("grow", [], ["input size", "input time of change"]),
        ("touch", [], ["input time of change"]),
        ("", ["--limit", "9"], ["limit"]),
        ("", ["--encoding", "latin-1"], ["encoding"]),
        ("", ["--prefix", "x_"], ["prefix"]),
        ("", ["--threads", "3"], ["threads"]),
        ("", ["--model", "other"], ["model"]),
        ("", ["--task", "topic", "--delimiter", ";"], ["delimiter", "task"]),
    ],
)
def test_a_changed_job_is_not_resumed(
    change: str, options: list[str], named: list[str], tmp_path: Path, judge: None, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    interrupted(source, output)
    before = [path.read_bytes() for path in parts(output)]
    if change == "grow":
        source.write_text(source.read_text() + "more\n")
    elif change == "touch":
        os.utime(source, (1, 1))
    assert classify(source, "-o", output, "--resume", *options) == 2
    error = capsys.readouterr().err
    assert f"begun with another {', '.join(named)};" in error
    assert [path.read_bytes() for path in parts(output)] == before
    assert classify(source, "-o", output, "--overwrite", "-q", *options) == 0
    assert output.exists()
    assert not parts(output)


def test_an_input_that_changes_while_it_is_read_makes_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\ngood\n")

    class Meddler(fake_judge.FakeJudge):
        def __call__(self, texts: list[object], progress: Callable[[int], None], /) -> dict[str, list[Any]]:
            source.write_text("text\ngood\nbad\n")
            return super().__call__(texts, progress)

    module = fake_judge.module()
    module.load_judge = lambda *options: Meddler()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nautile.tasks.classify", module)
    assert classify(source, "-o", output) == 2
    assert "changed while it was read" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    "header", [b'{"size"', b"", b"\n", b"\xff\xfe\n", b"{}\n", b"3\n", b"null\n", b'{"size": 1, "checksum": 1}\n']
)
def test_a_part_that_is_not_whole_is_judged_again(header: bytes, tmp_path: Path, judge: None) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    interrupted(source, output)
    first, second = parts(output)
    first.write_bytes(first.read_bytes()[:-1])
    second.write_bytes(header)
    assert classify(source, "-o", output, "--resume", "-q") == 0
    assert len(output.read_text().splitlines()) == 2 * CHUNK_ROWS + 1


@pytest.mark.parametrize("place", [9, 40, -1])  # in the size, what is told of the part, and its end
def test_a_part_in_which_a_byte_has_changed_is_judged_again(place: int, tmp_path: Path, judge: None) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    interrupted(source, output)
    [changed, *_] = parts(output)
    content = bytearray(changed.read_bytes())
    content[place] ^= 1
    changed.write_bytes(content)
    assert classify(source, "-o", output, "--resume", "-q") == 0
    resumed = output.read_bytes()
    assert classify(source, "-o", output, "--overwrite", "-q") == 0
    assert resumed == output.read_bytes()


def test_resuming_what_is_finished_says_so(tmp_path: Path, judge: None, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\ngood\n")
    assert classify(source, "-o", output, "--resume", "-q") == 0
    assert classify(source, "-o", output, "--resume") == 2
    assert "exists already and no unfinished job is beside it" in capsys.readouterr().err


def test_a_stranger_s_file_is_never_removed(tmp_path: Path, judge: None, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\ngood\n")
    folder = tmp_path / "out.csv.partial"
    folder.mkdir()
    (folder / "thesis.doc").write_text("mine")
    assert classify(source, "-o", output, "--overwrite") == 2
    assert "not written by a job of ours" in capsys.readouterr().err
    assert (folder / "thesis.doc").read_text() == "mine"


def test_two_jobs_never_write_one_output(
    reviews: Path, tmp_path: Path, judge: None, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.csv"
    process = start(reviews, "-o", output, FAKE_SECONDS="0.3")
    wait_for_parts(output, 1, process)
    for option in ("--overwrite", "--resume"):
        assert classify(reviews, "-o", output, option) == 2
        assert "another job is writing this output" in capsys.readouterr().err
    process.communicate()
    assert process.returncode == 0
    assert len(pd.read_csv(output)) == ROWS


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, judge: None, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\ngood\n")

    def full(self: object, parts: Iterator[bytes], stream: BinaryIO) -> None:
        stream.write(b"some of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("nautile.tasks.files.writers.TextWriter.join", full)
        assert classify(source, "-o", output, "-q") == 2
    assert sorted(path.suffix for path in Workspace(output).folder.iterdir()) == [".json", ".part"]
    (Workspace(output).folder / "joined.1.half").write_bytes(b"of a job that was killed")
    assert classify(source, "-o", output, "--resume", "-q") == 0
    assert [path.name for path in tmp_path.iterdir() if path != source] == ["out.csv"]


def test_a_replaced_output_keeps_its_mode(tmp_path: Path, judge: None) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\ngood\n")
    output.write_text("old")
    output.chmod(0o600)
    assert classify(source, "-o", output, "--overwrite", "-q") == 0
    assert output.stat().st_mode & 0o777 == 0o600


def test_a_job_from_a_pipe_is_not_resumed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out.csv")
    workspace.begin({"task": "a"}, None)
    with pytest.raises(NautileError, match="begun from a pipe"):
        workspace.started({"task": "a"})


def test_a_symbolic_link_as_output_stays_a_link(tmp_path: Path, judge: None) -> None:
    (tmp_path / "in.csv").write_text("text\ngood\n")
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    assert classify(tmp_path / "in.csv", "-o", tmp_path / "link.csv", "--overwrite", "-q") == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("text,label")


PEAK = """
import pathlib, runpy, sys
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert end.code == 0
status = pathlib.Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("csv", "csv"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("jsonl", "jsonl"), ("parquet", "csv"))),
    ],
)
def test_memory_stays_flat(source: str, output: str, tmp_path: Path) -> None:
    path = tmp_path / f"in.{source}"
    frame = pd.DataFrame({"id": range(40_000), "text": [f"{n} " * 100 for n in range(40_000)]})
    if source == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        getattr(frame, f"to_{source}")(path, index=False)
    peaks = []
    for limit in (8_000, 40_000):
        command = [*COMMAND[1:], str(path), "-o", str(tmp_path / f"{limit}.{output}"), "--limit", str(limit)]
        script = f"import sys\nsys.argv = {command!r}\n{PEAK}"
        done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 10, f"MB: {peaks}"


def test_tallies_add_up_and_survive_their_file() -> None:
    total = Tally()
    for _ in range(2):
        total.add(Tally.from_dict(json.loads(json.dumps(Tally(rows=3, long_rows=1).as_dict()))))
    assert (total.rows, total.long_rows) == (6, 2)
    with pytest.raises(TypeError):
        Tally.from_dict({"unknown": 1})


def test_a_damaged_manifest_is_an_error(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out.csv")
    workspace.begin({"task": "a"}, 3)
    assert workspace.started({"task": "a"}) == 3
    (workspace.folder / "manifest.json").write_text("{")
    with pytest.raises(NautileError, match="damaged"):
        workspace.started({"task": "a"})
