"""What SCA's compiled loop on a CPU brings: the same work without it, in the same rounds."""

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


def without(name: str) -> str:
    """What the contender without the loop is called."""
    return f"{name} without the loop"
