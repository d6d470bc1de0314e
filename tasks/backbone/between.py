"""Weights between those a run began with and those it came to: more training gains some things and forgets others.

python -m nautile.tasks.backbone.between RUN NEW --share 0.6      # NEW: a folder for backbone.heads.build

Averages keep most of both (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from nautile.errors import NautileError
from nautile.tasks.backbone.export import averaged
from nautile.tasks.backbone.train import BEGIN


def between(begin: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """`share` of the way from one state to the other; what is no float is the same in both.

    Raises:
        NautileError: states of different models, or with different pairs.
    """
    same = begin.keys() == end.keys() and all(begin[name].shape == end[name].shape for name in end)
    if not same or any(not torch.equal(begin[name], end[name]) for name in end if not end[name].is_floating_point()):
        raise NautileError("the run began with another model than it came to; nothing lies between them")
    return {
        name: torch.lerp(begin[name], tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in end.items()
    }


def main(
    run: Annotated[Path, typer.Argument(help="folder of a run that began with a checkpoint")],
    new: Annotated[Path, typer.Argument(help="folder to write")],
    share: Annotated[float, typer.Option(min=0, max=1, help="of the way, 1: what the run came to")] = 0.6,
) -> None:
    """Write NEW/checkpoint.pt, for `backbone.heads.build`."""
    if not (run / BEGIN).is_file():
        raise NautileError(f"{run}: no {BEGIN} there; nautile.tasks.backbone.train --begin-with writes it")
    begin = torch.load(run / BEGIN, weights_only=True, mmap=True)
    found = between(begin, averaged(run / "checkpoint.pt"), share)
    new.mkdir(parents=True, exist_ok=True)
    torch.save({"module": found, "average": {}}, new / "checkpoint.pt")
    if (run / "topics.json").is_file():
        shutil.copy(run / "topics.json", new)


if __name__ == "__main__":
    typer.run(main)
