"""Parameters from PyTorch to JAX and back, exactly: the one module here that knows both frameworks."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from safetensors import SafetensorError
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.architecture import Architecture
from nautile.model.checkpoints import load, save
from nautile.model.config import NautileConfig
from nautile.model.heads import NautileForCausalLM
from nautile.model.places import check_new
from nautile.pretraining.folder import is_jax_folder, load_folder, parameter_shapes, save_folder
from nautile.pretraining.model import NautileLM

RENAMED = {
    "embed": "model.embed_tokens.weight",
    "conv": "conv_weight",
    "gated_norm": "gated_norm.weight",
    "scale": "weight",
    "kernel": "weight",
}

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def convert_to_jax(source: str | Path, output: Path) -> NautileForCausalLM:
    """Write a language model as a JAX checkpoint folder, in float32, and return it.

    Args:
        source: what `nautile.model.checkpoints.load` takes: a folder, the released weights, a hub id.
        output: a new or empty folder; it stays so when anything fails.

    The ids of padding and end of text are not kept: they follow from the tokenizer's layout.

    Raises:
        NautileError: a source that cannot be loaded or has another head, tensors without a place in the JAX model.
    """
    with _new_folder(output):
        if is_jax_folder(Path(source)):
            raise NautileError(f"{source}: a JAX checkpoint already")
        model = load(source)
        if not isinstance(model, NautileForCausalLM):
            head = type(model).__name__
            raise NautileError(f"{source}: a {head}; only a language model, NautileForCausalLM, converts to JAX")
        if model.config.ranks is not None:
            raise NautileError(f"{source}: its embedding was resized, and JAX knows the whole vocabulary alone")
        architecture = Architecture(**model.config.architecture())
        params = _from_tensors(model.state_dict(), parameter_shapes(architecture))
        save_folder(params, architecture, model.config.tokenizer_layout, output)
    return model


def convert_to_torch(source: Path, output: Path) -> NautileForCausalLM:
    """Write a JAX checkpoint folder as one that transformers loads, with its tokenizer, and return the model.

    Raises:
        NautileError: a damaged or partial source, an output that is not new or empty; it stays so when anything fails.
    """
    return write_torch(*load_folder(source), output)


def write_torch(
    architecture: Architecture, layout: str, params: nnx.State, output: Path, dtype: str = "float32"
) -> NautileForCausalLM:
    """Write parameters as a folder that transformers loads, with its tokenizer, and return the model.

    Raises:
        NautileError: a dtype other than float32, bfloat16 and float16, an output that is not new or empty.
    """
    if dtype not in DTYPES:
        raise NautileError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    with _new_folder(output):
        model = torch_model(architecture, layout, params).to(DTYPES[dtype])
        try:
            save(model, output)
        except SafetensorError as error:
            raise NautileError(f"{output}: cannot be written ({error})") from None
    return model


def torch_model(architecture: Architecture, layout: str, params: nnx.State) -> NautileForCausalLM:
    """The PyTorch model with these parameters, in float32, in evaluation mode."""
    preset = "nautile-370m" if layout == "released" else "nautile-mini"
    with torch.device("meta"):
        model = NautileForCausalLM(NautileConfig.preset(preset, **architecture.architecture()))
    model = model.to_empty(device="cpu")
    model.tie_weights()
    tensors = _to_tensors(params)
    model.load_state_dict({**tensors, "lm_head.weight": tensors[RENAMED["embed"]]})
    return model.eval()


@contextmanager
def _new_folder(output: Path) -> Iterator[None]:
    """Refuse a folder that holds something; leave it as it was when what writes it fails."""
    check_new(output)
    existed = output.exists()
    with ExitStack() as undo:
        if existed:
            undo.callback(output.mkdir, exist_ok=True)
        undo.callback(shutil.rmtree, output.resolve(), ignore_errors=True)
        yield
        undo.pop_all()


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
    return _to_tensors(nnx.state(model, nnx.Param))


def _to_tensors(params: nnx.State) -> dict[str, Tensor]:
    return {
        torch_name(path): torch.from_numpy(np.array(_turned(path[-1], np.asarray(param[...]))))
        for path, param in nnx.to_flat_state(params)
    }


def from_torch(model: NautileLM, tensors: Mapping[str, Tensor]) -> None:
    """Give the model the parameters of a `NautileForCausalLM` state dict.

    Raises:
        NautileError: with every tensor that does not fit named.
    """
    params = _from_tensors(tensors, nnx.state(model, nnx.Param))
    nnx.update(model, jax.tree.map(jnp.asarray, params))


def _from_tensors(tensors: Mapping[str, Tensor], like: nnx.State) -> nnx.State:
    """The parameters, on the host, laid out as `like`, which may be abstract.

    Raises:
        NautileError: with every tensor that is missing, unexpected, of a wrong shape or not finite named, and where
            the output embedding is not the input embedding.
    """
    left, problems, found = dict(tensors), [], []
    head, embedding = left.pop("lm_head.weight", None), left.get(RENAMED["embed"])
    for path, param in nnx.to_flat_state(like):
        name, expected = torch_name(path), param.get_value().shape
        tensor = left.pop(name, None)
        if tensor is None:
            problems.append(f"missing {name}")
            continue
        value = _turned(path[-1], tensor.detach().float().cpu().numpy())
        if value.shape != expected:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, in JAX it has {expected}")
        elif not np.isfinite(value).all():
            problems.append(f"{name} holds values that are not finite")
        found.append((path, param.replace(value)))
    problems += [f"unexpected {name}" for name in left]
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        problems.append(f"lm_head.weight differs from {RENAMED['embed']}, but the JAX model ties them")
    if problems:
        raise NautileError(f"these tensors do not fit the model: {'; '.join(problems)}")
    return nnx.from_flat_state(found)
