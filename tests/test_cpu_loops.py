"""SCA's compiled loop on a CPU and its gradients against the readable functions: padded, after a prefix, in bf16."""

import copy
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds
from tiny import close
from torch import Tensor
from torch._subclasses import FakeTensorMode

import nautile
from nautile.model.kernels import cpu
from nautile.model.layout import lay_out
from nautile.model.model import NautileModel
from nautile.model.spectral import Spectrum, Sums
from nautile.model.state import NautileState, SCAState

if find_spec("numba") is None:
    pytest.skip("the loop needs the extra cpu", allow_module_level=True)

MODELS: dict[str, dict[str, Any]] = {
    "relative": tiny.RELATIVE,
    "boundary": tiny.BOUNDARY,
    "unclipped": tiny.UNCLIPPED,
    "three query heads, anchors": {"d_model": 48, "memory_heads": 6, "query_heads": 3, "anchor_heads": 2},
    "one point, two taps": {"spectral_points": 1, "query_heads": 4, "conv_kernel": 2},
}
SLOW = pytest.mark.slow  # of compiling: once for each width, number of points, number of taps and type
EXAMPLES = Path(__file__).parent.parent / "examples"
LEAST = cpu.LEAST  # tests go below it
EXACT = 2e-6  # of float32, for what the loop computes by polynomials


@pytest.fixture(autouse=True)
def _however_few_tokens() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "LEAST", 0)
        patch.setattr(cpu, "_wanted", True)
        yield


@pytest.fixture(
    scope="module",
    params=[pytest.param(one, id=name, marks=[SLOW] * name.startswith("one point")) for name, one in MODELS.items()],
)
def model(request: pytest.FixtureRequest) -> NautileModel:
    return tiny.model(NautileModel, **request.param)


@torch.inference_mode()
def read(
    model: NautileModel, lengths: list[int], side: str, past: int, loop: bool, seed: int = 0
) -> tuple[Tensor, NautileState]:
    """Hidden states of the real tokens of padded rows, and the state after them."""
    rows = [tiny.tokens(length, seed=seed + n) for n, length in enumerate(lengths)]
    ids, mask = tiny.pad(rows, side)
    state = NautileState(model.config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "has_loops", lambda: loop)
        if past:
            model(tiny.tokens(1, past, seed=99), cache=state)
            state = state.branch(len(lengths))
        hidden = model(ids, mask, cache=state).last_hidden_state
    return hidden[mask.bool()], state


def memories(state: NautileState) -> list[Tensor]:
    """Sums and convolution tails of all SCA layers."""
    layers = [layer for layer in state.layers if isinstance(layer, SCAState)]
    return [part for layer in layers if layer.sums for part in (*layer.sums, layer.tail_BTP) if part is not None]


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    side=st.sampled_from(["left", "right"]),
    past=st.sampled_from([0, 1, 2, 7]),
    seed=seeds(),
)
@settings(max_examples=25)
def test_the_loop_changes_nothing(model: NautileModel, lengths: list[int], side: str, past: int, seed: int) -> None:
    want, state = read(model, lengths, side, past, loop=False, seed=seed)
    got, other = read(model, lengths, side, past, loop=True, seed=seed)
    close(got, want)
    assert len(memories(state)) == 8
    for one, two in zip(memories(state), memories(other), strict=True):
        close(two, one)


def test_it_is_the_loop_that_computes(model: NautileModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], cpu.mix
    monkeypatch.setattr(cpu, "mix", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    read(model, [3, 9], "right", 2, loop=True)
    assert len(calls) == 4
    read(model, [3, 9], "right", 2, loop=False)
    assert len(calls) == 4


GRADED = {
    "relative": MODELS["relative"],
    "boundary, shared queries, anchors": {**tiny.BOUNDARY, **MODELS["three query heads, anchors"]},
    "one point, two taps": MODELS["one point, two taps"],
}


def gradients(model: NautileModel, lengths: list[int], past: int, loop: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """Of all that the first layer is made of and gets, by random gradients of its output and of what it leaves."""
    torch.manual_seed(0)
    sca, B, L = model.blocks[0].sca.to(dtype), len(lengths), max(lengths)
    a = sca.architecture
    layout = lay_out(B, L, torch.device("cpu"), torch.arange(L) < torch.tensor(lengths)[:, None])
    spectrum = Spectrum(*(part.detach().requires_grad_() for part in sca.spectrum()))
    z_BLP = torch.randn(B, L, a.projection_width).to(dtype).requires_grad_()
    gate_BLJ = torch.randn(B, L, 2 * a.memory_heads * a.head_width).to(dtype).requires_grad_()
    leaves = {"z": z_BLP, "gate": gate_BLJ, **spectrum._asdict(), **dict(sca.named_parameters())}
    state = SCAState()
    if past:
        shape = (B, a.memory_heads, a.head_width, a.spectral_points)
        mass_BK, re_BKHM, im_BKHM = torch.rand(shape[:2]) + 0.1, torch.randn(shape), torch.randn(shape)
        state.sums = Sums(*(part.requires_grad_() for part in (mass_BK, re_BKHM, im_BKHM)))
        state.tail_BTP = torch.randn(B, a.conv_kernel - 1, a.projection_width).to(dtype).requires_grad_()
        leaves |= {**state.sums._asdict(), "tail": state.tail_BTP}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sca, "spectrum", lambda: spectrum)
        out = (
            sca._readout(sca._mix_in_a_loop(z_BLP, gate_BLJ, layout, state))
            if loop
            else sca._mix(z_BLP, gate_BLJ, layout, state)
        )
    assert state.sums is not None
    assert state.tail_BTP is not None
    real_BL1 = (torch.arange(L) < torch.tensor(lengths)[:, None])[..., None]
    total = torch.zeros(())
    for part in (out.where(real_BL1, 0.0), *state.sums, state.tail_BTP):
        total = total + (part.float() * torch.randn(part.shape)).sum()
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {name: part for name, part in zip(leaves, found, strict=True) if part is not None}


@SLOW
@pytest.mark.parametrize("kind", GRADED)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any), past=st.booleans())
@example(lengths=[1], past=False)
@example(lengths=[2, 0, 1], past=True)
@settings(max_examples=12)
def test_gradients_are_the_same(kind: str, lengths: list[int], past: bool) -> None:
    model = tiny.model(NautileModel, **GRADED[kind])
    want, got = (gradients(model, lengths, past, loop, torch.float32) for loop in (False, True))
    assert got.keys() == want.keys() >= {"z", "gate", "eta_K", "theta_KHM", "omega_KHM", "conv_weight", "score_scale"}
    for name, one in want.items():
        largest = one.abs().max().clamp(min=1e-3)  # sums over all tokens: measured against their own size
        close(got[name] / largest, one / largest)


@SLOW
def test_gradients_in_bfloat16_are_as_near_to_float32_as_the_usual_ones() -> None:
    exact = gradients(tiny.model(NautileModel, **tiny.RELATIVE), [30, 17], True, True, torch.float32)
    usual, looped = (
        gradients(tiny.model(NautileModel, **tiny.RELATIVE), [30, 17], True, loop, torch.bfloat16)
        for loop in (False, True)
    )
    for name, one in exact.items():
        assert looped[name].dtype == usual[name].dtype
        far = [((x[name].float() - one).norm() / one.norm()).item() for x in (usual, looped)]
        assert far[1] < max(1.5 * far[0], 0.02) < 0.2, name


@SLOW
def test_a_model_learns_by_the_loop_and_its_gradients_cross_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], cpu._backward
    monkeypatch.setattr(cpu, "_backward", lambda *a: (calls.append(1), real(*a))[1])
    found = []
    for loop in (True, False):
        cpu.use_loop(loop)
        model = tiny.model(NautileModel).train()
        state = NautileState(model.config)
        model(tiny.tokens(1, 5, seed=1), cache=state)
        model(tiny.tokens(3, 9), cache=state.branch(3)).last_hidden_state.square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert len(calls) == 2 * sum(kind == "sca" for kind in model.config.layer_kinds)
    for name, one in found[1].items():
        assert ((found[0][name] - one).norm() / one.norm()).item() < 2e-4, name


@torch.no_grad()
def test_what_comes_in_any_type_and_order_of_memory_is_read_right() -> None:
    sca = tiny.model(NautileModel).blocks[0].sca
    a, layout = sca.architecture, lay_out(2, 5, torch.device("cpu"))
    z_BLP, gate_BLJ = torch.randn(2, 5, a.projection_width), torch.randn(2, 5, 2 * a.memory_heads * a.head_width)
    re, im = torch.randn(2, 2, a.memory_heads, a.head_width, a.spectral_points).bfloat16()
    found = []
    for swapped, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        state = SCAState()
        state.sums = Sums(*(part.to(dtype) for part in (torch.ones(2, a.memory_heads), re, im)))
        state.tail_BTP = z_BLP[:, : a.conv_kernel - 1].bfloat16().to(dtype)
        gate = gate_BLJ.transpose(0, 1).contiguous().transpose(0, 1) if swapped else gate_BLJ
        found.append(sca._mix_in_a_loop(z_BLP, gate, layout, state))
    assert torch.equal(*found)


@SLOW
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_learning_after_a_prefix_that_was_read_in_another_type_or_mode(mode: Any) -> None:
    model, found = tiny.model(NautileModel, **tiny.BOUNDARY), []
    for loop in (True, False):
        state = NautileState(model.config)
        cpu.use_loop(False)
        with torch.autocast("cpu", torch.bfloat16, enabled=mode is torch.no_grad), mode():
            model(tiny.tokens(1, 5, seed=1), cache=state)
        cpu.use_loop(loop)
        model.zero_grad()
        model(tiny.tokens(1, 9), cache=state).last_hidden_state.square().sum().backward()
        found.append(model.get_parameter("blocks.0.sca.in_proj.weight").grad)
    assert (found[0] - found[1]).norm() < 1e-4 * found[1].norm()


def test_functional_gradients_and_traces_go_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "mix", None)
    model, ids = tiny.model(NautileModel), tiny.tokens(2, 7)
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, parameters, (ids,)).last_hidden_state.sum()

    assert torch.func.grad(loss)(parameters).keys() == parameters.keys()
    model.requires_grad_(requires_grad=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(lambda ids: model(ids).last_hidden_state, ids, check_trace=False)


def test_threads_are_put_back_whatever_happens() -> None:
    import numba

    before = torch.get_num_threads(), numba.get_num_threads()
    with pytest.raises(ZeroDivisionError), cpu._as_many_threads():
        _ = 1 / 0
    assert before == (torch.get_num_threads(), numba.get_num_threads())


@pytest.mark.parametrize("threads", [2, 3])
def test_one_row_is_shared_among_threads(model: NautileModel, threads: int) -> None:
    one, _ = read(model, [37], "right", 3, loop=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        shared, _ = read(model, [37], "right", 3, loop=True)
    finally:
        torch.set_num_threads(before)
    close(shared, one)


@pytest.mark.parametrize(
    ("rows", "heads", "threads", "groups"), [(8, 16, 2, 1), (1, 16, 2, 2), (3, 16, 2, 2), (9, 8, 2, 1), (1, 5, 2, 5)]
)
def test_heads_are_cut_into_as_few_groups_as_will_do(rows: int, heads: int, threads: int, groups: int) -> None:
    assert cpu._groups(rows, heads, threads) == groups


def test_a_snapshot_is_not_written_to(model: NautileModel) -> None:
    """Pitfall 11."""
    with torch.inference_mode():
        state = NautileState(model.config)
        model(tiny.tokens(2, 9), cache=state)
        snapshot = state.snapshot()
        kept = [part.clone() for part in memories(snapshot)]
        model(tiny.tokens(2, 5), cache=state)
    assert all(map(torch.equal, memories(snapshot), kept))
    assert not any(map(torch.equal, memories(state), kept))


@SLOW
@pytest.mark.parametrize("decay", [tiny.RELATIVE, tiny.BOUNDARY], ids=["relative", "boundary"])
def test_bfloat16_is_as_near_to_float32_as_the_usual_way_is(decay: dict[str, Any]) -> None:
    exact, _ = read(tiny.model(NautileModel, **decay), [30, 17], "right", 4, loop=True)
    half = tiny.model(NautileModel, **decay).bfloat16()
    usual, state = read(half, [30, 17], "right", 4, loop=False)
    looped, other = read(half, [30, 17], "right", 4, loop=True)
    assert looped.dtype == usual.dtype == torch.bfloat16
    assert all(part.dtype in (torch.float32, torch.bfloat16) for part in memories(other))
    assert [part.dtype for part in memories(other)] == [part.dtype for part in memories(state)]
    far = [((x.float() - exact).norm() / exact.norm()).item() for x in (usual, looped)]
    assert far[1] < 1.2 * far[0] < 0.05


def test_what_it_does_not_take_goes_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "mix", None)
    model, ids = tiny.model(NautileModel), tiny.tokens(2, 7)
    with torch.no_grad():
        model(ids, segment_ids=torch.tensor([[1, 1, 1, 2, 2, 2, 2]] * 2))
        copy.deepcopy(model).double()(ids)
        monkeypatch.setattr(cpu, "_wanted", False)
        model(ids)
        monkeypatch.setattr(cpu, "_wanted", True)
        with FakeTensorMode():
            assert not cpu.fits(torch.empty(2, 3, 4), None)
        assert cpu.fits(torch.empty(2, 3, 4), None)
        monkeypatch.setattr(cpu, "LEAST", 1 << 18)
        tiny.model(NautileModel)(ids)


@pytest.mark.parametrize("missing", ["numba", "nautile.model.kernels.loops"])
def test_without_numba_all_goes_the_usual_way(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nautile.model.kernels.loops", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)  # importing it fails
    cpu.has_loops.cache_clear()
    try:
        assert not cpu.has_loops()
    finally:
        cpu.has_loops.cache_clear()


def test_a_number_that_is_none_is_not_hidden() -> None:
    model = tiny.model(NautileModel)
    with torch.no_grad():
        model.blocks[0].sca.in_proj.weight[0] = float("nan")
        assert model(tiny.tokens(1, 9)).last_hidden_state.isnan().all()


def test_functions_are_exact_over_their_range() -> None:
    from numba import njit

    from nautile.model.kernels import loops

    @njit
    def everywhere(function_of, x):
        return [function_of(number) for number in x]

    wide = np.linspace(-100, 100, 4001, dtype=np.float32)
    phases = np.linspace(-3, 3, 4001, dtype=np.float32)
    found = np.array(everywhere(loops._sigmoid, wide))
    assert {str(form.return_type) for form in loops._sigmoid.nopython_signatures} == {"float32"}
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-wide.astype(np.float64))), atol=EXACT, rtol=EXACT)
    cosines, sines = np.array(everywhere(loops._turn, phases)).T
    np.testing.assert_allclose(cosines, np.cos(phases.astype(np.float64)), atol=EXACT)
    np.testing.assert_allclose(sines, np.sin(phases.astype(np.float64)), atol=EXACT)


THREADS = """
import torch
torch.set_num_threads(1)
import tiny
from nautile.model.kernels import cpu
from nautile.model.model import NautileModel
cpu.LEAST = 0
with torch.inference_mode():
    tiny.model(NautileModel)(tiny.tokens(2, 9))
print(torch.get_num_threads())
"""


@SLOW
def test_torch_keeps_its_number_of_threads() -> None:
    """numba's first call starts its own."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert done.stdout.strip() == "1"


@SLOW
@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-4), ("bfloat16", 0.03)])
def test_nautile_mini_judges_the_same_by_the_loop(precision: str, near: float, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], cpu.mix
    monkeypatch.setattr(cpu, "mix", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    monkeypatch.setattr(cpu, "LEAST", LEAST)
    texts, found = pd.read_csv(EXAMPLES / "reviews.csv")["review"], []
    for loop in (True, False):
        cpu.use_loop(loop)
        calls.clear()
        found.append(nautile.classify(texts, precision=precision)[["negative", "neutral", "positive"]])
        assert bool(calls) is loop
    assert np.abs(found[0] - found[1]).to_numpy().max() < near
