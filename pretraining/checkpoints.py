"""The checkpoints of a run: written in the background, whole or not at all, the newest whole one read back."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.options import AtomicityMode, AtomicityOptions

from nautile.errors import NautileError
from nautile.pretraining.folder import named, read_arrays, unnamed
from nautile.pretraining.step import TrainState


class Checkpoints:
    """A folder of steps. A step counts only with its commit marker, which is written last; `keep` of them stay.
    Without `keep` the folder is only read.

    Each holds `params` and `optimizer`, flat dicts from a leaf's path to its float32 array, and `progress`, JSON.
    """

    def __init__(self, folder: Path, keep: int | None = None) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            atomicity_options=AtomicityOptions(mode=AtomicityMode.COMMIT_FILE),
            cleanup_tmp_directories=keep is not None,
            read_only=keep is None,
        )
        self.folder = folder.resolve()
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    @property
    def steps(self) -> list[int]:
        """The steps that are whole, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, progress: dict[str, Any]) -> None:
        """Copy the state off the devices and return; it is written in the background, after the one before.

        Raises NautileError where the disk has no room for it.
        """
        self._manager.wait_until_finished()
        needed, free = sum(leaf.nbytes for leaf in jax.tree.leaves(state)), shutil.disk_usage(self.folder).free
        if needed > free:
            last = f"the last whole one is step {self.steps[-1]}" if self.steps else "there is none yet"
            raise NautileError(
                f"{self.folder}: a checkpoint needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; {last}; "
                "make room and resume"
            )
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(named(state.params)),
            optimizer=ocp.args.StandardSave(named(state.optimizer)),
            progress=ocp.args.JsonSave(progress),
        )
        self._manager.save(step, args=items)

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """State and progress of a step, laid out as `like`, which may be abstract; raises NautileError if damaged."""
        place = self.folder / str(step)
        try:
            params = placed(unnamed(read_arrays(place / "params"), like.params), like.params)
            optimizer = placed(unnamed(read_arrays(place / "optimizer"), like.optimizer), like.optimizer)
            progress = json.loads((place / "progress" / "metadata").read_text(encoding="utf-8"))
        except (NautileError, OSError, ValueError) as error:
            raise NautileError(
                f"{place}: the checkpoint cannot be read ({error}); remove it to use the one before"
            ) from None
        return TrainState(params, optimizer), progress

    def wait(self) -> None:
        """Until all that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and end the threads."""
        self._manager.close()


def placed(values: Any, like: Any) -> Any:
    """Arrays on the host, put where the leaves of `like` live; each process has all of them, and keeps its part."""

    def put(value: np.ndarray, leaf: Any) -> jax.Array:
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda part: value[part])

    return jax.tree.map(put, values, like)
