"""SCA in tiles that fit the cache gives what it gives in one piece, and leaves the same state."""

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nautile.model import conv, tiles
from nautile.model.conv import causal_conv
from nautile.model.model import NautileModel
from nautile.model.state import NautileState


@pytest.fixture(scope="module", params=tiny.DECAYS, ids=["relative", "boundary", "unclipped"])
def model(request: pytest.FixtureRequest) -> NautileModel:
    return tiny.model(NautileModel, **request.param)


@torch.inference_mode()
def read(model: NautileModel, lengths: list[int], tile: int, past: int) -> tuple[torch.Tensor, NautileState]:
    """Hidden states of the real tokens of padded rows, and the state after them."""
    ids, mask = tiny.pad([tiny.tokens(length, seed=n) for n, length in enumerate(lengths)], "right")
    state = NautileState(model.config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        if past:
            model(tiny.tokens(len(lengths), past, seed=99), cache=state)
        hidden = model(ids, mask, cache=state).last_hidden_state
    return hidden * mask[..., None], state


@given(
    lengths=st.lists(st.integers(1, 25), min_size=1, max_size=5),
    tokens=st.integers(1, 80),
    past=st.sampled_from([0, 3]),
)
@settings(max_examples=25)
def test_tiles_change_nothing(model: NautileModel, lengths: list[int], tokens: int, past: int) -> None:
    width = model.config.memory_heads * model.config.head_width
    whole, state = read(model, lengths, 1 << 30, past)
    tiled, other = read(model, lengths, tokens * width, past)
    tiny.close(tiled, whole)
    for one, two in zip(state.layers, other.layers, strict=True):
        if hasattr(one, "sums"):
            for part, same in zip((*one.sums, one.tail_BTP), (*two.sums, two.tail_BTP), strict=True):
                tiny.close(same, part)


def test_what_needs_a_gradient_is_not_cut(model: NautileModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 1)
    cut: list[int] = []
    monkeypatch.setattr(tiles.Layout, "part", lambda *given: cut.append(1))
    model(tiny.tokens(3, 20)).last_hidden_state.sum().backward()
    assert not cut


@pytest.mark.parametrize("length", [1, 2, 3, 17])
@pytest.mark.parametrize("with_tail", [False, True])
def test_the_convolution_has_the_gradients_of_its_definition(
    length: int, with_tail: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv, "TILE", 1)
    monkeypatch.setattr(conv, "NARROWEST", 4)  # of 6 channels
    torch.manual_seed(length)
    z, kernel = torch.randn(2, length, 6, requires_grad=True), torch.randn(6, 1, 4, requires_grad=True)
    tail = torch.randn(2, 3, 6, requires_grad=True) if with_tail else None
    inputs = (z, kernel) if tail is None else (z, kernel, tail)
    before = z.new_zeros(2, 3, 6) if tail is None else tail
    joined = torch.cat([before, z], dim=1)
    want = torch.stack([(joined[:, t : t + 4] * kernel[:, 0].T).sum(1) for t in range(length)], dim=1)
    grad = torch.randn_like(want)
    wanted = torch.autograd.grad(want, inputs, grad)
    found = causal_conv(z, kernel, tail)
    tiny.close(found, want)
    for one, two in zip(torch.autograd.grad(found, inputs, grad), wanted, strict=True):
        tiny.close(one, two)
