"""Texts of many lengths in batches with little padding, and long ones in windows."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nautile.model.config import NautileConfig

CPU_TOKENS = 1024  # small enough for the cache, and for the heap to stay whole over millions of rows
GPU_TOKENS = 16_384  # of texts that are sorted a thousand at a time: beyond, batches are padding
GPU_SHARE = 0.5  # of a GPU's free memory
ALIVE = 32  # float32 numbers that a token needs at once, in widths of a layer's widest part: an estimate


def windows(length: int, width: int) -> list[tuple[int, int]]:
    """Cut `length` tokens into the fewest spans of at most `width`, as even as can be; none is left out."""
    count = -(-length // width)
    bounds = [length * n // count for n in range(count + 1)] if count else []
    return list(itertools.pairwise(bounds))


def batches(lengths: Sequence[int], max_tokens: int, max_rows: int | None = None) -> Iterator[list[int]]:
    """Group the indices of `lengths` by length, longest first, so that a padded batch has at most `max_tokens`.

    A single item longer than that is a batch of its own; none has more than `max_rows`. Every index comes exactly once.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if group and (lengths[group[0]] * (len(group) + 1) > max_tokens or len(group) == max_rows):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def token_budget(config: NautileConfig, device: torch.device) -> int:
    """Tokens of a batch: few on a CPU; on a GPU many, where its free memory holds them."""
    if device.type != "cuda":
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    widest = max(config.d_ff, config.memory_heads * config.head_width)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(GPU_TOKENS, max(CPU_TOKENS, int(GPU_SHARE * free) // (4 * ALIVE * widest)))


def pad_right(rows: Sequence[Sequence[int]], pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask (B,L) of rows of ids, padded on the right: a causal model needs no more."""
    lengths_B1 = torch.tensor([[len(row)] for row in rows])
    mask_BL = torch.arange(int(lengths_B1.max())) < lengths_B1
    ids_BL = torch.full(mask_BL.shape, pad_id, dtype=torch.long)
    ids_BL[mask_BL] = torch.tensor(list(itertools.chain.from_iterable(rows)), dtype=torch.long)
    return ids_BL, mask_BL.long()
