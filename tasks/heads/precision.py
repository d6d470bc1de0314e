"""What a backbone reads in: float32, bfloat16, or int8, which is bfloat16 with int8 weights in its linear layers."""

import torch
from torch import nn

from nautile.engine.processor import find_device, multiplies_bfloat16
from nautile.errors import NautileError
from nautile.quiet import quiet


def settled(precision: str, device: str = "cpu") -> tuple[str, str]:
    """The same, but for "auto": bfloat16 where the device multiplies such numbers, else float32; a GPU, else the CPU.

    Raises:
        NautileError: no such device here, or int8 elsewhere than on the CPU.
    """
    found = find_device(device)
    if precision == "int8" and found.type != "cpu":
        raise NautileError("precision int8 is for the CPU; on a GPU take bfloat16")
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16(found) else "float32"
    return precision, str(found)


def dtype_of(precision: str) -> torch.dtype:
    """What a model of this precision computes in."""
    return torch.float32 if precision == "float32" else torch.bfloat16


def convert(model: nn.Module, precision: str) -> None:
    """Convert a model in place; in "int8" it is for reading, neither to be trained nor saved.

    torchao holds the weight of a linear layer as whole numbers and, for each of its rows, their scale in float32.
    Embeddings, SCA's readout and all vectors and convolutions stay in bfloat16.
    """
    model.to(dtype_of(precision))
    if precision == "int8":
        with quiet():
            from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(model, Int8WeightOnlyConfig(set_inductor_config=False))
