"""The Triton kernels against the readable functions, forward and gradient: interpreted on a CPU, compiled on a GPU."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

if find_spec("triton") is None:
    pytest.skip("the kernels need the extra gpu", allow_module_level=True)

import tiny
from tiny import close

from nautile.errors import NautileError
from nautile.model import sca
from nautile.model.kernels import conv, scan, step, use
from nautile.model.model import NautileModel
from nautile.model.spectral import Spectrum, Sums, sca_chunked, sca_step
from nautile.model.state import NautileState

HAS_GPU = torch.cuda.is_available()
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(HAS_GPU, reason="Triton compiles in this process")),
    pytest.param("cuda", marks=pytest.mark.skipif(not HAS_GPU, reason="no GPU")),
]
on_devices = pytest.mark.parametrize("device", DEVICES)
ROUNDING = 2**-8  # the largest relative error of one rounding to bfloat16; Triton's interpreter cuts off instead: twice


@pytest.fixture(autouse=True)
def _torch_functions_afterwards() -> Iterator[None]:
    yield
    use.use_kernels(False)


def with_gradients(outputs: tuple[Tensor, ...], leaves: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Outputs, numbered, and the gradients of their sum, each element weighed differently (exactly in bfloat16)."""
    pulls = [torch.arange(out.numel(), device=out.device).cos().bfloat16().view(out.shape) for out in outputs]
    loss = torch.stack([(out.float() * pull).sum() for out, pull in zip(outputs, pulls, strict=True)]).sum()
    gradients = torch.autograd.grad(loss * scale, list(leaves.values()))
    return {**{str(n): out.detach() for n, out in enumerate(outputs)}, **dict(zip(leaves, gradients, strict=True))}


def alike(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    for part, value in want.items():
        close(got[part], value, lambda difference, part=part: f"{part}: {difference}")


@dataclass
class Rows:
    """A batch for the scan and a spectrum; `documents` are where the packed ones begin, after the first."""

    L: int
    H: int = 12
    M: int = 2
    K: int = 2
    Q: int = 1
    fading: bool = True
    documents: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    prefix: bool = False
    lightness: float = 1.0

    def leaves(self, device: str) -> dict[str, Tensor]:
        B, L, K, H, M = len(self.lengths) or 2, self.L, self.K, self.H, self.M
        made = {
            "k": torch.randn(B, L, K, H),
            "w": (torch.rand(B, L, K) + 1e-3) * self.lightness,
            "q": torch.randn(B, L, self.Q, H, M, 2),
            "eta_K": 1 + torch.randn(K),
            "theta_KHM": 3 * torch.rand(K, H, M),
            "omega_KHM": torch.randn(K, H, M).softmax(-1),
            "fade_K": torch.logspace(-3, 1, K) * self.fading,
        }
        if self.prefix:
            made |= {"z": torch.rand(B, K), "re": torch.randn(B, K, H, M), "im": torch.randn(B, K, H, M)}
        return {name: part.to(device).requires_grad_() for name, part in made.items()}

    def inputs(self, x: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Spectrum]:
        return x["k"], x["w"], x["q"], Spectrum(*(x[name] for name in Spectrum._fields))

    def results(self, form: Any, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs, sums after and gradients; outputs after a row's end are nobody's."""
        device, options, live = x["k"].device, {}, torch.ones(1, 1, device=x["k"].device)
        if self.documents:
            numbers = (torch.arange(self.L)[:, None] >= torch.tensor(self.documents)).sum(1).expand(len(x["k"]), -1)
            last = numbers[:, -1:] if not self.lengths else numbers.gather(1, torch.tensor(self.lengths)[:, None] - 1)
            options["document_BL"] = numbers.minimum(last).to(device)
        if self.lengths:
            options["lengths_B"] = torch.tensor(self.lengths, device=device)
            live = torch.arange(self.L, device=device) < options["lengths_B"][:, None]
        if self.prefix:
            options["sums"] = Sums(x["z"], x["re"], x["im"])
        o, sums = form(*self.inputs(x), **options)
        return with_gradients((o * live[..., None, None], *sums), x, self.lightness / self.L)


CASES = {
    **{f"{L} tokens": Rows(L) for L in (1, 3, 17, 65)},
    **{f"{L} tokens, no fading": Rows(L, fading=False) for L in (1, 3, 17, 65)},
    "one point, a query head each": Rows(17, H=24, M=1, Q=2),
    "three points, two query heads": Rows(17, M=3, K=4, Q=2),
    "a channel each": Rows(17, H=1, M=5, Q=2),
    "blocks of channels": Rows(17, H=40, M=1),
    "documents": Rows(65, documents=(1, 16, 40)),
    "documents, no fading": Rows(65, M=1, fading=False, documents=(15, 33)),
    "padding": Rows(35, lengths=(0, 1, 16, 35)),
    "documents and padding": Rows(35, documents=(3, 20), lengths=(20, 33)),
    "after a prefix": Rows(18, prefix=True),
    "after a prefix, padding, no fading": Rows(18, M=3, fading=False, prefix=True, lengths=(0, 5, 18)),
    "hardly any mass": Rows(17, lightness=1e-4),
}


@on_devices
@pytest.mark.parametrize("rows", CASES.values(), ids=CASES)
def test_scan_equals_the_chunked_form_and_so_do_its_gradients(rows: Rows, device: str) -> None:
    x = rows.leaves(device)
    alike(rows.results(scan.sca_scan, x), rows.results(sca_chunked, x))


@on_devices
def test_scan_reads_parts_of_a_wider_tensor_and_leaves_nothing_for_backward_without_gradients(device: str) -> None:
    rows = Rows(20)
    x = {name: part.detach() for name, part in rows.leaves(device).items()}
    want, want_sums = sca_chunked(*rows.inputs(x))
    wide = torch.cat([x["k"].flatten(2), x["q"].flatten(2)], dim=-1)
    k, q = wide.split([x["k"][0, 0].numel(), x["q"][0, 0].numel()], dim=-1)
    x |= {"k": k.unflatten(-1, x["k"].shape[2:]), "q": q.unflatten(-1, x["q"].shape[2:])}
    assert not x["k"].is_contiguous()
    o, sums = scan.sca_scan(*rows.inputs(x))
    close((o, *sums), (want, *want_sums))
    assert not o.requires_grad


@on_devices
def test_bfloat16_enters_the_scan_unrounded_and_gradients_are_rounded_once(device: str) -> None:
    rows = Rows(20, Q=2)
    half = {name: part.detach().bfloat16().requires_grad_() for name, part in rows.leaves(device).items()}
    exact = {name: part.detach().float().requires_grad_() for name, part in half.items()}
    mixed = {name: (half if name in "kwq" else exact)[name] for name in half}
    got, want = rows.results(scan.sca_scan, mixed), rows.results(sca_chunked, exact)
    for part, value in want.items():
        assert got[part].dtype == (torch.bfloat16 if part in "kwq" else torch.float32)
        torch.testing.assert_close(got[part].float(), value, rtol=ROUNDING if part in "kwq" else 1e-5, atol=1e-5)


@on_devices
def test_scan_keeps_sums_of_chunks_not_of_tokens(device: str) -> None:
    rows, saved = Rows(33, M=8, K=4), []
    x = rows.leaves(device)
    with torch.autograd.graph.saved_tensors_hooks(lambda part: saved.append(part.numel()) or part, lambda part: part):
        scan.sca_scan(*rows.inputs(x))
    assert 0 < max(saved) < 2 * 33 * rows.K * rows.H * rows.M


@on_devices
@pytest.mark.parametrize("M", [1, 2, 3])
@pytest.mark.parametrize("fading", [True, False])
def test_step_equals_the_torch_step(M: int, fading: bool, device: str) -> None:
    rows = Rows(1, H=24, M=M, fading=fading, prefix=True)
    x = {name: part.detach() for name, part in rows.leaves(device).items()}
    one_prefix = Sums(*(x[name][:1].expand_as(x[name]) for name in ("z", "re", "im")))
    o, sums = step.sca_step(*rows.inputs(x), one_prefix)
    want, want_sums = sca_step(*rows.inputs(x), one_prefix)
    close((o, *sums), (want, *want_sums))


@on_devices
@pytest.mark.parametrize(("L", "P", "c"), [(1, 9, 4), (3, 9, 2), (17, 70, 1), (65, 9, 4)])
@pytest.mark.parametrize("before", ["nothing", "tail", "documents"])
def test_convolution_equals_torch_and_so_do_its_gradients(L: int, P: int, c: int, before: str, device: str) -> None:
    x = {"z": torch.randn(2, L, P), "kernel": torch.randn(P, 1, c)}
    if before == "tail":
        x["tail"] = torch.randn(2, c - 1, P)
    x = {name: part.to(device).requires_grad_() for name, part in x.items()}
    document = (torch.arange(L, device=device) // 7).expand(2, -1) if before == "documents" else None
    inputs = x["z"], x["kernel"], x.get("tail"), document
    want = with_gradients((F.silu(sca.causal_conv(*inputs)),), x, 1 / L)
    alike(with_gradients((conv.conv_silu(*inputs),), x, 1 / L), want)


@on_devices
def test_convolution_of_bfloat16_is_rounded_once(device: str) -> None:
    made = {"z": torch.randn(2, 33, 9), "kernel": torch.randn(9, 1, 4)}
    half = {name: part.to(device, torch.bfloat16).requires_grad_() for name, part in made.items()}
    exact = {name: part.detach().float().requires_grad_() for name, part in half.items()}
    got = with_gradients((conv.conv_silu(half["z"], half["kernel"]),), half, 1.0)
    want = with_gradients((F.silu(sca.causal_conv(exact["z"], exact["kernel"])),), exact, 1.0)
    for part, value in want.items():
        assert got[part].dtype == torch.bfloat16
        torch.testing.assert_close(got[part].float(), value, rtol=ROUNDING if HAS_GPU else 2 * ROUNDING, atol=1e-5)


def model_results(device: str, **changes: Any) -> dict[str, Tensor]:
    """Hidden states of real tokens and all gradients: plain, packed and after a shared prefix; then a step."""
    model = tiny.model(NautileModel, d_model=16, memory_heads=2, query_heads=1, **changes).to(device).train()
    ids, mask = tiny.tokens(2, 19).to(device), torch.ones(2, 19, dtype=torch.long, device=device)
    mask[1, 14:] = 0
    documents = (torch.arange(19, device=device) // 6 + 1).expand(2, -1)
    state = NautileState(model.config)
    model(tiny.tokens(1, 5).to(device), cache=state)
    state = state.branch(2)
    hidden = [
        model(ids, mask).last_hidden_state * mask[..., None],
        model(ids, segment_ids=documents).last_hidden_state,
        model(ids, mask, cache=state).last_hidden_state * mask[..., None],
    ]
    found = with_gradients(tuple(hidden), dict(model.named_parameters()), 0.01)
    with torch.no_grad():
        found["step"] = model(ids[:, :1], cache=state).last_hidden_state
    return found


@on_devices
@pytest.mark.slow
@pytest.mark.parametrize("decay", [tiny.RELATIVE, tiny.BOUNDARY], ids=["relative", "boundary"])
def test_model_is_the_same_with_kernels(decay: dict[str, Any], device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    want, called = model_results(device, **decay), set()
    for room, name in ((conv, "conv_silu"), (scan, "sca_scan"), (step, "sca_step")):
        real = getattr(room, name)
        monkeypatch.setattr(room, name, lambda *a, real=real, name=name, **k: (called.add(name), real(*a, **k))[1])
    use.use_kernels()
    alike(model_results(device, **decay), want)
    assert called == {"conv_silu", "sca_scan", "sca_step"}
    use.use_kernels(False)
    assert sca.sca_chunked is sca_chunked


def test_what_kernels_cannot_take_goes_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for room, name in ((conv, "conv_silu"), (scan, "sca_scan"), (step, "sca_step")):
        monkeypatch.delattr(room, name)
    model, ids = tiny.model(NautileModel), tiny.tokens(2, 7)
    want = model(ids).last_hidden_state
    use.use_kernels()
    assert model.double()(ids).last_hidden_state.dtype == torch.float64
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    close(model.float()(ids).last_hidden_state, want)


def test_without_triton_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use, "find_spec", lambda name: None)
    with pytest.raises(NautileError, match=r"nautile\[gpu\]"):
        use.use_kernels()
    use.use_kernels(False)


COMPILE = """
import sys
from types import SimpleNamespace
sys.path.insert(0, {folder!r})
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, JITFunction
gpu = dict(get_current_target=lambda: GPUTarget("cuda", 80, 32), get_current_device=lambda: 0)
driver.set_active(SimpleNamespace(**gpu, get_current_stream=lambda device: 0))
run, compiled = JITFunction.run, set()
def compile_only(kernel, *inputs, grid, warmup, **options):
    assert run(kernel, *inputs, grid=grid, warmup=True, **options).asm["cubin"]
    compiled.add(kernel.__name__)
JITFunction.run = compile_only
from test_kernels import CASES, Rows, Sums, conv, scan, step
for rows in (Rows(20, H=64, Q=2), CASES["documents and padding"]):
    x = rows.leaves("cpu")
    rows.results(scan.sca_scan, x)
    first = rows.leaves("cpu") | {{name: part[:, :1] for name, part in x.items() if name in "kwq"}}
    sums = Sums(x["w"][:, 0], *(part.new_zeros(2, *part.shape) for part in (x["theta_KHM"],) * 2))
    step.sca_step(*rows.inputs(first), sums)
z = torch.randn(2, 9, 70, requires_grad=True)
for tail, document in ((torch.randn(2, 3, 70), None), (None, torch.ones(2, 9, dtype=torch.long))):
    conv.conv_silu(z, torch.randn(70, 1, 4), tail, document).sum().backward()
print(*sorted(compiled))
"""


@pytest.mark.slow
def test_kernels_compile_for_a_gpu_that_is_not_there() -> None:
    """Triton's interpreter takes more than its compiler does."""
    code, compiling = COMPILE.format(folder=str(Path(__file__).parent)), {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=compiling)
    assert done.stdout.strip() == "conv_backward conv_forward scan_backward scan_forward step", done.stderr
