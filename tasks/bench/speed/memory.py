"""How much memory a call needs at its peak, and how much a state and the weights of a model hold."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from nautile.engine.memory import give_back_pages

CPU = torch.device("cpu")
PROCESS = Path("/proc/self")
RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


def peak_growth(run: Callable[[], object], device: torch.device = CPU) -> float | None:
    """MB by which memory rose, while `run` ran, above where it stood before: the call's own, no models.

    On a GPU that of torch's tensors, on a CPU resident memory: the kernel's mark of its highest is reset before, and
    the heap's free pages are given back. None where there is no such mark (only Linux keeps one), or no resetting it.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    give_back_pages()
    try:
        (PROCESS / "clear_refs").write_text(RESET_PEAK)
    except OSError:
        return None
    resident = _kilobytes("VmRSS")
    run()
    return (_kilobytes("VmHWM") - resident) * 1024 / 1e6


def state_bytes(layers: Iterable[object]) -> int:
    """Bytes of the tensors in the layers of a state (`state.layers`), nautile's or transformers'."""
    held = [value for layer in layers for value in vars(layer).values()]
    parts = [part for value in held for part in (value if isinstance(value, tuple) else (value,))]
    return sum(part.nbytes for part in parts if isinstance(part, Tensor))


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the parameters as they are held: of one in int8, those of its whole numbers and their scales."""
    return sum(part.nbytes for parameter in model.parameters() for part in _parts(parameter))


def _parts(parameter: Tensor) -> list[Tensor]:
    """What a tensor that wraps others (torch's own protocol for that) consists of."""
    if not hasattr(parameter, "__tensor_flatten__"):
        return [parameter]
    names, _ = parameter.__tensor_flatten__()
    return [getattr(parameter, name) for name in names]


def _kilobytes(name: str) -> int:
    lines = (PROCESS / "status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
