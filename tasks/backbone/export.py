"""From a run of the backbone to a checkpoint folder, with the matching head of zero-shot beside it."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from nautile.errors import NautileError
from nautile.model.checkpoints import save
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
    """Write the backbone in bf16, and the matching head of zero-shot; `fit_sentiment` writes the sentiment layer."""
    student = load_student(run)
    save(student.backbone.to(torch.bfloat16).eval(), folder)
    matching = folder / "heads" / "zero_shot"
    matching.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in student.matching.state_dict().items()}
    save_file(tensors, matching / "head.safetensors")
