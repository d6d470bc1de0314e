"""transformers imports torchao where it is installed, which tells of kernels for other machines: not to our users."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_TALKATIVE = ("torchao", "torch.utils._pytree")


@contextmanager
def quiet() -> Iterator[None]:
    """Let these loggers tell of errors only."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
