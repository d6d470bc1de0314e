"""What the processor can do, which device computes, and how a process that trains treats it."""

import torch

from nautile.engine.memory import keep_pages
from nautile.errors import NautileError


def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, at a multiple of float32's speed."""
    return torch.cpu._is_avx512_bf16_supported()


def find_device(name: str) -> torch.device:
    """A device by torch's name; "auto": a GPU where torch sees one, else the CPU.

    Raises:
        NautileError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise NautileError(f"device must be cpu, cuda, cuda:1 and so on, or auto, not {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise NautileError(f"device {name} is not there: torch sees {torch.cuda.device_count()} GPUs")
    return device


def prepare_training() -> None:
    """To be called before any other work: keep memory at hand, and take the tiniest numbers as zero.

    Gradients are full of numbers below 1e-38, each many times as slow as others. This thread, and those that it starts
    from now on, round them away.
    """
    keep_pages()
    torch.set_flush_denormal(True)
