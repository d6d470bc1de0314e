"""How a process that trains treats its processor."""

import torch

from nautile.engine.memory import keep_pages


def prepare_training() -> None:
    """To be called before any other work: keep memory at hand, and take the tiniest numbers as zero.

    Gradients are full of numbers below 1e-38, each many times as slow as others. This thread, and those that it starts
    from now on, round them away.
    """
    keep_pages()
    torch.set_flush_denormal(True)
