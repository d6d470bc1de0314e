"""From the checkpoints of a run to the folder that ships: PyTorch weights, configuration, tokenizer."""

from pathlib import Path

import numpy as np

from nautile.errors import NautileError
from nautile.pretraining.checkpoints import Checkpoints
from nautile.pretraining.convert import write_torch
from nautile.pretraining.folder import fitting, read_arrays
from nautile.pretraining.train import CHECKPOINTS, recipe_of


def export(run: Path, output: Path, step: int | None = None, average: int = 1, dtype: str = "bfloat16") -> list[int]:
    """Write the weights of checkpoint `step` (default: the newest) as a folder that `nautile.load` takes.

    With `average`, the mean of so many checkpoints, that one the last of them. Returns the steps used.

    Raises:
        NautileError: no run, no such checkpoint, fewer than `average`, or an output that is not new or empty.
    """
    recipe = recipe_of(run)
    whole = Checkpoints(run / CHECKPOINTS).steps if (run / CHECKPOINTS).is_dir() else []
    listed = f"{run} has the checkpoints: {', '.join(map(str, whole)) or 'none'}"
    if step is not None and step not in whole:
        raise NautileError(f"no checkpoint of step {step}; {listed}")
    steps = [number for number in whole if step is None or number <= step][-average:]
    if average < 1 or len(steps) < average:
        raise NautileError(f"{average} checkpoints cannot be averaged; {listed}")
    found = [read_arrays(run / CHECKPOINTS / str(number) / "params") for number in steps]
    mean = {
        name: np.mean([arrays[name] for arrays in found], axis=0, dtype=np.float64).astype(np.float32)
        for name in found[0]
    }
    write_torch(recipe.model, recipe.curriculum.layout, fitting(mean, recipe.model, run), output, dtype)
    return steps
