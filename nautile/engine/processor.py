"""What the processor can do, and how a process that trains treats it."""

import torch

from nautile.engine.memory import keep_pages


def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, at a multiple of float32's speed."""
    return torch.cpu._is_avx512_bf16_supported()


def prepare_training() -> None:
    """To be called before any other work: keep memory at hand, and take the tiniest numbers as zero.

    Gradients are full of numbers below 1e-38, each many times as slow as others. This thread, and those that it starts
    from now on, round them away.
    """
    keep_pages()
    torch.set_flush_denormal(True)
