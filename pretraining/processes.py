"""What the processes of a run tell one another; with a single one, nothing."""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def together(what: str) -> None:
    """Wait until every process has come here; `what` must be the same for all."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def agreed(asked: bool, due: bool) -> bool:
    """Whether to stop now: if any process was asked to. Several processes talk about it only when it is `due`."""
    if jax.process_count() == 1:
        return asked
    return due and bool(np.any(multihost_utils.process_allgather(np.array(asked))))


def gathered(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Each process's value, in the order of the processes, on every one of them."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(text)))
    padded = np.pad(text, (0, int(sizes.max()) - len(text)))
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes, strict=True)]
