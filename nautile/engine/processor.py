"""How a process that trains treats its processor."""

import torch

from nautile.engine.memory import keep_pages


def prepare_training(device: str) -> None:
    """To be called before any other work: keep memory at hand and, on a CPU, go backward quickly.

    Gradients are full of numbers below 1e-38, each many times as slow as others: this thread, and those it starts from
    now on, take them as zero. Attention is plain products in the whole process: torch's fused one for CPUs goes
    backward slowly where rows are short.
    """
    keep_pages()
    if device == "cpu":
        torch.set_flush_denormal(True)
        torch.backends.cuda.enable_flash_sdp(False)  # holds for CPUs too
