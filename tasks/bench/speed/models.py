"""Language models of known shapes with random weights: what they say is noise, how long they take is not."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, BertConfig, LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen2Config

import nautile.model.checkpoints  # noqa: F401 - makes AutoModel know Nautile
from nautile.model.config import NautileConfig
from nautile.tasks.bench.speed.memory import weight_bytes
from nautile.tasks.question import BASE

NAUTILE, SMOLLM2, QWEN = "nautile-370m", "SmolLM2-360M", "Qwen2.5-0.5B"
MINILM = "MiniLM-L6"

_SMOLLM2: dict[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "max_position_embeddings": 8192,
}
_QWEN: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}
_MINILM: dict[str, Any] = {
    "vocab_size": 30_522,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
}
_TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_TINY_NAUTILE: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 32,
    "num_layers": 3,
    "memory_heads": 4,
    "query_heads": 4,
    "num_heads": 4,
    "num_kv_heads": 2,
    "d_ff": 48,
}


def language_model(name: str, dtype: str, tiny: bool = False, device: torch.device | None = None) -> PreTrainedModel:
    """A backbone without its output layer, so that the size of a vocabulary decides nothing; `tiny` for tests."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = AutoModel.from_config(_config(name, tiny))
    return model.to(device=device, dtype=getattr(torch, dtype)).eval()


def body_parameters(model: nn.Module) -> int:
    """Parameters without the embeddings, which are looked up and not multiplied."""
    return _parameters(model) - sum(map(_parameters, _embeddings(model)))


def body_bytes(model: nn.Module) -> int:
    """Bytes of these parameters: a forward pass reads each at least once."""
    return weight_bytes(model) - sum(map(weight_bytes, _embeddings(model)))


def _embeddings(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Embedding)]


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def token_flops(model: nn.Module) -> int:
    """FLOPs a token needs at the least: two a parameter of the body.

    What attention and SCA add between tokens is left out, of all models alike.
    """
    return 2 * body_parameters(model)


def _config(name: str, tiny: bool) -> PreTrainedConfig:
    if name in (NAUTILE, BASE):
        return NautileConfig.preset(name, **(_TINY_NAUTILE if tiny else {}))
    kinds = {SMOLLM2: (LlamaConfig, _SMOLLM2), QWEN: (Qwen2Config, _QWEN), MINILM: (BertConfig, _MINILM)}
    kind, shape = kinds[name]
    return kind(**(_TINY if tiny else shape), tie_word_embeddings=True)
