"""Tiny models whose every parameter matters: none is left at the zero, one or small scale that it starts from."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from nautile.model.config import NautileConfig
from nautile.model.heads import NautileForCausalLM

Model = TypeVar("Model", bound=torch.nn.Module)

VOCAB = 64
RELATIVE: dict[str, Any] = {"decay": "relative"}
BOUNDARY: dict[str, Any] = {"decay": "boundary", "clip_weights": True}
UNCLIPPED: dict[str, Any] = {"decay": "boundary"}
DECAYS = [RELATIVE, BOUNDARY, UNCLIPPED]


def config(**changes: Any) -> NautileConfig:
    small = {
        "vocab_size": VOCAB,
        "d_model": 32,
        "num_layers": 3,
        "maxlen": 160,
        "memory_heads": 4,
        "query_heads": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "d_ff": 48,
    }
    return NautileConfig(**{**small, **changes})


def model(kind: type[Model] = NautileForCausalLM, seed: int = 0, **changes: Any) -> Model:
    """A model in eval mode, of `config(**changes)`."""
    torch.manual_seed(seed)
    new = kind(config(**changes))
    with torch.no_grad():
        for name, parameter in new.named_parameters():
            if name.endswith("embed_tokens.weight"):
                parameter.normal_(std=0.12)
            elif parameter.ndim == 1 or "raw" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return new.eval()


def tokens(*shape: int, seed: int = 1) -> Tensor:
    """Ids that are neither padding (0) nor the end (1)."""
    return torch.randint(2, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def pad(rows: list[Tensor], side: str, width: int | None = None, filler: int = 7) -> tuple[Tensor, Tensor]:
    """Rows of ids in one batch, and its mask. Pads get an ordinary id, so that only the mask can tell them."""
    width = width or max(len(row) for row in rows)
    ids, mask = torch.full((len(rows), width), filler), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        at = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[number, at], mask[number, at] = row, 1
    return ids, mask


def close(actual: Any, expected: Any, message: str | None = None) -> None:
    """The bar of the whole suite: 1e-5, absolute and relative, in float32."""
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5, msg=message)
