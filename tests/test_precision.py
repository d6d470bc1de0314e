"""Reading in bfloat16 and int8: by choice, for every way to ask, and within a stated distance of float32."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from torch import Tensor, nn

import nautile
import nautile.tasks.extras
from nautile.cli import main
from nautile.engine.batching import CPU_TOKENS, GPU_TOKENS, token_budget
from nautile.errors import NautileError
from nautile.model.checkpoints import save
from nautile.model.heads import NautileForSequenceClassification
from nautile.tasks.bench.speed.memory import weight_bytes
from nautile.tasks.bench.speed.run import speed
from nautile.tasks.bench.speed.session import Settings
from nautile.tasks.files.run import judge_identity
from nautile.tasks.heads.loading import load_judging, load_task
from nautile.tasks.heads.precision import settled
from nautile.tasks.question import question

LONG = "The room was cold, the food was late and nobody cared. " * 30
TEXTS = [
    "The staff were kind and the room was spotless.",
    "Never again: cold food, and an hour late.",
    "It arrived on Tuesday in a brown box.",
    "can you move my dentist appointment to friday",
    "The central bank left interest rates unchanged, citing slower growth in exports.",
    "ok",
    LONG,
] * 3
SAME = 0.03  # the furthest that a probability may move
BOUNDS = {"bfloat16": 0.01, "int8": 0.015}  # the furthest that a text's vector may move, as a share of its length
LOWER = [
    "bfloat16",
    pytest.param("int8", marks=pytest.mark.skipif(find_spec("torchao") is None, reason="needs the extra int8")),
]
ASKED: list[dict[str, Any]] = [{}, {"task": "topic"}, {"labels": ["praise", "complaint", "news"], "permutations": 2}]


def probabilities(found: pd.DataFrame) -> np.ndarray:
    return found.select_dtypes("float").drop(columns=["agreement"], errors="ignore").to_numpy()


@pytest.mark.parametrize("able", [True, False])
def test_auto_is_bfloat16_where_the_processor_multiplies_it(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nautile.tasks.heads.precision.multiplies_bfloat16", lambda device: able)
    precision = "bfloat16" if able else "float32"
    assert load_task("topic", "auto")[0] is load_task("topic", precision)[0]
    assert judge_identity(question(precision="auto"), None) == judge_identity(question(precision=precision), None)


@pytest.mark.parametrize("precision", LOWER)
def test_vectors_stay_within_the_stated_distance(precision: str) -> None:
    exact, rounded = (load_task("topic", one)[0](TEXTS).vectors_ND for one in ("float32", precision))
    moved_N = (rounded - exact).norm(dim=1) / exact.norm(dim=1)
    assert rounded.dtype == torch.float32
    assert moved_N.min() > 0
    assert moved_N.max() < BOUNDS[precision]


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_answers_stay_within_the_stated_distance(asked: dict[str, Any], precision: str) -> None:
    exact = nautile.classify(TEXTS, **asked)
    rounded = nautile.classify(TEXTS, **asked, precision=precision)
    assert 0 < np.abs(probabilities(exact) - probabilities(rounded)).max() < SAME
    assert (exact["label"] == rounded["label"]).mean() > 0.8
    assert (rounded["windows"] > 1).sum() == 3


@pytest.mark.parametrize("precision", LOWER)
def test_analyze_and_its_readers_take_the_precision(precision: str) -> None:
    exact = nautile.analyze(TEXTS, tasks=["sentiment", "topic"])
    rounded = nautile.analyze(TEXTS, tasks=["sentiment", "topic"], precision=precision)
    assert 0 < np.abs(probabilities(exact) - probabilities(rounded)).max() < SAME
    assert load_task("topic", precision)[0] is load_task("emotion", precision)[0]
    assert load_task("topic")[0] is not load_task("topic", precision)[0]


@pytest.mark.parametrize("precision", LOWER)
def test_the_command_line_takes_it_and_a_resumed_job_must_have_the_same(precision: str, tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("text\n" + "\n".join(f'"{text}"' for text in TEXTS))
    for given in ("float32", precision):
        assert main(["classify", str(source), "-o", str(tmp_path / f"{given}.csv"), "--precision", given]) == 0
    one, other = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("float32", precision))
    assert list(one) == list(other)
    assert 0 < (one["confidence"] - other["confidence"]).abs().max() < SAME
    exact = question("topic")
    assert judge_identity(exact, None) != judge_identity(dataclasses.replace(exact, precision=precision), None)


def test_int8_holds_linear_layers_in_a_byte_a_weight() -> None:
    pytest.importorskip("torchao")
    model, half = (load_task("topic", precision)[0].model for precision in ("int8", "bfloat16"))
    shapes = [module.weight.shape for module in model.modules() if isinstance(module, nn.Linear)]
    weights, scales = sum(rows * columns for rows, columns in shapes), sum(rows for rows, _ in shapes)
    assert weight_bytes(half) - weight_bytes(model) == weights - 5 * scales  # a scale in float32, a zero in int8
    assert weight_bytes(model) < weight_bytes(half) == weight_bytes(load_task("topic")[0].model) / 2
    other = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    other += [weight for name, weight in model.named_parameters() if name.endswith("readout")]
    assert {type(weight.data) for weight in other} == {Tensor}
    assert {weight.dtype for weight in other} == {torch.bfloat16}


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import nautile; nautile.classify('fine', precision='int8')",
        "from nautile.cli import main; main(['classify', '--text', 'fine', '--precision', 'int8', '--quiet'])",
    ],
)
def test_torchao_says_nothing_to_the_user(code: str) -> None:
    pytest.importorskip("torchao")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr == ""


@pytest.mark.parametrize("precision", LOWER)
def test_a_checkpoint_with_labels_is_read_in_it(precision: str, tmp_path: Path) -> None:
    save(tiny.model(NautileForSequenceClassification, vocab_size=600, num_labels=3, pooling="mean"), tmp_path)
    (reader, head), (lower, same) = load_judging(tmp_path), load_judging(tmp_path, precision)
    assert torch.equal(head.weight_CD, same.weight_CD)
    assert lower.model.dtype == torch.bfloat16
    exact, rounded = (one(["some words", LONG]).vectors_ND for one in (reader, lower))
    assert 0 < (exact - rounded).norm() / exact.norm() < 0.05


@pytest.mark.parametrize("precision", LOWER)
def test_evaluate_says_what_a_precision_costs(precision: str) -> None:
    rows = pd.DataFrame({"text": TEXTS[:3], "label": ["positive", "negative", "neutral"]})
    found = nautile.evaluate("sentiment", rows, precision=precision, against="sentiment", resamples=0).summary
    assert found.model == f"nautile-mini sentiment, {precision}"
    [compared] = found.comparisons
    assert compared.opponent == "nautile-mini sentiment"
    assert abs(found.figures.ece.value - compared.opponent_figures.ece.value) < SAME
    assert found.figures.ece != compared.opponent_figures.ece


@pytest.mark.slow  # where bfloat16 is emulated
def test_bench_speed_shows_int8_beside_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchao")
    settings = Settings(("classify",), tiny=True, repeats=1, dtypes=("bfloat16",))
    ratios = {one.unit: one.value.median for one in speed(settings).ratios if one.of == "nautile-mini in int8"}
    assert ratios["texts/s"] > 0
    assert 0.5 < ratios["MB of weights"] < 1
    monkeypatch.setattr(nautile.tasks.extras, "find_spec", lambda module: None)
    without = speed(settings)
    assert not any(one.of == "nautile-mini in int8" for one in without.ratios)
    assert any(note.startswith("classify: nautile-mini in int8 is left out: ") for note in without.notes)


ASKING: list[Callable[..., object]] = [
    nautile.classify,
    nautile.analyze,
    lambda texts, **options: nautile.classify(texts, labels=["a", "b"], **options),
    lambda texts, **options: nautile.evaluate(
        "sentiment", pd.DataFrame({"text": texts, "label": "neutral"}), **options
    ),
]


@pytest.mark.parametrize("ask", ASKING)
def test_another_precision_is_refused(ask: Callable[..., object]) -> None:
    with pytest.raises(NautileError, match=r"^precision must be one of float32, bfloat16, int8, auto, not 'int4'$"):
        ask(["a"], precision="int4")


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("gpu", "device must be cpu, cuda, cuda:1 and so on, or auto, not 'gpu'"),
        ("mps", "device must be cpu, cuda, cuda:1 and so on, or auto, not 'mps'"),
        (0.5, "device must be cpu, cuda, cuda:1 and so on, or auto, not 0.5"),
        ("cuda:x", "device must be cpu, cuda, cuda:1 and so on, or auto, not 'cuda:x'"),
        (["cpu"], r"device must be cpu, cuda, cuda:1 and so on, or auto, not \['cpu'\]"),
        ("cuda:3", "device cuda:3 is not there: torch can use 2 GPUs here"),
        ("cuda:256", "device cuda:256 is not there: torch can use 2 GPUs here"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    device: Any, said: str, ask: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(NautileError, match=f"^{said}$"):
        ask(["a"], device=device)


def test_a_gpu_that_torch_cannot_use_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(NautileError, match=r"^device cuda is not there: torch can use no GPUs here$"):
        nautile.classify("fine", device="cuda")


def test_int8_is_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(NautileError, match=r"^precision int8 is for the CPU; on a GPU take bfloat16$"):
        settled("int8", "cuda")


def test_a_gpu_is_found_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert settled("float32", "auto") == ("float32", "cpu")
    assert load_task("topic", device="auto")[0] is load_task("topic")[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    asked: list[str] = []
    monkeypatch.setattr("nautile.tasks.heads.precision.multiplies_bfloat16", lambda on: not asked.append(str(on)))
    assert settled("auto", "auto") == settled("auto", "cuda") == settled("auto", "cuda:0") == ("bfloat16", "cuda:0")
    assert asked == ["cuda:0"] * 3
    identity = judge_identity(question(device="auto"), None)
    assert identity == judge_identity(question(device="cuda"), None) != judge_identity(question(), None)


def test_a_batch_on_a_gpu_is_as_large_as_its_free_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.config()
    assert token_budget(config, torch.device("cpu")) == CPU_TOKENS
    budgets = []
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    for free in (0, 50 << 20, 100 << 20, 1 << 36):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 1 << 36))
        budgets.append(token_budget(config, torch.device("cuda")))
    assert budgets[0] == CPU_TOKENS
    assert budgets[2] == pytest.approx(2 * budgets[1], rel=1e-3)
    assert CPU_TOKENS < budgets[1] < budgets[2] < budgets[3] == GPU_TOKENS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("asked", [{"task": "sentiment"}, {"labels": ["money", "weather", "sport"]}])
def test_a_gpu_gives_what_the_cpu_gives(asked: dict[str, Any]) -> None:
    one, other = (nautile.classify(TEXTS, **asked, device=device) for device in ("cpu", "cuda"))
    numbers = one.select_dtypes("number").columns
    np.testing.assert_allclose(other[numbers], one[numbers], atol=1e-4)


@pytest.mark.parametrize("ask", ASKING)
def test_int8_without_its_extra_is_refused_in_a_line(
    ask: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nautile.tasks.extras, "find_spec", lambda module: None)
    said = r'^precision int8 needs more packages: pip install "nautile\[int8\]" \(missing: torchao\)$'
    with pytest.raises(NautileError, match=said):
        ask(["a"], precision="int8")
