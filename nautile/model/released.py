"""The layout of the released checkpoint (PyTorch), and the way from it to ours."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nautile.errors import NautileError, first_line
from nautile.model.architecture import Architecture
from nautile.model.config import NautileConfig
from nautile.model.heads import NautileForCausalLM
from nautile.model.places import read_config

CACHE = re.compile(r"(^|\.)(_[^.]*|cos_emb|sin_emb)$")
CONFIG_NAMES = {
    "d_model": "d_model",
    "d_ff": "d_ff",
    "num_layers": "num_layers",
    "vocab_size": "vocab_size",
    "maxlen": "maxlen",
    "num_heads": "num_heads",
    "num_kv_heads": "num_kv_heads",
    "seqcond_heads": "memory_heads",
    "num_query_heads": "query_heads",
    "num_thetas": "spectral_points",
    "conv_kernel_size": "conv_kernel",
    "expand_factor": "expand",
    "out_expand_factor": "readout_expand",
    "num_anchor_heads": "anchor_heads",
}
REQUIRED = {"qk_norm": True, "qk_norm_eps": 1e-6}
SCA_NAMES = {
    "norm.scale": "norm.weight",
    "attn.in_proj.weight": "sca.in_proj.weight",
    "attn.conv_weight": "sca.conv_weight",
    "attn.w_int_raw": "sca.w_int_raw",
    "attn.decay_slopes": "sca.decay_slopes",
    "attn.anchor_slopes": "sca.anchor_slopes",
    "attn.score_scale": "sca.score_scale",
    "attn.score_bias": "sca.score_bias",
    "attn.phase_scale": "sca.phase_scale",
    "attn.gate_proj.weight": "sca.gate_proj.weight",
    "attn.gated_norm.weight": "sca.gated_norm.weight",
    "attn.W_readout": "sca.readout",
    "attn.out_proj.weight": "sca.out_proj.weight",
}
ATTENTION_NAMES = {
    "norm1.scale": "norm1.weight",
    "norm2.scale": "norm2.weight",
    **{f"attn.{part}_proj.weight": f"attention.{part}_proj.weight" for part in ("q", "k", "v", "out")},
    **{
        f"{layer}.{kind}": f"feed_forward.{layer}.{kind}"
        for layer in ("ff_in", "ff_out")
        for kind in ("weight", "bias")
    },
}


def released_names(a: Architecture) -> Iterator[tuple[str, str]]:
    """Every tensor's name in the release and ours, in the backbone."""
    yield "embedding.weight", "embed_tokens.weight"
    theta = "attn.theta_raw" if a.spectral_points == 1 else "attn.theta_d_raw"
    for index, kind in enumerate(a.layer_kinds):
        names = dict(ATTENTION_NAMES) if kind == "attention" else {**SCA_NAMES, theta: "sca.theta_raw"}
        if not a.anchor_heads:
            names.pop("attn.anchor_slopes", None)
        for theirs, ours in names.items():
            yield f"blocks.{index}.{theirs}", f"blocks.{index}.{ours}"


def read_released(path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """The configuration, if the file or a config.json beside it has one, and the tensors, without caches.

    `path` is a .pt, .bin or .safetensors file, or a folder that holds one. Pickled objects are refused.
    """
    file = _weights_file(path)
    content = _load(file)
    config = content.get("config") if isinstance(content.get("config"), Mapping) else None
    tensors = content.get("state_dict", content)
    beside = file.parent / "config.json"
    if config is None and beside.is_file():
        config = read_config(beside)
    if not isinstance(tensors, Mapping):
        raise NautileError(f"{file}: its state_dict is a {type(tensors).__name__}, not named tensors")
    named = {
        str(name).removeprefix("model."): tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor) and not CACHE.search(str(name))
    }
    if not named:
        raise NautileError(f"{file}: holds no tensors; expected {{'config', 'state_dict'}} or the bare tensors")
    return config, named


def _weights_file(path: Path) -> Path:
    if path.is_dir():
        for name in ("model.safetensors", "pytorch_model.bin"):
            if (path / name).is_file():
                return path / name
        raise NautileError(f"{path}: no model.safetensors or pytorch_model.bin in this folder")
    if not path.is_file():
        raise NautileError(f"{path}: no such file; give the released .pt, .bin or .safetensors file")
    return path


def _load(file: Path) -> Mapping[str, Any]:
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise NautileError(f"{file}: not a whole safetensors file ({error}); fetch it again") from None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch.load raises whatever a damaged or pickled file provokes
        reason = first_line(error)
        raise NautileError(f"{file}: cannot be read as plain tensors ({reason}); pickled objects are refused") from None
    if not isinstance(content, Mapping):
        raise NautileError(f"{file}: holds a {type(content).__name__}, not named tensors")
    return content


def released_config(config: Mapping[str, Any] | None) -> NautileConfig:
    """Our configuration for theirs; nautile-370m's where the file has none."""
    if config is None:
        return NautileConfig.preset("nautile-370m")
    for name, value in REQUIRED.items():
        if config.get(name, value) != value:
            raise NautileError(f"released configuration: {name}={config[name]!r} is not supported, only {value!r}")
    missing = [name for name in ("d_model", "num_layers", "vocab_size") if name not in config]
    if missing:
        raise NautileError(f"released configuration: {', '.join(missing)} missing")
    if not isinstance(ratio := config.get("seqcond_ratio", 2), int):
        raise NautileError(f"released configuration: seqcond_ratio must be a whole number, not {ratio!r}")
    known = {ours: config[theirs] for theirs, ours in CONFIG_NAMES.items() if config.get(theirs) is not None}
    known.setdefault("num_kv_heads", known.get("num_heads", 16))
    return NautileConfig.preset("nautile-370m", **known, attention_every=ratio + 1)


def from_released(path: Path) -> NautileForCausalLM:
    """The model of a released checkpoint.

    Raises:
        NautileError: with every tensor that is missing, unexpected or of a wrong shape named.
    """
    theirs_config, theirs = read_released(path)
    config = released_config(theirs_config)
    with torch.device("meta"):
        model = NautileForCausalLM(config)
    shapes = {name: tensor.shape for name, tensor in model.model.state_dict().items()}
    head = theirs.pop("lm_head.weight", None)
    ours, problems = {}, []
    for name, our_name in released_names(config):
        tensor = theirs.pop(name, None)
        if tensor is None:
            problems.append(f"missing {name}")
        elif not _fits(tensor, shapes[our_name]):
            problems.append(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(shapes[our_name])}")
        elif not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            problems.append(f"{name} holds {tensor.dtype} values that are not finite floating-point numbers")
        else:
            ours[our_name] = tensor.reshape(shapes[our_name]).float()
    problems += [f"unexpected {name}" for name in theirs]
    if (
        head is not None
        and "embed_tokens.weight" in ours
        and not torch.equal(head.float(), ours["embed_tokens.weight"])
    ):
        problems.append("lm_head.weight differs from embedding.weight, but the architecture ties them")
    if problems:
        raise NautileError(f"{path}: not a released Nautile checkpoint of this configuration: {'; '.join(problems)}")
    model = model.to_empty(device="cpu")
    model.model.load_state_dict(ours)
    model.tie_weights()
    return model.eval()


def _fits(tensor: Tensor, shape: torch.Size) -> bool:
    """Whether the shapes agree, leading ones aside."""
    theirs = list(tensor.shape)
    while len(theirs) > len(shape) and theirs[0] == 1:
        theirs.pop(0)
    return theirs == list(shape)


def is_released(path: Path) -> bool:
    """Whether a path holds the released layout rather than ours."""
    if path.is_file():
        return path.suffix in (".pt", ".bin", ".pth", ".safetensors")
    config = path / "config.json"
    return config.is_file() and "seqcond_heads" in read_config(config)
