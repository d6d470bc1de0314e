"""What the processor can do, which device computes, and how a process that trains treats it."""

import torch

from nautile.engine.memory import keep_pages
from nautile.errors import NautileError


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself, at a multiple of float32's speed."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def fast_autocast(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where the device multiplies that itself; elsewhere float32 is faster, and stays."""
    return torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device))


def find_device(name: str) -> torch.device:
    """The CPU ("cpu"), a GPU ("cuda", "cuda:1" and so on), or ("auto") the first GPU where torch can use one.

    Raises:
        NautileError: no such GPU here.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= gpus:
        raise NautileError(f"device {name} is not there: torch can use {gpus or 'no'} GPU{'s' * (gpus != 1)} here")
    return torch.device("cuda", index)


def prepare_training() -> None:
    """To be called before any other work: keep memory at hand, and take the tiniest numbers as zero.

    Gradients are full of numbers below 1e-38, each many times as slow as others. This thread, and those that it starts
    from now on, round them away.
    """
    keep_pages()
    torch.set_flush_denormal(True)
