"""Train the backbone to a deadline; a run that was killed goes on when started again.

python -m nautile.tasks.backbone.train CORPUS DATA RUN --minutes 120
"""

import json
import math
import random
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor, nn

from nautile.engine.memory import keep_pages
from nautile.errors import NautileError
from nautile.model.compiled import compile_sca
from nautile.model.config import NautileConfig
from nautile.model.vocabulary import Vocabulary
from nautile.tasks.backbone.label_sets import read_label_sets
from nautile.tasks.backbone.objectives import Embedding, NamedLabels, Sentiment, SoftLabels, Student
from nautile.tasks.backbone.teacher import Teacher, token_embeddings
from nautile.tasks.backbone.texts import gather
from nautile.tasks.heads.sentiment_data import read_training

LOG_EVERY, SAVE_EVERY = 20, 100
AVERAGE = 0.995
SCALE_SPEED, TAUGHT_SPEED = 20.0, 3.0
WARMUP = 100  # steps


class Part(NamedTuple):
    """An objective: in which share of the steps, with what weight, from which share of the time on."""

    objective: Any
    share: float = 1.0
    weight: float = 1.0
    start: float = 0.0


class Run:
    """A training to a deadline in `folder`: log.jsonl and checkpoint.pt, which holds the averaged weights as well."""

    def __init__(self, student: Student, folder: Path, minutes: float, learning_rate: float, seed: int) -> None:
        self.student, self.folder, self.seconds, self.seed = student, folder, minutes * 60, seed
        self.learning_rate, self.step, self.spent = learning_rate, 0, 0.0
        self.optimizer = torch.optim.AdamW(_groups(student), lr=learning_rate, betas=(0.9, 0.98), fused=True)
        self.average = {name: p.detach().clone() for name, p in student.named_parameters()}
        if (folder / "checkpoint.pt").exists():
            self._restore(torch.load(folder / "checkpoint.pt", weights_only=True))

    def train(self, objectives: dict[str, Part]) -> None:
        """Until the time is spent: at each step every objective is drawn by its share, weighted losses are added."""
        self.student.train()
        sums: dict[str, list[float]] = {name: [] for name in objectives}
        began = time.monotonic()
        while self.spent < self.seconds:
            rng = random.Random(f"{self.seed}/{self.step}")
            done = self.spent / self.seconds
            for name, part in objectives.items():
                if rng.random() < part.share and done >= part.start:
                    sums[name].append(self._backward(part, rng))
            self._update()
            now = time.monotonic()
            self.spent, began = self.spent + now - began, now
            if self.step % LOG_EVERY == 0:
                self._log({name: round(sum(x) / len(x), 4) for name, x in sums.items() if x})
                sums = {name: [] for name in objectives}
            if self.step % SAVE_EVERY == 0:
                self.save()
        self.save()

    def _backward(self, part: Part, rng: random.Random) -> float:
        with torch.autocast(self.student.backbone.device.type, torch.bfloat16):
            loss: Tensor = part.objective(self.student, rng)
        if loss.requires_grad:
            (part.weight * loss).backward()
        return loss.item()

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        done = self.spent / self.seconds
        rate = min(1.0, (self.step + 1) / WARMUP) * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, done))) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * rate * group["speed"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        keep = min(AVERAGE, self.step / (self.step + 10))
        for name, parameter in self.student.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1 - keep)

    def _log(self, losses: dict[str, float]) -> None:
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, "minutes": round(self.spent / 60, 2), **losses}) + "\n")

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "spent": self.spent,
        }
        torch.save(state, self.folder / "checkpoint.tmp")
        (self.folder / "checkpoint.tmp").replace(self.folder / "checkpoint.pt")

    def _restore(self, state: dict[str, Any]) -> None:
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.spent = state["average"], state["step"], state["spent"]


def _groups(student: Student) -> list[dict[str, Any]]:
    """Weight decay for matrices, none for embeddings, norms and the spectral parameters; lone scales learn faster."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    scales: list[nn.Parameter] = []
    taught: list[nn.Parameter] = []  # the token embeddings, which start from the teacher's
    for name, parameter in student.named_parameters():
        matrix = parameter.ndim >= 2 and name.endswith((".weight", ".readout")) and "embed" not in name
        table = name.endswith("embed_tokens.weight")
        (taught if table else decayed if matrix else scales if parameter.ndim == 0 else free).append(parameter)
    return [
        {"params": taught, "weight_decay": 0.0, "speed": TAUGHT_SPEED},
        {"params": decayed, "weight_decay": 0.05, "speed": 1.0},
        {"params": free, "weight_decay": 0.0, "speed": 1.0},
        {"params": scales, "weight_decay": 0.0, "speed": SCALE_SPEED},
    ]


def _texts(corpus: Path, data: Path, folder: Path) -> list[str]:
    path = folder / "texts.json"
    if not path.exists():
        _save_json(path, gather(corpus, data))
    texts: list[str] = json.loads(path.read_text())
    return texts


def _save_json(path: Path, value: object) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".tmp")
    part.write_text(json.dumps(value))
    part.replace(path)


def _begin(folder: Path, options: dict[str, Any]) -> None:
    """Note what the run is made of, or raise NautileError where it was begun with something else."""
    path = folder / "options.json"
    if not path.exists():
        _save_json(path, options)
    elif (known := json.loads(path.read_text())) != options:
        raise NautileError(f"{folder}: was begun with {known}; take another folder for {options}")


def main(
    corpus: Annotated[Path, typer.Argument(help="folder of NAME.jsonl.xz")],
    data: Annotated[Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz")],
    folder: Annotated[Path, typer.Argument(help="folder of the run")],
    minutes: float = 120,
    learning_rate: float = 3e-4,
    longest: Annotated[int, typer.Option(help="characters; longer passages are left out")] = 200,
    seed: int = 0,
    compiled: Annotated[bool, typer.Option("--compiled", help="compile SCA's elementwise parts")] = False,
) -> None:
    """Train; the same command resumes, with other --minutes as well."""
    keep_pages()
    if compiled:
        compile_sca()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    _begin(folder, {"corpus": str(corpus), "data": str(data), "seed": seed, "longest": longest, "rate": learning_rate})
    vocabulary = Vocabulary("nautile", 32_000)
    student = Student(NautileConfig.preset("nautile-mini", vocab_size=vocabulary.size), vocabulary)
    teacher = Teacher()
    if not (folder / "checkpoint.pt").exists():
        with torch.no_grad():
            student.begin(*token_embeddings(vocabulary, student.backbone.config.d_model, teacher))
    texts = [text for text in _texts(corpus, data, folder) if len(text) <= longest]
    objectives = {
        "embedding": Part(Embedding(texts, teacher)),
        "soft labels": Part(SoftLabels(texts, teacher), share=0.25, start=0.5),
        "named labels": Part(NamedLabels(read_label_sets(data, corpus)), share=0.3, weight=0.3, start=0.5),
        "sentiment": Part(Sentiment(read_training(data / "sentiment")), share=0.5, start=0.5),
    }
    Run(student, folder, minutes, learning_rate, seed).train(objectives)


if __name__ == "__main__":
    typer.run(main)
