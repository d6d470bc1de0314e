"""RMSNorm against its formula in float64, forward and gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nautile.model.norm import RMSNorm

EPS = 1e-6


def formula(x: Tensor, weight: Tensor) -> Tensor:
    x, weight = x.double(), weight.double()
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def norm(width: int, dtype: torch.dtype) -> RMSNorm:
    made = RMSNorm(width, eps=EPS).to(dtype)
    with torch.no_grad():
        made.weight.copy_(torch.linspace(-2, 2, width))
    return made


@given(st.integers(1, 70), st.sampled_from([1e-4, 1.0, 300.0]), st.integers(0, 2**32 - 1))
def test_in_bfloat16_it_is_the_formula_rounded_once(width: int, scale: float, seed: int) -> None:
    x = (scale * torch.randn(2, 3, width, generator=torch.Generator().manual_seed(seed))).bfloat16()
    made = norm(width, torch.bfloat16)
    found, expected = made(x), formula(x, made.weight)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-30)


def test_in_float32_it_is_torchs() -> None:
    x, made = torch.randn(2, 3, 17), norm(17, torch.float32)
    plain = nn.RMSNorm(17, eps=EPS)
    plain.load_state_dict(made.state_dict())
    assert torch.equal(made(x), plain(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_formula_also_of_a_row_of_zeros(dtype: torch.dtype) -> None:
    x = torch.randn(3, 20).to(dtype)
    x[1] = 0
    made, pull = norm(20, dtype), torch.randn(3, 20).to(dtype)
    x.requires_grad_()
    exact = [part.detach().double().requires_grad_() for part in (x, made.weight)]
    found = torch.autograd.grad((made(x) * pull).sum(), [x, made.weight])
    expected = torch.autograd.grad((formula(*exact) * pull.double()).sum(), exact)
    bound = 1e-5 if dtype == torch.float32 else 2**-6
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=bound, atol=bound * float(want.abs().max()))
