"""SCA's fast paths, a compiled loop on a CPU and kernels on a GPU: the same work without them, in the same rounds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """The work, and where there is a fast path to leave out the same work without it."""
    if (path := fast_path(device)) is None:
        return {name: work}

    def run() -> object:
        with fast(device, enabled=False):
            return work.run()

    return {name: work, without(name, path): work._replace(run=run)}


def without(name: str, path: FastPath) -> str:
    """What the contender without it is called."""
    return f"{name} without the {path.name}"


def against_itself(name: str) -> list[tuple[str, str]]:
    """The pairs of a contender and itself without one of the fast paths."""
    return [(name, without(name, path)) for path in (LOOP, KERNELS)]
