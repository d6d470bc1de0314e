"""From a run of the backbone to a checkpoint folder, with the matching head of zero-shot beside it."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from nautile.errors import NautileError
from nautile.model.checkpoints import LANGUAGE, load, save
from nautile.model.config import NautileConfig
from nautile.model.heads import NautileForCausalLM
from nautile.model.model import NautileModel
from nautile.model.places import make_readable
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.backbone.objectives import Student
from nautile.tasks.backbone.widen import widen
from nautile.tasks.heads.head import load_head
from nautile.tasks.zero_shot.judge import load_matching

PAIRS = 65_536


def new_student() -> Student:
    """What a run trains: nautile-mini's shape, with vectors of token pairs, and the heads that learn along."""
    vocabulary = Vocabulary("nautile", 32_000)
    return Student(NautileConfig.preset("nautile-mini", vocab_size=vocabulary.size, pairs=PAIRS), vocabulary)


def language_model(backbone: NautileConfig) -> NautileForCausalLM:
    """A language model of the backbone's shape; it has no pairs."""
    return NautileForCausalLM(NautileConfig(**{**backbone.to_dict(), "pairs": 0}))


def load_student(run: Path) -> Student:
    """The averaged weights of a run.

    Raises:
        NautileError: a folder without a checkpoint.
    """
    path = run / "checkpoint.pt"
    if not path.is_file():
        raise NautileError(f"{run}: no checkpoint.pt there; train a backbone first")
    student = new_student()
    student.load_state_dict(averaged(path))
    return student.eval()


@torch.no_grad()
def take_over(student: Student, folder: Path) -> bool:
    """Begin with what `heads.build` wrote; returns whether vectors of pairs were among it.

    A backbone whose feed-forward layers are narrower is widened, which changes nothing of what it says.

    Raises:
        NautileError: a folder with a backbone of another shape, or without a head.
    """
    theirs = load(folder)
    if type(theirs) is NautileModel:
        theirs = widen(theirs, student.backbone.config.d_ff)
    mine = student.backbone.state_dict()
    pairs = {} if theirs.config.pairs else {name: mine[name] for name in mine if name.startswith("embed_pairs.")}
    found = {**pairs, **theirs.state_dict()}
    if {name: tensor.shape for name, tensor in found.items()} != {name: tensor.shape for name, tensor in mine.items()}:
        raise NautileError(f"{folder}: holds a {type(theirs).__name__} of another shape than the backbone to train")
    student.backbone.load_state_dict(found)
    student.matching.load_state_dict(load_matching(str(folder)).state_dict())
    head = load_head(folder / "heads" / "sentiment")
    student.sentiment.load_state_dict({"weight": head.weight_CD, "bias": head.bias_C})
    return not pairs


def export(run: Path, folder: Path) -> None:
    """Write in bf16 (pairs in eight bits) the backbone, zero-shot's matching head and, if trained, the language model.

    `heads.build` writes the heads.
    """
    student = load_student(run)
    save(compact(student.backbone), folder)
    matching = folder / "heads" / "zero_shot"
    matching.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in student.matching.state_dict().items()}
    save_file(tensors, matching / "head.safetensors")
    make_readable(matching)
    if (trained := run / "language" / "checkpoint.pt").is_file():
        model = language_model(student.backbone.config)
        state = averaged(trained)
        del state["lm_head.weight"]  # is the token vectors, averaged
        model.load_state_dict(state, strict=False)
        save(model.to(torch.bfloat16).eval(), folder / LANGUAGE)


def compact(backbone: NautileModel) -> NautileModel:
    """The backbone as it is stored: two bytes a number, one in the vectors of pairs, which add little."""
    backbone = backbone.to(torch.bfloat16).eval()
    if backbone.embed_pairs is not None:
        backbone.embed_pairs.vectors.to(torch.float8_e4m3fn)
    return backbone


def averaged(checkpoint: Path) -> dict[str, Tensor]:
    """The state of a run's module, with averaged weights."""
    state = torch.load(checkpoint, weights_only=True, mmap=True)
    return {**state["module"], **state["average"]}
