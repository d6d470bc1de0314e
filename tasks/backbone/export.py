"""From a run of the backbone to a checkpoint folder, with the matching head of zero-shot beside it."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.checkpoints import LANGUAGE, save
from nautile.model.config import NautileConfig
from nautile.model.heads import NautileForCausalLM
from nautile.model.places import share
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
    student.load_state_dict(averaged(path))
    return student.eval()


def export(run: Path, folder: Path) -> None:
    """Write in bf16 the backbone, zero-shot's matching head and, if it was trained, the language model.

    `fit_sentiment` writes the sentiment layer.
    """
    student = load_student(run)
    save(student.backbone.to(torch.bfloat16).eval(), folder)
    matching = folder / "heads" / "zero_shot"
    matching.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in student.matching.state_dict().items()}
    save_file(tensors, matching / "head.safetensors")
    share(matching)
    if (trained := run / "language" / "checkpoint.pt").is_file():
        model = NautileForCausalLM(student.backbone.config)
        state = averaged(trained)
        del state["lm_head.weight"]  # is the token vectors, averaged
        model.load_state_dict(state, strict=False)
        save(model.to(torch.bfloat16).eval(), folder / LANGUAGE)


def averaged(checkpoint: Path) -> dict[str, Tensor]:
    """The state of a run's module, with averaged weights."""
    state = torch.load(checkpoint, weights_only=True, mmap=True)
    return {**state["module"], **state["average"]}
