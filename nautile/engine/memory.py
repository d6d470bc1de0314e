"""How the C allocator (glibc's) treats large buffers: kept at hand in training, given back in long jobs."""

import ctypes
import sys
from functools import cache
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEEP_BYTES = 1 << 30


@cache
def _glibc() -> Any:
    """The C library of this process where it is glibc, else None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None


def keep_pages() -> bool:
    """Raise glibc's mmap and trim thresholds to 1 GiB for this process; returns whether that was possible.

    Without it, each large intermediate is mapped and unmapped, and page faults take up to half of the processor. For
    training only: over many batches of many shapes the heap grows, which a job over a large file must not.
    """
    if (glibc := _glibc()) is None:
        return False
    return bool(glibc.mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)) and bool(glibc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES))


def give_back_pages() -> None:
    """Return the free pages inside glibc's heaps to the kernel.

    Batches of many shapes leave holes there: without this a job grew by 1.5 KB a row, with it its memory stays flat.
    """
    if (glibc := _glibc()) is not None:
        glibc.malloc_trim(0)
