"""Keep the C allocator from giving large buffers back to the kernel at every step."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEEP_BYTES = 1 << 30


def keep_pages() -> bool:
    """Raise glibc's mmap and trim thresholds to 1 GiB for this process; returns whether that was possible.

    Without it, each large intermediate is mapped and unmapped, and page faults take up to half of the processor. For
    training only: over many batches of many shapes the heap grows, which a job over a large file must not.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, KEEP_BYTES))
