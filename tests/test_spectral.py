"""SCA as functions: reference = chunked = step = the float64 oracle, outputs and gradients, at odd lengths."""

from itertools import pairwise

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer import MAXLEN, H, K, case, prepared
from strategies import seeds
from tiny import close
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nautile.model import spectral
from nautile.model.spectral import (
    CHUNK,
    Spectrum,
    Sums,
    boundary_weights,
    quadrature,
    sca_chunked,
    sca_reference,
    sca_step,
    spectral_grid,
)


def stepped(k: Tensor, w: Tensor, q: Tensor, spectrum: Spectrum) -> Tensor:
    B, L = k.shape[:2]
    zeros = torch.zeros(B, *spectrum.theta_KHM.shape)
    sums, outputs = Sums(zeros[:, :, 0, 0], zeros, zeros), []
    for t in range(L):
        at = slice(t, t + 1)
        o, sums = sca_step(k[:, at], w[:, at], q[:, at], spectrum, sums)
        outputs.append(o)
    return torch.cat(outputs, dim=1)


FORMS = {
    "reference": sca_reference,
    "chunked": lambda *inputs: sca_chunked(*inputs)[0],
    "chunks of 64": lambda *inputs: sca_chunked(*inputs, chunk=64)[0],
    "chunks of 5": lambda *inputs: sca_chunked(*inputs, chunk=5)[0],
    "step": stepped,
}


def expected(x: dict[str, Tensor], decay: str, clip: bool) -> Tensor:
    """The oracle's outputs, row by row."""
    rows = []
    theta, omega = oracle.grid(x["theta_raw"]), oracle.measure(x["w_int_raw"])
    for k, s, q in zip(x["k"], x["s"], x["q"], strict=True):
        w, fade = oracle.weights(s, x, decay, clip, MAXLEN)
        rows.append(oracle.memory(k, w, q, x["phase_scale"], theta, omega, fade)[0])
    return torch.stack(rows)


def with_gradients(outputs: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs and the gradients of a loss that weighs each output differently."""
    pull = torch.cos(torch.arange(outputs.numel(), dtype=torch.float64)).view(outputs.shape).to(outputs.dtype)
    used = {name: leaf for name, leaf in leaves.items() if leaf.numel()}
    gradients = torch.autograd.grad((outputs * pull).sum() / outputs.shape[1], list(used.values()))
    return {"outputs": outputs.detach(), **dict(zip(used, gradients, strict=True))}


VARIANTS = {
    "relative": {},
    "boundary": {"decay": "boundary", "clip": True},
    "boundary-unclipped": {"decay": "boundary"},
    "one-point": {"M": 1, "Q": 4},
    "three-points": {"M": 3, "Q": 1, "decay": "boundary", "clip": True},
    "anchors": {"anchors": 2},
    "anchors-boundary": {"anchors": 1, "decay": "boundary", "clip": True},
}


LENGTHS = sorted({1, 2, 3, 63, 64, 65, 130, CHUNK - 1, CHUNK, CHUNK + 1})
COMBINATIONS = [("relative", L) for L in LENGTHS] + [("boundary", L) for L in LENGTHS]
COMBINATIONS += [(variant, L) for variant in list(VARIANTS)[2:] for L in (3, CHUNK + 1)]


@pytest.mark.parametrize(("variant", "L"), COMBINATIONS)
def test_all_forms_agree_with_the_oracle_and_so_do_their_gradients(variant: str, L: int) -> None:
    """Pitfall 15: step = forward = chunked = definition."""
    c = case(L, B=1 if L > 3 else 2, **VARIANTS[variant])
    truth = c.leaves(torch.float64)
    want = with_gradients(expected(truth, c.decay, c.clip), truth)
    for name, form in FORMS.items():
        leaves = c.leaves()
        got = with_gradients(form(*prepared(leaves, c.decay, c.clip)), leaves)
        for part, value in want.items():
            close(got[part], value.float(), f"{part} of {name}")


@pytest.mark.parametrize("M", [1, 2, 3])
def test_grid_rises_to_its_bounds_and_quadrature_sums_to_one(M: int) -> None:
    raw = 4 * torch.randn(3, 5, M)
    theta = spectral_grid(raw)
    close(theta, oracle.grid(raw.double()).float())
    assert (theta > 0.001).all()
    assert (theta <= 3.0 + 1e-6).all()
    if M > 1:
        assert (theta.diff(dim=-1) > 0).all()
        close(theta[..., -1], torch.full((3, 5), 3.0))
    close(quadrature(raw.clamp(min=-1)).sum(-1), torch.ones(3, 5))


def test_boundary_without_clip_is_the_relative_recurrence_and_the_clip_breaks_it() -> None:
    """Without clip exp(-λ d(t)) cancels in R/Z; with it far tokens of fast heads weigh alike."""
    c = case(120, decay="boundary")
    c.tensors["decay_slopes"] = torch.tensor([-6.0, -5.0, -4.0, -3.5])
    slopes = torch.nn.functional.softplus(c.tensors["decay_slopes"])
    unclipped, relative = (sca_chunked(*prepared(c.tensors, decay, False))[0] for decay in ("boundary", "relative"))
    lightest = boundary_weights(torch.full((1, 1, K), 0.5), slopes, torch.zeros(1, 1), MAXLEN, clip=False)
    assert lightest.min() > 1e-4, "the sums would fall below the floor of the division"
    close(unclipped, relative)
    c.tensors["decay_slopes"] = torch.full((K,), -1.5)
    relative, clipped = (
        sca_chunked(*prepared(c.tensors, decay, clip))[0] for decay, clip in (("relative", False), ("boundary", True))
    )
    assert (clipped[:, 20:60] - relative[:, 20:60]).abs().max() > 0.1


def test_reference_stays_finite_where_old_tokens_have_faded_away() -> None:
    c = case(CHUNK + 2)
    c.tensors["decay_slopes"] = torch.full((K,), 3.0)
    leaves = c.leaves()
    results = [with_gradients(form(*prepared(leaves, c.decay, c.clip)), leaves) for form in FORMS.values()]
    for result in results[1:]:
        for part, value in results[0].items():
            assert value.isfinite().all()
            close(result[part], value)


@pytest.mark.parametrize("variant", ["relative", "boundary", "anchors"])
def test_rows_shorter_than_the_batch_leave_the_sums_of_their_real_tokens(variant: str) -> None:
    """Pitfalls 1 and 6: what stands after a row's end enters neither Z nor R, I."""
    lengths = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 2]
    c = case(lengths[-1], B=len(lengths), **VARIANTS[variant])
    k, w, q, spectrum = prepared(c.tensors, c.decay, c.clip)
    o, sums = sca_chunked(k, w, q, spectrum, lengths_B=torch.tensor(lengths))
    for row, length in enumerate(lengths[1:], start=1):
        at = slice(row, row + 1), slice(length)
        alone, sums_alone = sca_chunked(k[at], w[at], q[at], spectrum)
        close(o[at], alone)
        close(tuple(part[row : row + 1] for part in sums), tuple(sums_alone))
    assert all((part[0] == 0).all() for part in sums)


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=3).filter(any),
    cut=st.integers(1, 39),
    chunk=st.integers(1, 9),
    chunks=st.integers(1, 4),
    packed=st.booleans(),
    seed=seeds(),
)
def test_spans_of_several_chunks_equal_the_reference(
    lengths: list[int], cut: int, chunk: int, chunks: int, packed: bool, seed: int
) -> None:
    """Without gradients: some chunks at once, spans one after another, from a prefix's sums, of any length."""
    torch.manual_seed(seed)
    B, L = len(lengths), max(lengths)
    c = case(L, B=B)
    k, w, q, spectrum = prepared(c.tensors, c.decay, c.clip)
    numbers = torch.randint(0, 4, (B, L)).sort().values if packed else None
    span = chunks * B * chunk * K * H
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(spectral, "SPAN", span)
        whole = sca_chunked(k, w, q, spectrum, document_BL=numbers, lengths_B=torch.tensor(lengths), chunk=chunk)
        first, rest = (tuple(x[:, part] for x in (k, w, q)) for part in (slice(cut), slice(cut, None)))
        if cut < L and not packed:
            _, before = sca_chunked(*first, spectrum, lengths_B=torch.tensor(lengths).clamp(max=cut), chunk=chunk)
            o_rest, sums = sca_chunked(
                *rest, spectrum, lengths_B=(torch.tensor(lengths) - cut).clamp(min=0), sums=before, chunk=chunk
            )
            close(tuple(sums), tuple(whole[1]))
            for row, length in enumerate(lengths):
                close(o_rest[row, : max(0, length - cut)], whole[0][row, cut:length])
    want = sca_reference(k, w, q, spectrum, numbers)
    for row, length in enumerate(lengths):
        close(whole[0][row, :length], want[row, :length])
        last = 0 if numbers is None or not length else int((numbers[row, :length] < numbers[row, length - 1]).sum())
        at = slice(row, row + 1), slice(last, length)
        sums = sca_chunked(k[at], w[at], q[at], spectrum)[1] if length else Sums(*(0 * x[at[0]] for x in whole[1]))
        close(tuple(x[at[0]] for x in whole[1]), tuple(sums))


@pytest.mark.parametrize("M", [1, 3])
@pytest.mark.parametrize("fading", [True, False])
def test_sums_of_a_prefix_are_those_of_the_oracle_and_carry_on(M: int, fading: bool) -> None:
    c = case(CHUNK + 16, B=1, M=M)
    x = {name: tensor.double() for name, tensor in c.tensors.items()}
    w, fade = oracle.weights(x["s"][0], x, "relative", False, MAXLEN)
    theta, omega = oracle.grid(x["theta_raw"]), oracle.measure(x["w_int_raw"])
    fade = fade if fading else torch.zeros_like(fade)
    o, (mass, state) = oracle.memory(x["k"][0], w, x["q"][0], x["phase_scale"], theta, omega, fade)
    k32, w32, q32, spectrum = prepared(c.tensors, "relative", False)
    spectrum = spectrum._replace(fade_K=fade.float())
    first = slice(33)
    o_first, sums = sca_chunked(k32[:, first], w32[:, first], q32[:, first], spectrum)
    rest = slice(33, None)
    o_rest, sums = sca_chunked(k32[:, rest], w32[:, rest], q32[:, rest], spectrum, sums=sums)
    close(torch.cat([o_first, o_rest], dim=1)[0], o.float())
    close(sums, Sums(mass[None].float(), state.real[None].float(), state.imag[None].float()))


@given(
    documents=st.lists(st.integers(1, CHUNK + 20), min_size=1, max_size=4),
    padding=st.integers(0, 70),
    chunk=st.sampled_from([3, CHUNK]),
    seed=seeds(),
)
def test_packed_documents_do_not_see_each_other(documents: list[int], padding: int, chunk: int, seed: int) -> None:
    """Pitfall 8, in the sums; documents end anywhere, also across chunks."""
    torch.manual_seed(seed)
    ends = torch.tensor(documents).cumsum(0).tolist()
    c = case(ends[-1] + padding, B=1)
    k, w, q, spectrum = prepared(c.tensors, c.decay, c.clip)
    numbers = torch.arange(1, len(documents) + 1).repeat_interleave(torch.tensor(documents))
    numbers = torch.nn.functional.pad(numbers, (0, padding), value=len(documents))[None]
    lengths = torch.tensor([ends[-1]])
    o, sums = sca_chunked(k, w, q, spectrum, document_BL=numbers, lengths_B=lengths, chunk=chunk)
    close(sca_reference(k, w, q, spectrum, numbers)[:, : ends[-1]], o[:, : ends[-1]])
    for start, end in zip([0, *ends], ends, strict=False):
        alone, last = sca_chunked(k[:, start:end], w[:, start:end], q[:, start:end], spectrum)
        close(o[:, start:end], alone)
    close(sums, last)


def test_gradients_of_packed_rows_are_those_of_their_documents() -> None:
    """Pitfall 8, backwards, over a chunk's border."""
    ends = [0, 40, CHUNK + 20, CHUNK + 30]
    c = case(ends[-1], B=1)
    numbers = torch.cat([torch.full((1, b - a), n) for n, (a, b) in enumerate(pairwise(ends))], 1)
    leaves = c.leaves()
    k, w, q, spectrum = prepared(leaves, c.decay, c.clip)
    apart = [sca_chunked(k[:, a:b], w[:, a:b], q[:, a:b], spectrum)[0] for a, b in pairwise(ends)]
    want = with_gradients(torch.cat(apart, dim=1), leaves)
    leaves = c.leaves()
    inputs = prepared(leaves, c.decay, c.clip)
    got = with_gradients(sca_chunked(*inputs, document_BL=numbers)[0], leaves)
    for part, value in want.items():
        close(got[part], value, part)


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


@pytest.mark.parametrize("training", [False, True])
def test_no_tensor_of_the_size_of_all_tokens_states_is_made(training: bool) -> None:
    B, M, L = 2, 8, 8 * CHUNK
    c = case(L, B=B, M=M, Q=1)
    with torch.no_grad():
        inputs = prepared(c.tensors, c.decay, c.clip)
    inputs = (*(x.clone().requires_grad_(training) for x in inputs[:3]), inputs[3])
    bound = B * L * K * H * M
    with Largest() as chunked, torch.set_grad_enabled(training):
        o, _ = sca_chunked(*inputs)
        if training:
            o.sum().backward()
    assert 0 < chunked.elements < bound
    with Largest() as reference, torch.no_grad():
        sca_reference(*inputs)
    assert reference.elements >= bound, "the measurement itself"


def test_backward_keeps_no_chunks_states() -> None:
    """What autograd saves between chunks is inputs and sums, not (B,C,K,H,M)."""
    saved: list[int] = []
    c = case(8 * CHUNK, B=1, M=4, Q=1)
    leaves = c.leaves()
    inputs = prepared(leaves, c.decay, c.clip)

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        sca_chunked(*inputs)
    assert max(saved, default=0) < CHUNK * K * H * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_and_outputs_are_float32_whatever_the_inputs_are(dtype: torch.dtype) -> None:
    """Pitfall 13."""
    c = case(CHUNK + 6)
    k, w, q, spectrum = prepared(c.tensors, c.decay, c.clip)
    k, w, q = k.to(dtype), w.to(dtype), q.to(dtype)
    o, sums = sca_chunked(k, w, q, spectrum)
    stepped_o, stepped_sums = sca_step(k[:, -1:], w[:, -1:], q[:, -1:], spectrum, sums)
    assert {x.dtype for x in (o, *sums, stepped_o, *stepped_sums)} == {torch.float32}
    exact, exact_sums = sca_chunked(k.float(), w.float(), q.float(), spectrum)
    close(o, exact)
    close(sums, exact_sums)
