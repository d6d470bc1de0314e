"""Training runs: exact resume after any end, exact accounts, checkpoints that count only when whole."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_run

from nautile.errors import NautileError
from nautile.pretraining.data import batches
from nautile.pretraining.log import Log, read_metrics
from nautile.pretraining.train import begin, recipe_of, train

COMMAND = [sys.executable, "-m", "nautile.cli", "pretrain"]
CPU = {**os.environ, "JAX_PLATFORMS": "cpu"}


def test_tokens_rates_and_evaluations_are_accounted_for(trained_run: Path) -> None:
    recipe, records = recipe_of(trained_run), read_metrics(trained_run)
    trained = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in trained] == list(range(2, 21, 2))
    rate = recipe.optimizer.schedule(recipe.steps)
    assert [record["learning_rate"] for record in trained] == [float(rate(step - 1)) for step in range(2, 21, 2)]
    tokens, after = 0, None
    for stage in recipe.curriculum.stages:
        iterator = batches(recipe.curriculum, stage, after=after)
        tokens += sum(int((next(iterator)["document"] > 0).sum()) for _ in range(recipe.curriculum.steps(stage)))
        after = iterator.get_state()
        iterator.close()
    assert trained[-1]["tokens"] == tokens
    held_out = [(r["step"], r["stage"], r["source"]) for r in records if r["kind"] == "evaluation"]
    first = [(step, "first", source) for step in (0, 10) for source in ("prose", "notes", "(mixture)")]
    assert held_out == [*first, (20, "second", "notes")]


def test_a_second_stage_goes_on_where_the_first_left_its_sources(trained_run: Path) -> None:
    curriculum = recipe_of(trained_run).curriculum
    iterator = batches(curriculum, curriculum.stages[0])
    for _ in range(curriculum.steps(curriculum.stages[0])):
        next(iterator)
    after = iterator.get_state()
    place = after["sources"]["notes"]
    iterator.close()
    onward = batches(curriculum, curriculum.stages[1], prefetch=0, after=after)
    begun = onward.get_state()["sources"]["notes"]
    assert [begun[name] for name in ("cursor", "block", "document", "offset")] == [
        place[name] for name in ("cursor", "block", "document", "offset")
    ]
    assert (begun["tokens"], begun["documents"]) == (0, 0)
    afresh = batches(curriculum, curriculum.stages[1], prefetch=0)
    assert not np.array_equal(next(onward)["ids"], next(afresh)["ids"])


def test_a_file_is_held_out_in_all_its_sources_alike(tmp_path: Path) -> None:
    made = small_run.recipe(
        tmp_path, f"curriculum.stages.second.sources.notes.location={tmp_path / 'texts' / '*.jsonl'}"
    )
    with pytest.raises(NautileError, match=r"rows held out in the one are trained on in the other"):
        begin(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(small_run.recipe(tmp_path), tmp_path / "run")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(NautileError, match=r"a checkpoint needs .* MB, 0 MB are free; there is none yet; make room"):
        train(tmp_path / "run", minutes=0, visible=False)


@pytest.mark.slow
def test_corrupt_lines_are_counted_and_named_in_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = small_run.recipe(tmp_path)
    notes = tmp_path / "texts" / "notes.jsonl"
    notes.write_text(notes.read_text().replace("\n{", "\n?", 1))
    begin(made, tmp_path / "run")
    train(tmp_path / "run", minutes=0)
    shown = capsys.readouterr().err
    assert "notes: passed over as corrupt, 1 in all" in shown
    (record,) = (record for record in read_metrics(tmp_path / "run") if record["kind"] == "data")
    assert [Path(place).name for place in record["sources"]["notes"]["corrupt"]] == ["notes.jsonl:2"]


def test_training_lowers_the_held_out_bits(trained_run: Path) -> None:
    notes = [
        r["bits_per_byte"] for r in read_metrics(trained_run) if r["kind"] == "evaluation" and r["source"] == "notes"
    ]
    assert notes[0] > notes[1] > notes[2]


@pytest.mark.slow
def test_sigterm_saves_and_resume_ends_in_the_same_bits(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    begin(small_run.recipe(tmp_path), run)
    advance = Log.advance

    def interrupted(log: Log, step: int) -> None:
        advance(log, step)
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Log, "advance", interrupted)
    stopped = train(run, visible=False)
    assert 7 <= stopped.step < 10
    assert (run / "checkpoints" / str(stopped.step) / "commit_success.txt").exists()
    monkeypatch.undo()
    assert train(run, visible=False).step == small_run.STEPS
    small_run.assert_equal_bits(small_run.arrays(run), small_run.arrays(trained_run))
    assert_same_figures(run, trained_run)


def assert_same_figures(run: Path, other: Path) -> None:
    def figures(folder: Path) -> dict[tuple[str, int, str], tuple[object, ...]]:
        wanted = ("tokens", "learning_rate", "bits_per_byte", "targets", "sources")
        records = read_metrics(folder)
        keys = [(record["kind"], record["step"], record.get("source", "")) for record in records]
        assert len(set(keys)) == len(keys), "a record stands twice"
        return {
            key: tuple(record[name] for name in wanted if name in record)
            for key, record in zip(keys, records, strict=True)
        }

    assert figures(run) == figures(other)


@pytest.mark.slow
def test_only_whole_checkpoints_count(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(small_run.recipe(tmp_path, "training.keep=2"), run)
    train(run, visible=False)
    checkpoints = run / "checkpoints"
    assert sorted(int(path.name) for path in checkpoints.iterdir()) == [16, 20]
    (checkpoints / "20" / "commit_success.txt").unlink()
    assert train(run, visible=False).step == small_run.STEPS
    small_run.assert_equal_bits(small_run.arrays(run), small_run.arrays(trained_run))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(trained_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained_run, tmp_path / "run")
    for path in (run / "checkpoints" / "20" / "params").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:10])
    resumed = subprocess.run([*COMMAND, "resume", "run"], env=CPU, cwd=tmp_path, capture_output=True, text=True)
    assert resumed.returncode == 2
    *_, last = resumed.stderr.strip().splitlines()
    assert "checkpoints/20: the checkpoint cannot be read" in last
    assert "Traceback" not in resumed.stderr


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_with_all_that_one_needs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(small_run.recipe(tmp_path, "optimizer.learning_rate=1e38", "training.save_every=1"), run)
    with pytest.raises(NautileError) as caught:
        train(run, visible=False)
    message = str(caught.value)
    assert "(stage first) has no finite figures: loss" in message
    (kept,) = run.glob("bad-batch-*.npz")
    assert str(kept) in message
    step = int(kept.name.split("-")[2])
    good = [int(path.name) for path in (run / "checkpoints").iterdir()]
    assert all(number < step for number in good)
    assert f"last good checkpoint: checkpoint {max(good)}" in message
    with np.load(kept) as batch:
        assert batch["ids"].shape == (8, 24)
    assert all(np.isfinite(values).all() for values in small_run.arrays(run, max(good)).values())


def test_folders_that_are_no_runs(trained_run: Path, tmp_path: Path) -> None:
    with pytest.raises(NautileError, match="is not empty: go on with `nautile pretrain resume"):
        begin(recipe_of(trained_run), trained_run)
    with pytest.raises(NautileError, match="holds no run"):
        train(tmp_path)
    with pytest.raises(NautileError, match="needs 2 devices"):
        begin(small_run.recipe(tmp_path, "training.data=2"), tmp_path / "wide")
    made = small_run.recipe(tmp_path)
    (tmp_path / "texts" / "notes.jsonl").unlink()
    with pytest.raises(NautileError, match="source 'notes': no file matches"):
        begin(made, tmp_path / "wide")
    assert not (tmp_path / "wide").exists()


@pytest.mark.slow
def test_kill_nine_at_a_random_step_and_resume_bit_for_bit(trained_run: Path, tmp_path: Path) -> None:
    run, until = tmp_path / "run", random.SystemRandom().randrange(4, small_run.STEPS - 1)
    small_run.recipe(tmp_path)
    started = [*COMMAND, "run", str(tmp_path / "small.toml"), "--data", str(tmp_path / "texts"), "-o", str(run), "-q"]
    process = subprocess.Popen(started, env=CPU, cwd=tmp_path)
    while process.poll() is None and not any(record["step"] >= until for record in read_metrics(run)):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, f"the run ended before it was killed at step {until}"
    subprocess.run([*COMMAND, "resume", str(run), "-q"], env=CPU, cwd=tmp_path, check=True)
    print(f"killed at step {until}")
    small_run.assert_equal_bits(small_run.arrays(run), small_run.arrays(trained_run))
    assert_same_figures(run, trained_run)


@pytest.mark.slow
def test_two_processes_train_one_model_and_resume(tmp_path: Path) -> None:
    small_run.recipe(tmp_path)
    recipe, texts = str(tmp_path / "small.toml"), str(tmp_path / "texts")
    changed = [part for change in ("training.data=1", "training.fsdp=2") for part in ("--set", change)]

    def together(*arguments: str) -> None:
        port = 20_000 + random.SystemRandom().randrange(20_000)
        shared = ["--coordinator", f"127.0.0.1:{port}", "--processes", "2", "-q"]
        command = [*COMMAND, *arguments, *shared, "--process"]
        processes = [subprocess.Popen([*command, str(number)], env=CPU, cwd=tmp_path) for number in (0, 1)]
        assert [process.wait(timeout=300) for process in processes] == [0, 0]

    together("run", recipe, "--data", texts, "-o", "whole", *changed)
    together("run", recipe, "--data", texts, "-o", "cut", *changed, "--minutes", "0")
    cut = max(int(path.name) for path in (tmp_path / "cut" / "checkpoints").iterdir())
    assert cut < small_run.STEPS
    progress = json.loads((tmp_path / "cut" / "checkpoints" / str(cut) / "progress" / "metadata").read_text())
    assert [state["of"]["process"] for state in progress["data"]] == [0, 1]
    two_devices = {**CPU, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    resumed = subprocess.run([*COMMAND, "resume", "cut"], env=two_devices, cwd=tmp_path, capture_output=True, text=True)
    assert resumed.returncode == 2
    assert "the run was saved by 2 processes: resume it with as many" in resumed.stderr
    together("resume", "cut")
    small_run.assert_equal_bits(small_run.arrays(tmp_path / "cut"), small_run.arrays(tmp_path / "whole"))
