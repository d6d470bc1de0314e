"""Several processes that train one model, each on batches of its own; started by torchrun, and nothing without it.

On a CPU two processes of one thread each do more than one of two threads: small batches leave threads waiting.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

from nautile.errors import NautileError


def join(device: str) -> None:
    """Meet the other processes, if torchrun started this one; raises NautileError for another device than a CPU."""
    if dist.is_torchelastic_launched():
        if device != "cpu":
            raise NautileError(f"several processes train on CPUs only, not on {device}: start one without torchrun")
        dist.init_process_group("gloo")


def leave() -> None:
    """Part when all are done: a process that ends alone may take the others with it."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def rank() -> int:
    """This process's number: 0 where it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def once(action: Callable[[], object]) -> None:
    """Let the first process do it, while the others wait."""
    if rank() == 0:
        action()
    if dist.is_initialized():
        dist.barrier()


@torch.no_grad()
def agree(module: nn.Module) -> None:
    """Give all processes the first one's parameters and buffers."""
    if dist.is_initialized():
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor, 0)


@torch.no_grad()
def average(module: nn.Module, seconds: float) -> float:
    """Replace each gradient by its mean over the processes, which must have them for the same parameters.

    Returns the mean of `seconds`, the same in all processes: deadlines hang on it.
    """
    if not dist.is_initialized():
        return seconds
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    dense = [gradient for gradient in gradients if not gradient.is_sparse]
    passed = torch.tensor([seconds])
    flat = torch.cat([part.flatten() for part in (*dense, passed)]) / processes()
    dist.all_reduce(flat)
    *means, passed = flat.split([part.numel() for part in (*dense, passed)])
    for gradient, mean in zip(dense, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
    for parameter in module.parameters():
        if parameter.grad is not None and parameter.grad.is_sparse:
            rows = parameter.grad.div(processes()).coalesce()
            dist.all_reduce(rows)
            parameter.grad = rows
    return passed.item()
