"""Parameters from PyTorch to JAX and back, exactly: the one module here that knows both frameworks."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import Tensor

from nautile.errors import NautileError
from nautile.pretraining.model import NautileLM

RENAMED = {
    "embed": "model.embed_tokens.weight",
    "conv": "conv_weight",
    "gated_norm": "gated_norm.weight",
    "scale": "weight",
    "kernel": "weight",
}


def torch_name(path: tuple[Any, ...]) -> str:
    """Our PyTorch name of a Flax parameter: ("blocks", 0, "sca", "in_proj", "kernel") → "model.blocks.0.sca.…"."""
    *parents, last = map(str, path)
    name = RENAMED.get(last, last)
    return name if last == "embed" else ".".join(["model", *parents, name])


def _turned(last: Any, value: np.ndarray) -> np.ndarray:
    """The other framework's orientation of a parameter; applying it twice changes nothing."""
    if last == "kernel":
        return value.T
    if last == "conv":
        return value[:, 0].T if value.ndim == 3 else value.T[:, None]
    return value


def to_torch(model: NautileLM) -> dict[str, Tensor]:
    """The state dict of `NautileForCausalLM` with this model's parameters."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {
        torch_name(path): torch.from_numpy(np.array(_turned(path[-1], np.asarray(param[...])))) for path, param in flat
    }


def from_torch(model: NautileLM, tensors: Mapping[str, Tensor]) -> None:
    """Give the model the parameters of a `NautileForCausalLM` state dict.

    Raises:
        NautileError: with every tensor that is missing, unexpected or of a wrong shape named.
    """
    state = nnx.state(model, nnx.Param)
    left, problems = dict(tensors), []
    left.pop("lm_head.weight", None)
    for path, param in nnx.to_flat_state(state):
        name = torch_name(path)
        tensor = left.pop(name, None)
        if tensor is None:
            problems.append(f"missing {name}")
            continue
        value = _turned(path[-1], tensor.detach().float().cpu().numpy())
        if value.shape != param[...].shape:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, expected another for {param[...].shape}")
            continue
        param[...] = jnp.asarray(value)
    problems += [f"unexpected {name}" for name in left]
    if problems:
        raise NautileError(f"these tensors do not fit the model: {'; '.join(problems)}")
    nnx.update(model, state)
