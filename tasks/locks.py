"""A folder that one process at a time may write to, where the system can say so."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nautile.errors import NautileError


@contextmanager
def locked(folder: Path, told: str) -> Iterator[None]:
    """Keep others out of an existing folder; raises NautileError, which says what is `told`, where one is in."""
    handle = _handle(folder, told)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _handle(folder: Path, told: str) -> int | None:
    """What keeps the folder locked while it is open; None where the system has no such lock."""
    if os.name != "posix":
        return None
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise NautileError(f"{folder}: {told}") from None
        return None  # a file system without locks
    return handle
