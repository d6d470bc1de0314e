"""The folder of a run: what it replaces is kept until it is finished; its base is named for good."""

import gc
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny

from nautile.errors import NautileError
from nautile.model.checkpoints import save
from nautile.model.heads import NautileForCausalLM
from nautile.model.places import fingerprint
from nautile.tasks.finetune import folder as run_folder
from nautile.tasks.finetune import outcome, split
from nautile.tasks.finetune import train as training
from nautile.tasks.finetune.run import finetune
from nautile.tasks.heads.head import read_about
from nautile.tasks.heads.loading import load_judging

WORDS = {"bad": "awful", "fair": "usual", "good": "lovely"}
LORA: dict[str, Any] = {"epochs": 2, "batch_size": 16, "rank": 2, "bf16": False, "quiet": True}
HEAD: dict[str, Any] = {"method": "head", "quiet": True}


def frame(rows: int) -> pd.DataFrame:
    labels = [list(WORDS)[n % 3] for n in range(rows)]
    return pd.DataFrame({"text": [f"{WORDS[label]} day {n}" for n, label in enumerate(labels)], "label": labels})


def tiny_base(folder: Path, seed: int = 0) -> str:
    save(tiny.model(NautileForCausalLM, seed, vocab_size=300), folder)
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without pictures; every run collects garbage, and what the imports left is no part of it."""
    monkeypatch.setattr(outcome, "curves_png", lambda *arguments: None)
    monkeypatch.setattr(outcome, "confusion_png", lambda *arguments: None)
    gc.freeze()
    yield
    gc.unfreeze()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def old(tmp_path: Path, base: str) -> Path:
    """A finished run, and a file of the user's."""
    folder = finetune(frame(24), output=tmp_path / "run", base=base, **HEAD)
    (folder / "mine.txt").write_text("mine")
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "no-such-model"}, "unknown model"),
        ({**LORA, "method": "lora", "targets": "nothing"}, "names no linear layer"),
        ({"out_of_scope": "oos"}, "is not one of the labels"),
        ({"text": "body"}, "has no column 'body'"),
    ],
)
def test_a_mistake_costs_nothing(old: Path, base: str, changes: dict[str, Any], message: str) -> None:
    before = content(old)
    with pytest.raises(NautileError, match=message):
        finetune(frame(24), output=old, overwrite=True, **{"base": base, **HEAD, **changes})
    assert content(old) == before
    assert not run_folder.previous(old).exists()


@pytest.mark.parametrize("error", [NautileError("no"), OSError("full"), KeyboardInterrupt()])
def test_a_run_that_fails_early_puts_the_old_one_back(
    old: Path, base: str, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = content(old)

    def fails(*arguments: Any) -> None:
        assert not (old / "head.json").exists()
        assert read_about(run_folder.previous(old))["about"]["method"] == "head"
        raise error

    monkeypatch.setattr(outcome, "write_files", fails)
    with pytest.raises(type(error)):
        finetune(frame(30), output=old, base=base, overwrite=True, **HEAD)
    assert content(old) == before
    assert not (old / "checkpoints").exists()
    assert not run_folder.previous(old).exists()


def test_a_run_that_fails_late_can_go_on_and_says_where_the_old_one_is(
    old: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(old)
    found = iter([{"macro_f1": 0.5, "log_loss": 1.0}])

    def judged(*arguments: Any) -> dict[str, float]:
        if (scores := next(found, None)) is None:
            raise NautileError("something broke")
        return scores

    with monkeypatch.context() as patch:
        patch.setattr(training, "scores", judged)
        with pytest.raises(NautileError, match=r"something broke; the run that was there is kept in .*run\.previous"):
            finetune(frame(24), output=old, base=base, overwrite=True, **LORA)
    kept = content(run_folder.previous(old))
    assert kept == {name: text for name, text in before.items() if name != "mine.txt"}
    with pytest.raises(NautileError, match="unfinished run of other options"):
        finetune(frame(24), output=old, base=base, **{**LORA, "rank": 3})
    finetune(frame(24), output=old, base=base, **LORA)
    assert read_about(old)["about"]["method"] == "lora"
    assert (old / "mine.txt").read_text() == "mine"
    assert not run_folder.previous(old).exists()


def test_a_replaced_run_goes_when_the_new_one_is_finished(old: Path, base: str) -> None:
    assert finetune(frame(30), output=old, base=base, overwrite=True, **HEAD) == old
    assert read_about(old)["about"]["rows"] == 27
    assert (old / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in old.parent.iterdir()) == ["run"]


def test_two_runs_do_not_write_one_folder(tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, told = tmp_path / "run", []
    write = outcome.write_files

    def meanwhile(*arguments: Any) -> None:
        with pytest.raises(NautileError, match="another run is writing this folder") as refused:
            finetune(frame(30), output=folder, base=base, **HEAD)
        told.append(str(refused.value))
        write(*arguments)

    monkeypatch.setattr(outcome, "write_files", meanwhile)
    finetune(frame(24), output=folder, base=base, **HEAD)
    assert len(told) == 1
    assert read_about(folder)["about"]["rows"] == 22


def test_a_run_that_another_finished_meanwhile_is_kept(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, there = tmp_path / "run", run_folder._there

    def meanwhile(path: Path) -> None:
        monkeypatch.setattr(run_folder, "_there", there)
        finetune(frame(24), output=folder, base=base, **HEAD)
        there(path)

    monkeypatch.setattr(run_folder, "_there", meanwhile)
    with pytest.raises(NautileError, match="holds a finished run"):
        finetune(frame(30), output=folder, base=base, **HEAD)
    assert read_about(folder)["about"]["rows"] == 22


def test_what_stands_in_the_place_of_the_old_run_is_left_alone(old: Path, base: str) -> None:
    run_folder.previous(old).mkdir()
    with pytest.raises(NautileError, match=r"run.previous: is where the old run would be kept meanwhile"):
        finetune(frame(30), output=old, base=base, overwrite=True, **HEAD)
    assert (old / "head.json").exists()


def test_the_base_is_not_overwritten(tmp_path: Path, base: str) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    (copy / "head.json").write_text("{}")
    for output in (copy, tmp_path):
        with pytest.raises(NautileError, match="holds the base; name another folder"):
            finetune(frame(24), output=output, base=str(copy), overwrite=True, **HEAD)


def test_another_base_of_the_same_name_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, output = tiny_base(tmp_path / "base"), tmp_path / "run"
    found = iter([{"macro_f1": 0.5, "log_loss": 1.0}])
    with monkeypatch.context() as patch:
        patch.setattr(training, "scores", lambda *arguments: next(found))
        with pytest.raises(StopIteration):
            finetune(frame(24), output=output, base=base, **LORA)
    tiny_base(tmp_path / "base", seed=1)
    with pytest.raises(
        NautileError, match=r"unfinished run from other weights than those now in .*base; bring"
    ) as told:
        finetune(frame(24), output=output, base=base, **LORA)
    assert "\n" not in str(told.value)
    tiny_base(tmp_path / "base")
    assert (finetune(frame(24), output=output, base=base, **LORA) / "head.json").exists()


@pytest.mark.parametrize("options", [LORA, HEAD])
def test_a_relative_base_is_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    base = tiny_base(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    folder = finetune(frame(24), output="run", base="base", **options).resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    about = read_about(folder)["about"]
    assert (about["base"], about["base_digest"]) == (base, fingerprint(base))
    if options is LORA:
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == base
        assert f'locate("{base}")' in (folder / "README.md").read_text()
    assert "base: base\n" in (folder / "config.yaml").read_text()
    assert load_judging(folder)[1].labels == ("bad", "fair", "good")


def test_a_shipped_base_keeps_its_name(tmp_path: Path) -> None:
    about = read_about(finetune(frame(12), output=tmp_path / "run", **HEAD))["about"]
    assert (about["base"], about["base_digest"]) == ("nautile-mini", fingerprint("nautile-mini"))


def test_copies_of_few_texts_calibrate_nothing(tmp_path: Path, base: str) -> None:
    folder = finetune(pd.concat([frame(30)] * 10), output=tmp_path / "run", base=base, **HEAD)
    assert read_about(folder)["calibration"] is None
    assert "different validation texts are too few to calibrate on" in (folder / "README.md").read_text()


def test_sixty_rows_are_enough_to_calibrate(tmp_path: Path, base: str, capfd: pytest.CaptureFixture[str]) -> None:
    folder = finetune(frame(60), output=tmp_path / "run", base=base, method="head")
    calibration = read_about(folder)["calibration"]
    assert calibration.rows == 20
    said = "20 of 60 texts are kept back, more than the usual tenth, to calibrate the probabilities"
    card, shown = (folder / "README.md").read_text(), capfd.readouterr().err
    figures = json.loads((folder / "metrics.json").read_text())["validation"]
    assert said in card
    assert said in shown
    assert figures["ece"] == {"value": calibration.ece, "low": None, "high": None}
    assert f"| ECE | {calibration.ece:.3f} | – |" in card
    assert f"ECE {calibration.ece:.3f}" in shown
    assert f"| ECE | {calibration.ece:.4f} | – |" in (folder / "report.md").read_text()
    assert "128 tokens" not in card
    assert "reads the whole of a text" in card


@pytest.mark.parametrize(("rows", "held"), [(59, 6), (60, 20), (199, 20), (400, 40)])
def test_how_many_rows_are_kept_back(rows: int, held: int) -> None:
    from nautile.tasks.labelled import read_labelled

    found = split.split_rows(read_labelled(frame(rows)), None, 0)
    assert len(found.valid.texts) in (held - (held == 6), held, held + 1)
    assert (len(found.notes) == 1) == (held == 20)
    few = split.split_rows(read_labelled(frame(rows)), 0.05, 0)
    assert len(few.valid.texts) <= 0.05 * rows + 1


def test_labels_of_few_texts_each_keep_them() -> None:
    from nautile.tasks.labelled import read_labelled

    rows = pd.DataFrame({"text": [f"text {n}" for n in range(70)], "label": [f"label {n // 2}" for n in range(70)]})
    assert len(split.split_rows(read_labelled(rows), None, 0).valid.texts) <= 8
