"""What the README shows works: its Python runs, its commands take the options that they are given."""

import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
import typer

from nautile.cli import app
from nautile.model.checkpoints import save
from nautile.model.heads import NautileForCausalLM

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
TEXTS = ["I want my money back", "Where is my parcel?", "Great service, thank you", "It never arrived"]


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found


def commands() -> list[list[str]]:
    """The arguments of each `nautile …`, whatever stands before and after it in its line."""
    lines = [line.partition(" #")[0] for block in blocks("bash") for line in block.splitlines()]
    found = [re.search(r"(?:^|[|&/] ?)(?:\.venv/bin/)?nautile ([^|>&]+)", line) for line in lines]
    return [shlex.split(one.group(1)) for one in found if one]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_a_command_of_the_readme_is_one(arguments: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    name, *rest = arguments
    command = command.commands[name]
    if hasattr(command, "commands") and rest:
        name, *rest = rest
        command = command.commands[name]
    assert command.make_context(name, rest).info_name == name


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(tiny.model(NautileForCausalLM, vocab_size=300), tmp_path / "nautile-370m")
    known: dict[str, Any] = {
        "texts": TEXTS,
        "labels": ["refund", "shipping", "praise", "shipping"],
        "more": TEXTS[:2],
        "df": pd.DataFrame({"review": TEXTS}),
        "prefix_ids": torch.tensor([[5, 6, 7]]),
        "rows_ids": torch.tensor([[8, 9], [10, 11]]),
    }
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), known)
    assert (tmp_path / "folder" / "head.json").is_file()
