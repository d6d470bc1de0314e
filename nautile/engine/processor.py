"""How a process that trains treats its processor."""

import torch

from nautile.engine.memory import keep_pages


def prepare_training(device: str) -> None:
    """For processes that train: on a CPU, keep memory at hand and go backward quickly."""
    keep_pages()
    if device == "cpu":
        quick_backward(True)


def quick_backward(on: bool) -> None:
    """On a CPU: the tiniest numbers count as zero, and attention is plain products, for the whole process.

    Gradients are full of numbers below 1e-38, each many times as slow as others; and torch's fused attention for CPUs
    goes backward slowly where rows are short.
    """
    torch.set_flush_denormal(on)
    torch.backends.cuda.enable_flash_sdp(not on)  # holds for CPUs too
