"""`nautile finetune`: every option is a flag, flags come before the file, nothing heavy is imported for --help."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from nautile.cli import main
from nautile.errors import NautileError, Stopped
from nautile.tasks.finetune import run
from nautile.tasks.finetune.command_line import finetune
from nautile.tasks.finetune.options import Options, make_options
from nautile.tasks.kinds import Kind

app = typer.Typer()
app.command()(finetune)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(run, "finetune", lambda **given: calls.append(given))
    return calls


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})


def test_help_names_every_option_and_shows_examples() -> None:
    shown = invoke("--help").output
    for name in Options.model_fields:
        assert name == "data" or f"--{name.replace('_', '-')}" in shown
    assert "nautile finetune tickets.csv -o tickets" in shown
    assert all(flag in shown for flag in ("--config", "--overwrite", "--quiet", "(default: nautile-mini)"))
    assert all(choice in shown for choice in ("lora|full|head", "single|ordinal|multi", "auto|true|false"))


def test_what_is_not_given_is_left_to_the_file(called: list[dict[str, Any]]) -> None:
    assert invoke("rows.csv", "-o", "out", "--config", "run.yaml").exit_code == 0
    (given,) = called
    told = {name: value for name, value in given.items() if value not in (None, False)}
    assert told == {"data": "rows.csv", "output": "out", "config": "run.yaml"}


@pytest.mark.parametrize("name", ["data", "output", "config", "validation"])
def test_an_empty_name_is_refused(name: str, called: list[dict[str, Any]]) -> None:
    given = {"data": ["rows.csv"], "output": ["-o", "out"], "config": [], "validation": []}
    given[name] = [""] if name == "data" else [f"--{name}", ""]
    result = invoke(*(part for parts in given.values() for part in parts))
    assert str(result.exception) == f"{name} is an empty name; leave it out, or name a file or folder"
    assert not called


def test_flags_become_options(called: list[dict[str, Any]]) -> None:
    flags = "--kind ordinal --labels low,medium --labels high --rank 4 --learning-rate 1e-4 --bf16 false"
    flags += " --targets in_proj,q_proj"
    assert invoke("rows.csv", "-o", "out", "-t", "body", *flags.split(), "--gradient-checkpointing").exit_code == 0
    (given,) = called
    known = {name: value for name, value in given.items() if name not in ("config", "overwrite", "quiet")}
    expected = Options(
        data="rows.csv", output="out", text="body", kind="ordinal", labels=["low", "medium", "high"], rank=4,
        learning_rate=1e-4, bf16=False, targets=["in_proj", "q_proj"], gradient_checkpointing=True,
    )  # fmt: skip
    assert make_options(known) == expected


def test_flags_come_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("epochs: 3\nrank: 8\nlearning_rate: 1e-3\n")
    found = make_options({"rank": 4, "seed": None}, tmp_path / "run.yaml")
    assert (found.epochs, found.rank, found.learning_rate, found.seed) == (3, 4, 1e-3, 0)


def test_an_error_is_for_the_door_to_tell(tmp_path: Path) -> None:
    result = invoke(str(tmp_path / "none.csv"), "-o", str(tmp_path / "out"))
    assert isinstance(result.exception, NautileError)
    assert "there is no such file" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_stop_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(**given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "finetune", stopped)
    result = invoke("rows.csv", "-o", "out")
    assert isinstance(result.exception, Stopped)
    assert str(result.exception) == "the same command goes on from the last checkpoint"


def test_a_stop_of_a_run_that_replaces_another_says_where_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(**given: Any) -> None:
        stop = KeyboardInterrupt()
        stop.add_note("the run that was there is kept in out.previous")
        raise stop

    monkeypatch.setattr(run, "finetune", stopped)
    said = str(invoke("rows.csv", "-o", "out", "--overwrite").exception)
    assert "the same command without --overwrite goes on from the last checkpoint; the run that was there" in said


def test_the_kinds_are_those_of_calibrate() -> None:
    from typing import get_args

    assert get_args(get_args(Options.model_fields["kind"].annotation)[0]) == get_args(Kind)


def test_it_is_light() -> None:
    code = (
        "import sys, nautile.tasks.finetune.command_line; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_an_option_that_is_on_can_be_turned_off(tmp_path: Path, base: str) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "text,label\n" + "".join(f"please {word} {n},{word}\n" for n in range(30) for word in ("go", "stay"))
    )
    given = ["finetune", str(rows), "-o", str(tmp_path / "run"), "--base", base, "--method", "head", "--quiet"]
    assert main([*given, "--no-neighbours"]) == 0
    assert "neighbours: false" in (tmp_path / "run" / "config.yaml").read_text()
