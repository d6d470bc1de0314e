"""`nautile evaluate` as it is typed."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import nautile.tasks.classify
from nautile.errors import NautileError
from nautile.tasks.evaluate.command_line import evaluate
from nautile.tasks.question import Question

LABELS = ("negative", "neutral", "positive")


class Length:
    """A judge of any labels; the text's length says which."""

    kind, calibration = "single", None

    def __init__(self, asked: Question) -> None:
        self.labels = LABELS if asked.labels is None else tuple(name for name, _ in asked.labels)
        self.wrong = asked.model == "worse"

    def measure(self, texts: Sequence[str]) -> np.ndarray:
        best = [(len(text) + self.wrong) % len(self.labels) for text in texts]
        return np.eye(len(self.labels))[best] * 0.7 + 0.1


@pytest.fixture(autouse=True)
def _judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nautile.tasks.classify, "judge_for", Length)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    lines = [f"{'x' * n},{LABELS[n % 3]}" for n in range(1, 31)]
    path.write_text("\n".join(["text,label", *lines, ",positive", ""]))
    return path


def run(*arguments: object) -> str:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(evaluate)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_tables_say_what_was_found(data: Path) -> None:
    shown = run("sentiment", data, "--resamples", 50)
    assert "nautile-mini sentiment on" in shown
    assert "30 rows, 3 labels" in shown
    assert "not calibrated" in shown
    assert "1 row without a text left out" in shown
    for title in ("Accuracy by coverage", "Labels", "macro-F1", "ECE", "95 % interval"):
        assert title in shown
    assert "1.0000" in shown


def test_json_alone_can_be_asked_for(data: Path, tmp_path: Path) -> None:
    found = json.loads(run("some/model", data, "--json", "-q", "--resamples", 0, "-o", tmp_path / "out"))
    assert found["model"] == "some/model"
    assert found["figures"]["accuracy"] == {"value": 1.0, "low": None, "high": None}
    assert json.loads((tmp_path / "out" / "figures.json").read_text()) == found


def test_a_second_model_and_a_baseline_in_one_run(data: Path) -> None:
    shown = run("sentiment", data, "--against", "worse", "--baseline", "tfidf", "--train", data, "--resamples", 50)
    assert "nautile-mini sentiment is more often right than worse" in shown
    assert "Against TF-IDF + LR" in shown
    assert "the baselines were trained on" in shown


def test_zero_shot_labels_and_renamed_ones(data: Path) -> None:
    found = json.loads(run("nautile-mini", data, "--labels", "negative, neutral, positive", "--json"))
    assert found["model"] == "nautile-mini, zero-shot"
    arguments = ["--rename", "neutral=positive", "--restrict", "--json"]
    assert json.loads(run("nautile-mini", data, *arguments))["figures"]["labels"] == ["negative", "positive"]


def test_a_precision_is_asked_for_and_named(data: Path) -> None:
    shown = run("sentiment", data, "--precision", "bfloat16", "--against", "sentiment", "--resamples", 0)
    assert "nautile-mini sentiment, bfloat16 on" in shown
    assert "whether nautile-mini sentiment, bfloat16 or nautile-mini sentiment is more often right" in shown
    options = ["--labels", "negative, neutral, positive", "--precision", "bfloat16", "--json"]
    assert json.loads(run("nautile-mini", data, *options))["model"] == "nautile-mini, zero-shot, bfloat16"


def test_cells_cannot_style_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nx,[bold]odd\nxx,other\n")
    shown = run("nautile-mini", path, "--labels", "other,[bold]odd", "--resamples", 0)
    assert "[bold]odd" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rename", "neutral"], "give OLD=NEW"),
        (["--text", "body"], "no column 'body'"),
        (["--labels", "negative,positive"], r"does not know: 'neutral' \(10 rows\)"),
        (["--baseline", "tfidf"], "give train"),
        (["--output", ""], "output must be the path of a folder, not ''"),
        (["--baseline", "tfidf", "--train", ""], "has an empty name; name a file"),
        (["--task", ""], "task is an empty name"),
        (["--precision", "int4"], "precision must be one of float32, bfloat16, int8, auto, not 'int4'"),
    ],
)
def test_errors_say_what_to_mend(arguments: list[str], message: str, data: Path) -> None:
    with pytest.raises(NautileError, match=message):
        run("nautile-mini", data, *arguments)


def test_files_of_other_layouts_are_read(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(data.read_text().replace(",", ";"), encoding="utf-16-le")
    options = ("--resamples", 0, "--json")
    found, same = (
        run("sentiment", other, *options, "--delimiter", ";", "--encoding", "utf-16-le"),
        run("sentiment", data, *options),
    )
    assert json.loads(found)["figures"] == json.loads(same)["figures"]


def test_endless_resamples_are_refused(data: Path) -> None:
    app = typer.Typer()
    app.command()(evaluate)
    found = CliRunner().invoke(app, ["nautile-mini", str(data), "--resamples", "1000000"])
    assert found.exit_code == 2
    assert "100000" in found.output


def test_help_shows_examples_and_loads_nothing_heavy() -> None:
    script = (
        "import sys, typer; from nautile.tasks.evaluate.command_line import evaluate; app = typer.Typer(); "
        "app.command()(evaluate); app(['--help'], standalone_mode=False); "
        "print([m for m in ('torch', 'sklearn', 'matplotlib', 'numpy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "nautile evaluate tickets/ test.csv --against older/" in done.stdout
