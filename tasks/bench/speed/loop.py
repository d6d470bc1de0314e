"""What SCA's compiled loop on a CPU brings: the same work without it, in the same rounds."""

from collections.abc import Iterator
from contextlib import contextmanager

from nautile.model.kernels.cpu import has_loops, use_loop
from nautile.tasks.bench.speed.session import Work


def with_and_without(name: str, work: Work) -> dict[str, Work]:
    """The work, and where there is a loop to leave out the same work without it."""

    def run() -> object:
        before = use_loop(False)
        try:
            return work.run()
        finally:
            use_loop(before)

    return {name: work, without(name): work._replace(run=run)} if has_loops() else {name: work}


@contextmanager
def from_the_start() -> Iterator[None]:
    """Take the loop as a process does that has read much, unless it is off."""
    before = use_loop()
    use_loop(before is not False)
    try:
        yield
    finally:
        use_loop(before)


def without(name: str) -> str:
    """What the contender without the loop is called."""
    return f"{name} without the loop"
