"""From a run of the backbone to a checkpoint folder, with the matching head of zero-shot beside it."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.checkpoints import LANGUAGE, TABLE, save
from nautile.model.config import NautileConfig
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.backbone.objectives import Student


def load_student(run: Path) -> Student:
    """The averaged weights of a run.

    Raises:
        NautileError: a folder without a checkpoint.
    """
    path = run / "checkpoint.pt"
    if not path.is_file():
        raise NautileError(f"{run}: no checkpoint.pt there; train a backbone first")
    vocabulary = Vocabulary("nautile", 32_000)
    student = Student(NautileConfig.preset("nautile-mini", vocab_size=vocabulary.size), vocabulary)
    state = torch.load(path, weights_only=True, mmap=True)
    student.load_state_dict({**state["module"], **state["average"]})
    return student.eval()


def export(run: Path, folder: Path) -> None:
    """Write in bf16 the backbone, zero-shot's matching head and, if they were trained, the layers that speak.

    `fit_sentiment` writes the sentiment layer.
    """
    student = load_student(run)
    save(student.backbone.to(torch.bfloat16).eval(), folder)
    matching = folder / "heads" / "zero_shot"
    matching.mkdir(parents=True, exist_ok=True)
    _save(student.matching.state_dict(), matching / "head.safetensors")
    if (trained := run / "language" / "checkpoint.pt").is_file():
        state = torch.load(trained, weights_only=True, mmap=True)
        layers = {**state["module"], **state["average"]}
        _save({name: tensor for name, tensor in layers.items() if name not in TABLE}, folder / LANGUAGE)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}, path)
