"""`nautile pretrain`: its help teaches, a user's mistake is one line, and a missing extra is named."""

import subprocess
import sys
from pathlib import Path

import pytest
import small_run

from nautile.cli import main

WITHOUT_JAX = """
import sys
sys.modules["jax"] = None
from nautile.cli import main
sys.exit(main(["pretrain", "plan", "smoke"]))
"""


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a mistake is answered with."""
    assert main(["pretrain", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("nautile: error: ")


@pytest.mark.slow
def test_a_run_from_the_command_line_to_a_folder_that_loads(
    tmp_path: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run.recipe(tmp_path)
    given = [str(tmp_path / "small.toml"), "--data", str(tmp_path / "texts"), "--output", str(tmp_path / "run")]
    assert main(["pretrain", "run", *given, "--minutes", "0"]) == 0
    assert "of 20," in (shown := capsys.readouterr().err)
    assert "stopped; go on with: nautile pretrain resume" in shown
    assert main(["pretrain", "resume", str(tmp_path / "run")]) == 0
    assert "step 20 of 20, 3,8" in (shown := capsys.readouterr().err)
    assert "finished" in shown
    assert "bits/byte" in shown
    assert main(["pretrain", "plot", str(tmp_path / "run"), "-o", str(tmp_path / "curve.png")]) == 0
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert main(["pretrain", "export", str(tmp_path / "run"), str(tmp_path / "model")]) == 0
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {"config.json", "model.safetensors"}
    small_run.assert_equal_bits(small_run.arrays(tmp_path / "run"), small_run.arrays(trained_run))


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(capsys, "run", "smokey", "-o", str(tmp_path / "run")).startswith("no recipe 'smokey'")
    assert "give it with --data" in error_of(capsys, "run", "smoke", "-o", str(tmp_path / "run"))
    missing = error_of(capsys, "run", "smoke", "-o", str(tmp_path / "run"), "--data", str(tmp_path / "none"), "-q")
    assert "source 'text': no file matches" in missing
    assert "holds no run" in error_of(capsys, "resume", str(tmp_path / "none"))
    assert "holds no run" in error_of(capsys, "export", str(tmp_path / "none"), str(tmp_path / "out"))
    assert "no figures of training yet" in error_of(capsys, "plot", str(tmp_path / "none"))
    assert "are unknown" in error_of(capsys, "plan", "smoke", "--chips", "9xabacus")
    alone = error_of(capsys, "resume", str(tmp_path / "none"), "--coordinator", "127.0.0.1:1")
    assert alone == "--coordinator, --processes and --process belong together"


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error_of(capsys, "run", "smoke", "-o", str(tmp_path / "run"), "--data", str(tmp_path / "none"), "-q")
    assert not (tmp_path / "run").exists()


def test_the_plan_of_the_full_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "plan", "nautile_370m_v4_64", "--chips", "64xv4"]) == 0
    shown = capsys.readouterr().out
    assert "371,901,088" in shown
    assert "days" in shown


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "run", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "nautile pretrain run smoke --data texts/" in shown
    assert "--set" in shown


def test_a_missing_extra_is_named() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_JAX], capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr == 'nautile: error: pretraining needs jax: pip install "nautile[pretraining]"\n'
