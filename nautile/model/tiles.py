"""SCA's work between its projections, in tiles that fit the processor's cache: it is bound by memory otherwise."""

from collections.abc import Callable

import torch
from torch import Tensor

from nautile.model.layout import Layout
from nautile.model.state import SCAState

TILE = 1 << 19  # numbers of a (tokens,K,H) tensor in a tile: 2 MB in float32

Mix = Callable[[Tensor, Tensor, Layout, SCAState | None], Tensor]


def in_tiles(mix: Mix, z_BLP: Tensor, gate_BLJ: Tensor, layout: Layout, state: SCAState | None, width: int) -> Tensor:
    """`mix(z, gate, layout, state)`, some rows, or a span of a long one, at a time; `width` is K·H.

    Along a row each tile continues from the state that the one before left, as decoding does. Packed rows, gradients
    and devices other than a CPU get no tiles.
    """
    B, L = z_BLP.shape[:2]
    span = min(L, max(1, TILE // width))
    rows = max(1, TILE // (span * width))
    whole = rows >= B and span == L
    if whole or layout.document_BL is not None or torch.is_grad_enabled() or z_BLP.device.type != "cpu":
        return mix(z_BLP, gate_BLJ, layout, state)
    lines, memories = [], []
    for first in range(0, B, rows):
        mine = slice(first, first + rows)
        memory = _memory(state, mine)
        spans = [(mine, slice(start, start + span)) for start in range(0, L, span)]
        lines.append(torch.cat([mix(z_BLP[at], gate_BLJ[at], layout.part(*at), memory) for at in spans], dim=1))
        memories.append(memory)
    if state is not None:
        state.fill(memories)
    return torch.cat(lines)


def _memory(state: SCAState | None, rows: slice) -> SCAState:
    return SCAState() if state is None else state.select(lambda tensor: tensor[rows])
