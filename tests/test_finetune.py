"""Fine-tuning on tiny models: every method and kind, what a folder holds, resuming, and what is refused."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import nautile
from nautile.engine.batching import pad_right
from nautile.engine.words import BUCKETS
from nautile.errors import NautileError
from nautile.model.checkpoints import load, save
from nautile.model.config import vocabulary_of
from nautile.model.heads import NautileForCausalLM, NautileForSequenceClassification
from nautile.model.model import NautileModel
from nautile.model.places import fingerprint
from nautile.tasks.calibrate import probabilities
from nautile.tasks.finetune import outcome
from nautile.tasks.finetune import train as training
from nautile.tasks.finetune.head_only import Features, fit_head, train_head
from nautile.tasks.finetune.lora import adapt, matched
from nautile.tasks.finetune.losses import balanced, make_loss
from nautile.tasks.finetune.model import trainable
from nautile.tasks.finetune.options import Options, make_options, write_config
from nautile.tasks.finetune.run import finetune
from nautile.tasks.finetune.samples import AlikeLengths, Samples
from nautile.tasks.finetune.split import Split, given_split, split_rows
from nautile.tasks.finetune.validate import scores
from nautile.tasks.heads.head import load_head, read_about, to_unit
from nautile.tasks.heads.loading import load_judging
from nautile.tasks.kinds import Kind
from nautile.tasks.labelled import Labelled, read_labelled

WORDS = {"bad": "awful grim", "fair": "usual plain", "good": "lovely bright"}
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16, "rank": 4, "bf16": False, "quiet": True}
FITTING: dict[str, dict[str, Any]] = {
    "lora": QUICK,
    "full": {name: value for name, value in QUICK.items() if name != "rank"},
    "head": {"quiet": True},
}


def frame(kind: Kind = "single", rows: int = 96) -> pd.DataFrame:
    """Rows whose words tell their label."""
    chosen = random.Random(0)
    texts, labels = [], []
    for n in range(rows):
        names = list(WORDS)[n % 3 :][: 1 + (kind == "multi" and n % 2)]
        words = " ".join(WORDS[name] for name in names).split()
        texts.append(f"{chosen.choice(words)} day {n} {chosen.choice(words)}")
        labels.append(names if kind == "multi" else names[0])
    return pd.DataFrame({"text": texts, "label": labels})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    save(tiny.model(NautileForCausalLM, vocab_size=300), folder)
    return str(folder)


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """Every run collects garbage; what the imports left is no part of it."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pictures, which take longer than tiny models train."""
    monkeypatch.setattr(outcome, "curves_png", lambda *arguments: None)
    monkeypatch.setattr(outcome, "confusion_png", lambda *arguments: None)


def options_for(kind: Kind) -> dict[str, Any]:
    return {"kind": kind, **({"labels": list(WORDS)} if kind == "ordinal" else {})}


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


@pytest.mark.parametrize("kind", ["single", "ordinal", "multi"])
@pytest.mark.parametrize("method", ["lora", "full", "head"])
@pytest.mark.usefixtures("undrawn")
def test_every_method_learns_every_kind(tmp_path: Path, base: str, method: str, kind: Kind) -> None:
    folder = finetune(
        frame(kind),
        output=tmp_path / "run",
        base=base,
        method=method,
        validation_share=0.25,
        class_weights="balanced",
        **options_for(kind),
        **FITTING[method],
    )
    present = {path.name for path in folder.iterdir()}
    assert {"README.md", "config.yaml", "head.json", "report.md"} <= present
    assert "checkpoints" not in present
    known = read_about(folder)
    assert known["labels"] == tuple(sorted(WORDS))
    assert (known["kind"], known["about"]["method"], known["about"]["base"]) == (kind, method, base)
    assert known["about"]["base_digest"] == fingerprint(base) != ""
    assert known["calibration"].rows == told(folder)["validation"]["rows"] > 20
    assert "was chosen too" in known["calibration"].source
    assert told(folder)["validation"]["macro_f1"]["value"] > 0.6
    assert (folder / "head.safetensors").exists() == (method == "head")
    assert (folder / "adapter_model.safetensors").exists() == (method == "lora")
    assert (folder / "model.safetensors").exists() == (method == "full")
    card = (folder / "README.md").read_text()
    assert base in card
    assert "Licence" in card


def test_the_adapter_loads_in_plain_peft(tmp_path: Path, base: str) -> None:
    from peft import PeftModel

    rows = frame()
    folder = finetune(rows[:72], validation=rows[72:], output=tmp_path / "run", base=base, **QUICK)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == base
    plain = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=3, dtype=torch.float32, ignore_mismatched_sizes=True
    )
    model = PeftModel.from_pretrained(plain, folder).eval()
    held = read_labelled(rows[72:])
    ids, mask = pad_right(vocabulary_of(plain.config).encode_batch(held.texts))
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask).logits.double().numpy()
    reader, head = load_judging(folder)
    tiny.close(head.logits(reader(held.texts).vectors_ND), logits)
    best = max(records(folder), key=lambda record: record["eval_macro_f1"])
    assert best["eval_log_loss"] == pytest.approx(scores(logits, held)["log_loss"], abs=1e-5)


def records(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in lines if "eval_macro_f1" in record]


@pytest.mark.usefixtures("undrawn")
def test_a_full_checkpoint_loads_in_plain_transformers(tmp_path: Path, base: str) -> None:
    folder = finetune(frame(rows=30), output=tmp_path / "run", base=base, method="full", **FITTING["full"])
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    assert plain.config.id2label == dict(enumerate(sorted(WORDS)))
    assert torch.equal(plain.score.weight, load_file(folder / "model.safetensors")["score.weight"])


KILLED = """
import os, signal, sys
import pandas as pd, torch
torch.set_num_threads(1)
from nautile.tasks.finetune import watch
from nautile.tasks.finetune.run import finetune

def stop(self, args, state, control, **kwargs):
    if state.global_step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

watch.Bar.on_step_end = stop
rows = pd.read_json(sys.argv[1], lines=True)
finetune(rows, base=sys.argv[2], output=sys.argv[4], {options})
"""
RESUMED: dict[str, Any] = {**QUICK, "epochs": 3, "batch_size": 8, "dropout": 0.1, "save_every": 5}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path: Path, base: str) -> None:
    rows = frame(rows=48)
    rows.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    script = KILLED.format(options=", ".join(f"{name}={value!r}" for name, value in RESUMED.items()))
    killed = tmp_path / "killed"
    call = [sys.executable, "-c", script, tmp_path / "rows.jsonl", base, "11", killed]
    root = Path(nautile.__file__).parents[1]
    ended = subprocess.run(call, check=False, env=os.environ | {"PYTHONPATH": str(root)})
    assert ended.returncode == -signal.SIGKILL
    newest = training.newest_checkpoint(killed / "checkpoints")
    assert newest is not None
    assert newest.name == "checkpoint-10"
    half_written = killed / "checkpoints" / "checkpoint-12"
    half_written.mkdir()
    (half_written / "trainer_state.json").write_text('{"global_st')
    assert training.newest_checkpoint(killed / "checkpoints") == newest
    finetune(rows, base=base, output=killed, **RESUMED)
    whole = finetune(rows, base=base, output=tmp_path / "whole", **RESUMED)
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (killed, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (killed / "head.json").read_text() == (whole / "head.json").read_text()
    assert [record["step"] for record in records(killed)] == [6, 12, 18]
    assert f"its minutes are those since {newest.name}" in (killed / "README.md").read_text()
    assert "its minutes are those since" not in (whole / "README.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_it_stops_when_validation_no_longer_improves(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    monkeypatch.setattr(training, "scores", lambda logits, data: {"macro_f1": next(found), "log_loss": 1.0})
    folder = finetune(frame(rows=40), output=tmp_path / "run", base=base, **{**QUICK, "epochs": 9, "patience": 2})
    assert told(folder)["training"]["best_update"] == 2 * 3
    assert told(folder)["training"]["updates"] == 4 * 3


@pytest.mark.parametrize("patience", [0, 1])
@pytest.mark.usefixtures("undrawn")
def test_a_run_killed_after_its_training_only_writes_its_files(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    found = iter([0.7, 0.6, *([0.5] if patience == 0 else [])])
    monkeypatch.setattr(training, "scores", lambda *arguments: {"macro_f1": next(found), "log_loss": 1.0})
    rows, options = frame(rows=20), {**QUICK, "base": base, "epochs": 3, "patience": patience}
    with monkeypatch.context() as patch:
        patch.setattr(outcome, "write_files", lambda *arguments: next(iter(())))
        with pytest.raises(StopIteration):
            finetune(rows, output=tmp_path, **options)
    before = load_file(tmp_path / "adapter_model.safetensors")
    assert not (tmp_path / "head.json").exists()
    finetune(rows, output=tmp_path, **options)
    after = load_file(tmp_path / "adapter_model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert told(tmp_path)["training"]["best_update"] == 2
    assert told(tmp_path)["training"]["updates"] == (4 if patience else 6)


@pytest.mark.usefixtures("undrawn")
def test_accumulated_steps_equal_one_large_step(tmp_path: Path, base: str) -> None:
    rows = frame(rows=44)
    weights = [
        load_file(
            finetune(
                rows, output=tmp_path / str(size), base=base, **{**QUICK, "batch_size": size, "accumulate": 8 // size}
            )
            / "adapter_model.safetensors"
        )
        for size in (8, 2)
    ]
    tiny.close(weights[0], weights[1])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_checkpointed_layers_learn_the_same_and_bf16_nearly_so(tmp_path: Path, base: str, method: str) -> None:
    plain = {name: value for name, value in QUICK.items() if method == "lora" or name != "rank"}
    losses = [
        records(finetune(frame(), output=tmp_path / name, base=base, method=method, **{**plain, **changes}))[-1]
        for name, changes in {
            "plain": {},
            "checkpointed": {"gradient_checkpointing": True},
            "bf16": {"bf16": True},
        }.items()
    ]
    usual, checkpointed, bf16 = (record["eval_log_loss"] for record in losses)
    assert checkpointed == pytest.approx(usual, abs=1e-5)
    assert bf16 == pytest.approx(usual, abs=0.05)


def test_the_process_is_left_as_it_was(tmp_path: Path, base: str, capfd: pytest.CaptureFixture[str]) -> None:
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    finetune(frame(rows=24), output=tmp_path / "run", base=base, **QUICK)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert capfd.readouterr() == ("", "")


def test_pictures_are_drawn_and_the_summary_is_said(
    tmp_path: Path, base: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = finetune(frame(), output=tmp_path / "run", base=base, **{**QUICK, "quiet": False})
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("curves.png", "confusion.png"))
    out, said = capfd.readouterr()
    assert out == ""
    assert said.startswith(f"{folder}: lora, 3 labels, 75 rows, 10 updates, best at update ")
    assert "validation (21 rows): accuracy" in said
    assert "weights train" in said
    assert "not adapted:" in said


@pytest.mark.parametrize("method", ["lora", "full", "head"])
@pytest.mark.usefixtures("undrawn")
def test_weights_are_for_all_who_may_read_new_files(tmp_path: Path, base: str, method: str) -> None:
    before = os.umask(0o027)
    try:
        folder = finetune(frame(rows=24), output=tmp_path / "run", base=base, method=method, **FITTING[method])
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()} == {0o640}


@pytest.mark.usefixtures("undrawn")
def test_a_refitted_heads_card_and_summary_say_what_it_learned_from(
    tmp_path: Path, base: str, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = frame(rows=60)
    folder = finetune(rows, output=tmp_path / "run", base=base, method="head", refit=True)
    valid = read_about(folder)["about"]["validation_rows"]
    said = capfd.readouterr().err
    assert said.startswith(f"{folder}: head, 3 labels, 60 rows, ")
    assert f"validation, each fifth by a head of all other rows ({valid} rows): accuracy" in said
    text = (folder / "README.md").read_text()
    assert f"Trained on 60 rows, validated on {valid} of them" in text
    assert "were chosen on these very rows" not in text


@pytest.mark.usefixtures("undrawn")
def test_several_labels_are_summed_up_by_rows_and_not_by_cells(
    tmp_path: Path, base: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = finetune(frame("multi"), output=tmp_path / "run", base=base, method="head", kind="multi")
    assert "rows): rows with all labels right " in capfd.readouterr().err
    text = (folder / "README.md").read_text()
    assert "| micro-F1 |" in text
    assert "| accuracy |" not in text


def test_an_unfinished_run_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "run.json").write_text("{}")
    with pytest.raises(NautileError, match="an unfinished run of nautile finetune; its command, given again"):
        load_judging(tmp_path)


def test_few_rows_get_more_epochs() -> None:
    assert [Options().epochs_for(rows) for rows in (10_000, 616, 100)] == [8, 31, 40]
    assert Options(epochs=2).epochs_for(5) == 2
    assert Options(batch_size=64).epochs_for(2000) == 19


@pytest.mark.usefixtures("undrawn")
def test_few_rows_are_not_calibrated_and_none_validated_has_no_figures(tmp_path: Path, base: str) -> None:
    few = finetune(frame(rows=30), output=tmp_path / "few", base=base, **QUICK)
    assert read_about(few)["calibration"] is None
    assert "too few to calibrate on" in (few / "README.md").read_text()
    blind = finetune(frame(rows=30), output=tmp_path / "blind", base=base, validation_share=0.0, **QUICK)
    assert told(blind)["validation"] is None
    assert told(blind)["training"]["updates"] == 4
    assert "Nothing was validated" in (blind / "README.md").read_text()
    assert (blind / "head.json").exists()


@pytest.mark.usefixtures("undrawn")
def test_cut_texts_are_counted_and_said(tmp_path: Path, base: str) -> None:
    rows = frame(rows=30)
    rows.loc[2, "text"] = "a lovely bright " * 40
    folder = finetune(rows, output=tmp_path / "run", base=base, max_length=60, validation_share=0, **QUICK)
    assert "1 of 30 texts were cut to 60 tokens in training" in told(folder)["notes"]


@pytest.mark.usefixtures("undrawn")
def test_the_folder_of_a_run(tmp_path: Path, base: str) -> None:
    rows, options = frame(rows=24), {"base": base, "method": "head", "quiet": True}
    folder = finetune(rows, output=tmp_path / "run", **options)
    with pytest.raises(NautileError, match="holds a finished run; name another folder, or overwrite it"):
        finetune(rows, output=folder, **options)
    (folder / "mine.txt").write_text("kept")
    assert finetune(rows[:20], output=folder, overwrite=True, **options) == folder
    assert (folder / "mine.txt").read_text() == "kept"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "novel.txt").write_text("mine")
    with pytest.raises(NautileError, match="is not empty and holds no run"):
        finetune(rows, output=tmp_path / "other", overwrite=True, **options)
    with pytest.raises(NautileError, match="is a file"):
        finetune(rows, output=tmp_path / "other" / "novel.txt", **options)


@pytest.mark.usefixtures("undrawn")
def test_an_unfinished_folder_takes_the_same_run_only(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, options = frame(rows=24), {"base": base, "output": str(tmp_path / "run"), **QUICK}

    def dark_after(validations: int) -> None:
        found = iter([{"macro_f1": 0.5, "log_loss": 1.0}] * validations)
        with monkeypatch.context() as patch:
            patch.setattr(training, "scores", lambda *arguments: next(found))
            with pytest.raises(StopIteration):
                finetune(rows, **options)

    with pytest.raises(NautileError, match="names no linear layer"):
        finetune(rows, **options, targets="nothing")
    dark_after(0)
    options["seed"] = 0
    dark_after(1)
    with pytest.raises(NautileError, match=r"unfinished run of other options \(rank was 4, seed was 0\)"):
        finetune(rows, **{**options, "seed": 1, "rank": 8})
    with pytest.raises(NautileError, match="unfinished run on other rows"):
        finetune(rows[1:], **options)
    assert (finetune(rows, **options) / "head.json").exists()


@pytest.mark.usefixtures("undrawn")
def test_the_config_gives_the_same_run(tmp_path: Path, base: str) -> None:
    rows = tmp_path / "rows.jsonl"
    frame(rows=30).to_json(rows, orient="records", lines=True)
    first = finetune(rows, output=tmp_path / "first", base=base, seed=5, **QUICK)
    again = finetune(config=first / "config.yaml", output=tmp_path / "again", quiet=True)
    assert make_options({}, first / "config.yaml").model_copy(update={"output": str(again)}) == make_options(
        {}, again / "config.yaml"
    )
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (first, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@given(
    st.builds(
        Options,
        labels=st.none() | st.lists(st.text("ab: #é-", min_size=1), min_size=1),
        learning_rate=st.none() | st.floats(1e-9, 1),
        bf16=st.sampled_from([True, False, "auto"]),
        targets=st.sampled_from([["in_proj"], ["sca.out_proj", "q_proj"]]),
        text=st.sampled_from(["yes", "1", "null", "text"]),
        save_every=st.none() | st.integers(1, 9),
    )
)
def test_options_survive_yaml(tmp_path_factory: pytest.TempPathFactory, options: Options) -> None:
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    write_config(options, path)
    assert make_options({}, path) == options


BAD = [
    ({"epoch": 3}, "unknown option 'epoch'; did you mean epochs?"),
    ({"xyz": 3}, "unknown option 'xyz'; there are: data, output"),
    ({"epochs": 0}, "epochs: Input should be greater than or equal to 1, not 0"),
    ({"method": "magic"}, "method: Input should be 'lora', 'full' or 'head', not 'magic'"),
    ({"kind": "ordinal"}, "ordinal needs labels, lowest first"),
    ({"targets": ["in_proj", "qproj"]}, "target 'qproj' names no linear layer of this model; there are: in_proj"),
    ({"targets": "all-linear"}, "target 'all-linear' names no linear layer"),
    ({"targets": ["sca.readout"]}, "target 'sca.readout' names no linear layer"),
    ({"out_of_scope": "oos"}, "out_of_scope='oos' is not one of the labels: bad, fair, good"),
    ({"labels": ["bad", "good"]}, "labels that are not among those given: 'fair'"),
    ({"base": "no-such-model"}, "unknown model 'no-such-model'"),
    ({"output": None}, "give a folder for the run"),
    ({"text": "body"}, "has no column 'body'"),
    ({"config": "missing.yaml"}, "missing.yaml: cannot be read as YAML"),
    ({"validation_share": 1.5}, "validation_share: Input should be less than 1"),
    ({"learning_rate": 1e30, "epochs": 9}, "the loss is not finite at update"),
    ({"labels": {"bad", "good"}}, "labels: a set has no order; give a list"),
    ({"labels": 3}, "labels: Input should be a valid list, not 3"),
    ({"output": 3}, "output: Input should be a valid string, not 3"),
    ({"config": 3}, "config must be the path of a YAML file, not 3"),
    ({"overwrite": "no"}, "overwrite must be True or False, not 'no'"),
    ({"quiet": 1}, "quiet must be True or False, not 1"),
    ({"validation": 3}, "data must be a DataFrame"),
    ({"output": __file__ + "/run"}, "is a file, where a folder is to be"),
    ({"output": "x" * 300}, "cannot be a folder (File name too long)"),
    ({"method": "head"}, "method head does not use rank, epochs, batch_size, bf16; leave that out or choose another"),
    ({"refit": True}, "method lora does not use refit; leave that out or choose another method"),
    ({"method": "full"}, "method full does not use rank; leave that out or choose another method"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_what_is_wrong_is_said(tmp_path: Path, base: str, changes: dict[str, Any], message: str) -> None:
    given = {"base": base, "output": tmp_path / "run", **QUICK, **changes}
    with pytest.raises(NautileError) as caught:
        finetune(frame(rows=24), **given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("epochs: [", "cannot be read as YAML"),
        ("- epochs", "must hold options as `name: value` lines, not a list"),
        ("epochs: few", "run.yaml: epochs: Input should be a valid integer"),
        ("labels: [yes, no]", "run.yaml: labels: True is no text; in quotes it is one"),
        ("speed: 3", "run.yaml: unknown option 'speed'"),
    ],
)
def test_a_bad_config_is_named(tmp_path: Path, yaml: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(yaml)
    with pytest.raises(NautileError) as caught:
        make_options({}, tmp_path / "run.yaml")
    assert message in str(caught.value)


@pytest.mark.usefixtures("undrawn")
def test_what_was_tuned_is_no_base(tmp_path: Path, base: str) -> None:
    head = finetune(frame(rows=24), output=tmp_path / "head", base=base, method="head", quiet=True)
    with pytest.raises(NautileError, match="holds a head, which cannot be tuned further"):
        trainable(str(head), ("a", "b"), 0)


@pytest.mark.parametrize("kind", [NautileModel, NautileForCausalLM, NautileForSequenceClassification])
def test_every_checkpoint_is_a_base(tmp_path: Path, kind: Any) -> None:
    source = tiny.model(kind, vocab_size=300)
    save(source, tmp_path)
    model, same = (trainable(str(tmp_path), ("a", "b", "c", "d"), seed=3) for _ in range(2))
    backbone = source if kind is NautileModel else source.model
    assert all(torch.equal(p, backbone.state_dict()[name]) for name, p in model.model.state_dict().items())
    assert model.score.weight.shape == (4, 32)
    assert torch.equal(model.score.weight, same.score.weight)


def test_the_shipped_model_is_a_base_and_its_sca_is_reached() -> None:
    _, reach = adapt(trainable("nautile-mini", ("a", "b"), 0), Options(targets=["in_proj", "gate_proj", "out_proj"]))
    assert 0.4 < reach.adapted_share < 0.8
    assert "sca.readout" in reach.untouched


def test_reach_is_counted_and_a_low_one_is_warned_of(base: str) -> None:
    model = trainable(base, ("a", "b"), 0)
    weights = sum(p.numel() for p in model.parameters())
    q_proj, k_proj = (getattr(model.model.blocks[2].attention, name).weight.numel() for name in ("q_proj", "k_proj"))
    _, reach = adapt(model, Options(targets=["q_proj", "k_proj"], rank=2))
    adapters, score = 2 * (32 + 32) + 2 * (32 + 16), 2 * 32 + 2
    assert reach.weights == weights + adapters
    assert reach.training == adapters + score
    assert reach.adapted == q_proj + k_proj
    assert reach.lines()[0].startswith("warning: the targets reach only")
    _, wide = adapt(trainable(base, ("a", "b"), 0), Options())
    assert wide.adapted_share > 0.7
    assert not wide.lines()[0].startswith("warning")


def test_targets_name_layers_by_their_ends() -> None:
    model = tiny.model(NautileModel)
    assert matched(model, ["sca.out_proj"]) == ["blocks.0.sca.out_proj", "blocks.1.sca.out_proj"]
    assert matched(model, ["out_proj", "q_proj"])[-2:] == ["blocks.2.attention.q_proj", "blocks.2.attention.out_proj"]


def rows_of(labels: list[int], texts: list[str] | None = None) -> Labelled:
    names = tuple(f"label {n}" for n in range(max(labels) + 1))
    return Labelled(texts or [f"t{n}" for n in range(len(labels))], np.array(labels), names, "single", [])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=2), st.floats(0, 0.9), st.integers(0, 5))
@settings(max_examples=60)
def test_a_split_is_fair(rows: list[tuple[int, int]], share: float, seed: int) -> None:
    data = rows_of([label for label, _ in rows], [f"t{text}" for _, text in rows])
    split, same = (split_rows(data, share, seed) for _ in range(2))
    assert split.valid.texts == same.valid.texts
    assert sorted(split.train.texts + split.valid.texts) == sorted(data.texts)
    assert not set(split.train.texts) & set(split.valid.texts)


def test_a_split_keeps_the_shares_of_the_labels() -> None:
    data = rows_of([0] * 100 + [1] * 40 + [2])
    split = split_rows(data, 0.1, 0)
    counts = np.bincount(split.valid.truth, minlength=3).tolist()
    assert counts[0] in (9, 10, 11)
    assert counts[1] in (3, 4, 5)
    assert counts[2] == 0
    assert split.notes == ["not validated: 1 label with a single text, which stays in training"]
    assert split_rows(data, 0.1, 1).valid.texts != split.valid.texts


@pytest.mark.usefixtures("undrawn")
def test_given_validation_rows_are_not_trained_on(tmp_path: Path, base: str) -> None:
    rows = frame(rows=40)
    folder = finetune(rows, validation=rows[30:], output=tmp_path / "run", base=base, method="head", quiet=True)
    assert "not trained on: 10 rows with a text of the validation rows" in told(folder)["notes"]
    assert read_about(folder)["about"]["rows"] == 30


def naive_ordinal(logits: torch.Tensor, truth: torch.Tensor) -> float:
    total = 0.0
    for row, label in zip(logits.softmax(-1).tolist(), truth.tolist(), strict=True):
        total -= float(np.log(row[label]))
        total += sum((sum(row[: n + 1]) - (label <= n)) ** 2 for n in range(len(row)))
    return total


def test_losses_are_what_they_say() -> None:
    logits, truth = torch.randn(7, 4), torch.tensor([0, 1, 2, 3, 1, 1, 0])
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    assert make_loss("single", None)(logits, truth, 7) == pytest.approx(float(F.cross_entropy(logits, truth)))
    weighed = F.cross_entropy(logits, truth, weight=weights, reduction="sum") / 7
    assert make_loss("single", weights)(logits, truth, 7) == pytest.approx(float(weighed))
    assert make_loss("ordinal", None)(logits, truth, 1) == pytest.approx(naive_ordinal(logits, truth), rel=1e-5)
    many = torch.rand(7, 4).round()
    expected = F.binary_cross_entropy_with_logits(logits, many, pos_weight=weights)
    assert make_loss("multi", weights)(logits, many, 28) == pytest.approx(float(expected))


def test_balanced_weights() -> None:
    truth = np.array([0] * 6 + [1] * 2)
    weights = balanced(truth, "single", 3)
    assert weights.tolist() == pytest.approx([8 / 12, 2.0, 1.0])
    assert float(weights[truth].mean()) == pytest.approx(1.0)
    marks = np.array([[True, False, False]] + [[False, False, True]] * 99)
    assert balanced(marks, "multi", 3).tolist() == [20.0, 1.0, 1.0]


def test_a_head_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    vectors, truth = rng.normal(size=(120, 5)) * [1, 5, 0.1, 2, 1], rng.integers(0, 3, 120)
    data = Labelled(["x"] * 120, truth, ("a", "b", "c"), "single", [])
    head = fit_head(Features(torch.from_numpy(vectors)), data, 0.1, weigh=False)
    standard = StandardScaler().fit_transform(vectors)
    theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(standard, truth).predict_proba(standard)
    ours = probabilities(head.logits(torch.from_numpy(vectors)), "single")
    assert np.abs(ours - theirs).max() < 1e-3


def test_a_refitted_head_learns_from_all_rows_and_is_judged_by_heads_that_did_not() -> None:
    rng = np.random.default_rng(0)
    vectors_ND, truth = torch.from_numpy(rng.normal(size=(90, 40))), rng.integers(0, 3, 90)  # nothing to be learned
    place = {str(n): vector for n, vector in enumerate(vectors_ND)}

    def reader(texts: list[str], words: bool) -> Any:  # of which only the call is used
        silent_NS = torch.zeros(len(texts), BUCKETS).to_sparse()
        return SimpleNamespace(vectors_ND=torch.stack([place[text] for text in texts]), words_NS=silent_NS)

    def rows(chosen: range) -> Labelled:
        return Labelled([str(n) for n in chosen], truth[list(chosen)], ("a", "b", "c"), "single", [])

    options = make_options({"method": "head", "refit": True})
    head, logits_NC, history = train_head(reader, Split(rows(range(60)), rows(range(60, 90)), []), options)
    best = max(history, key=lambda record: record["eval_macro_f1"])
    whole = fit_head(Features(to_unit(vectors_ND)), rows(range(90)), best["C"], weigh=False)
    tiny.close(head.weight_CD, whole.weight_CD)
    right = head.logits(vectors_ND[60:]).argmax(1) == truth[60:]
    assert right.mean() > 0.7 > 0.6 > (logits_NC.argmax(1) == truth[60:]).mean()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=400), st.integers(1, 9), st.integers(0, 3))
def test_every_row_comes_once_an_epoch(lengths: list[int], size: int, epoch: int) -> None:
    sampler = AlikeLengths(lengths, size, seed=1)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths)))
    assert list(sampler) == order


def test_batches_hold_alike_lengths() -> None:
    lengths = [1, 100] * 32
    order = list(AlikeLengths(lengths, 8, seed=0))
    assert all(len({lengths[row] for row in order[n : n + 8]}) == 1 for n in range(0, 64, 8))


def test_samples_are_cut_and_padded_right(base: str) -> None:
    vocabulary = vocabulary_of(trainable(base, ("a", "b"), 0).config)
    samples = Samples(rows_of([0, 1], ["abc", "a"]), vocabulary, max_length=2)
    assert samples.cut == 1
    batch = training.collate([samples[0], samples[1]])
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["labels"].tolist() == [0, 1]


@pytest.mark.usefixtures("undrawn")
def test_a_saved_head_is_the_one_that_was_measured(tmp_path: Path, base: str) -> None:
    rows = frame(rows=60)
    folder = finetune(rows[:40], validation=rows[40:], output=tmp_path / "run", base=base, method="head", quiet=True)
    reader, head = load_judging(folder)
    held = read_labelled(rows[40:])
    assert load_head(folder).labels == held.labels
    right = head.probabilities(reader(held.texts).vectors_ND).argmax(1) == held.truth
    assert right.mean() == pytest.approx(told(folder)["validation"]["accuracy"]["value"])


def test_the_signature_tells_every_option() -> None:
    import inspect

    shown = set(inspect.signature(finetune).parameters)
    assert set(Options.model_fields) <= shown
    checked: Callable[..., Path] = finetune
    assert checked.__doc__ is not None


@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint_says_which_kind_of_judgment_it_gives(tmp_path: Path, base: str) -> None:
    options = {"base": base, "method": "full", **FITTING["full"]}
    for kind, problem in (("single", "single_label_classification"), ("multi", "multi_label_classification")):
        folder = finetune(frame(kind, rows=24), kind=kind, output=tmp_path / kind, **options)
        assert load(folder).config.problem_type == problem
        for file in ("head.json", "config.yaml"):
            (folder / file).unlink()
        assert load_judging(folder)[1].kind == kind


def test_what_gives_numbers_gives_no_labels(tmp_path: Path) -> None:
    save(
        tiny.model(NautileForSequenceClassification, vocab_size=300, num_labels=1, problem_type="regression"), tmp_path
    )
    with pytest.raises(NautileError, match="gives numbers"):
        load_judging(tmp_path)


def test_labels_that_lose_their_last_row_to_learn_from_are_named() -> None:
    rows = read_labelled(frame(rows=12))
    kept = np.array(rows.labels)[rows.truth] == rows.labels[0]
    split = given_split(rows, rows.where(kept))
    assert split.notes[-1] == f"no row is left to learn {rows.labels[0]} from"


@pytest.mark.usefixtures("undrawn")
def test_an_adapter_is_no_whole_model(tmp_path: Path, base: str) -> None:
    folder = finetune(frame(rows=24), output=tmp_path / "run", base=base, **QUICK)
    with pytest.raises(NautileError, match="holds an adapter, no whole model"):
        load(folder)


def test_a_file_of_another_layout_is_learned_from(tmp_path: Path, base: str) -> None:
    (tmp_path / "rows.csv").write_text("text;label\n" + "caf\xe9 red;a\nblue sky;b\n" * 15, encoding="cp1252")
    layout = {"encoding": "cp1252", "delimiter": ";"}
    run = finetune(tmp_path / "rows.csv", output=tmp_path / "run", base=base, method="head", quiet=True, **layout)
    assert load_head(run).labels == ("a", "b")
