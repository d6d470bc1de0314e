"""When a run is asked to stop before its end."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def asked_to_stop(minutes: float | None) -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or Ctrl-C came, or `minutes` are over; a second Ctrl-C ends the program at once."""
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(came) or time.monotonic() > deadline
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
