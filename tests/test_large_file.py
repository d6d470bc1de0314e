"""The bars on large files, with the real model: flat memory, and a kill in the middle that leaves no trace."""

import csv
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nautile.tasks.files.chunks import CHUNK_ROWS

ROWS = 100_000
WORDS = (
    "the",
    "film",
    "was",
    "not",
    "good",
    "bad",
    "great",
    "dull",
    "service",
    "food",
    "phone",
    "battery",
    "love",
    "hate",
    "fine",
    "slow",
    "never",
    "again",
    "best",
)
OTHER = "x" * 3000  # a column that is only carried along: it makes the file several times the allowed growth
ALLOWED_GROWTH_MB = 64

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc"),
]


def write_rows(path: Path, rows: int) -> Path:
    rng = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "other"])
        writer.writerows([row, " ".join(rng.choices(WORDS, k=rng.randint(3, 9))), OTHER] for row in range(rows))
    return path


JOB = """
import pathlib, sys
from nautile.cli import main
code = main(sys.argv[1:])
print(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
sys.exit(code)
"""


def start(source: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", JOB, "classify", str(source), "--output", str(output), *options]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def peak_mb(process: subprocess.Popen[str]) -> float:
    """Peak resident memory of a process that ends well."""
    printed, _ = process.communicate()
    assert process.returncode == 0
    return int(printed) / 1024


def test_memory_is_flat_and_a_killed_job_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    small = peak_mb(start(write_rows(tmp_path / "small.csv", ROWS // 10), tmp_path / "small_out.csv"))
    source = write_rows(tmp_path / "large.csv", ROWS)
    large = peak_mb(start(source, tmp_path / "whole.csv"))
    print(f"peak memory: {small:.0f} MB for {ROWS // 10:,} rows, {large:.0f} MB for {ROWS:,}")
    assert source.stat().st_size > 4 * ALLOWED_GROWTH_MB << 20
    assert large <= small + ALLOWED_GROWTH_MB

    output = tmp_path / "killed.csv"
    process = start(source, output)
    partial = tmp_path / "killed.csv.partial"
    while process.poll() is None and len(list(partial.glob("*.part"))) < 20:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    kept = len(list(partial.glob("*.part")))
    assert 20 <= kept < ROWS // CHUNK_ROWS
    peak_mb(start(source, output, "--resume"))
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not partial.exists()
    with output.open(newline="") as file:
        assert [int(row["id"]) for row in csv.DictReader(file)] == list(range(ROWS))
