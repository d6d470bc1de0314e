"""SCA's fast paths, a compiled loop on a CPU and kernels on a GPU: the same work without them, in the same rounds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import torch

from nautile.model.kernels.cpu import has_loops, use_loop
from nautile.model.kernels.use import use_kernels
from nautile.tasks.bench.speed.session import Work


class FastPath(NamedTuple):
    """`use` takes it from now on, or no longer, and returns what held before."""

    name: str
    is_there: Callable[[], bool]
    use: Callable[[bool], bool]


LOOP = FastPath("loop", has_loops, use_loop)
KERNELS = FastPath("kernels", lambda: find_spec("triton") is not None, use_kernels)


def fast_path(device: torch.device) -> FastPath | None:
    """The device's, where what it needs is installed."""
    path = KERNELS if device.type == "cuda" else LOOP
    return path if path.is_there() else None


@contextmanager
def fast(device: torch.device, enabled: bool = True) -> Iterator[None]:
    """The device's fast path is taken in here, or is not."""
    path = fast_path(device)
    before = path is not None and path.use(enabled)
    try:
        yield
    finally:
        if path is not None:
            path.use(before)


def with_and_without(name: str, work: Work, device: torch.device) -> dict[str, Work]:
    """The work on the device's fast path, and without it; where there is none, just the work.

    A CPU's is what every command takes by itself, a GPU's what `use_kernels()` asks for.
    """
    if (path := fast_path(device)) is None:
        return {name: work}

    def run(enabled: bool) -> object:
        with fast(device, enabled):
            return work.run()

    return {
        called: work._replace(run=partial(run, enabled))
        for called, enabled in ((name, True), (without(name, path), False))
    }


def without(name: str, path: FastPath) -> str:
    """What the contender without it is called."""
    return f"{name} without the {path.name}"


def against_itself(name: str) -> list[tuple[str, str]]:
    """The pairs of a contender and itself without one of the fast paths."""
    return [(name, without(name, path)) for path in (LOOP, KERNELS)]
