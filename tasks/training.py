"""The training loop of a classifier: token-budget batches, AdamW, weight averaging, exact resume after a kill."""

import itertools
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nautile.engine.batching import batches, pad_right

MINIMUM_LENGTH = 8
POOL = 4096


@dataclass(frozen=True)
class Schedule:
    """What a run is made of; one step is one batch of about `batch_tokens` tokens, padding included."""

    steps: int = 1600
    batch_tokens: int = 3072
    max_length: int = 96
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.05
    word_dropout: float = 0.1
    clip_norm: float = 1.0
    average: float = 0.998
    seed: int = 0
    save_every: int = 100


class Sample(NamedTuple):
    """A tokenised text, its label, and which labels its annotators could choose."""

    ids: list[int]
    label: int
    allowed: tuple[bool, ...]


class Batch(NamedTuple):
    """Padded on the right with id 0: ids and mask (B,L), label (B), allowed (B, labels)."""

    ids: Tensor
    mask: Tensor
    label: Tensor
    allowed: Tensor


def collate(samples: Sequence[Sample]) -> Batch:
    """Pad the samples to their longest."""
    ids, mask = pad_right([sample.ids for sample in samples])
    return Batch(ids, mask, torch.tensor([s.label for s in samples]), torch.tensor([s.allowed for s in samples]))


def batches_without_end(samples: Sequence[Sample], schedule: Schedule) -> Iterator[list[Sample]]:
    """Epoch after epoch, the same for the same seed: random windows, word dropout, alike lengths together."""
    for epoch in itertools.count():
        rng = random.Random(f"{schedule.seed}/{epoch}")
        order = list(range(len(samples)))
        rng.shuffle(order)
        for start in range(0, len(order), POOL):
            views = [_view(samples[index], schedule, rng) for index in order[start : start + POOL]]
            groups = list(batches([len(view.ids) for view in views], schedule.batch_tokens))
            rng.shuffle(groups)
            yield from ([views[index] for index in group] for group in groups)


def _view(sample: Sample, schedule: Schedule, rng: random.Random) -> Sample:
    """A random window of a long text, some of its tokens left out."""
    start = rng.randint(0, max(0, len(sample.ids) - schedule.max_length))
    ids = sample.ids[start : start + schedule.max_length]
    if len(ids) >= MINIMUM_LENGTH:
        ids = [token for token in ids if rng.random() >= schedule.word_dropout] or ids
    return sample._replace(ids=ids)


def allowed_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross entropy over the labels that the annotators of each text could choose."""
    return F.cross_entropy(logits.float().masked_fill(~batch.allowed, -1e4), batch.label)


class Run:
    """A training run in `folder`: log.jsonl, checkpoint.pt (removed at the end), and the averaged weights.

    A run that was killed goes on from its last checkpoint when it is started again with the same arguments.
    """

    def __init__(self, model: nn.Module, samples: Sequence[Sample], schedule: Schedule, folder: Path) -> None:
        self.model, self.samples, self.schedule, self.folder = model, samples, schedule, folder
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.step = 0
        self.optimizer = torch.optim.AdamW(_groups(model, schedule), lr=schedule.learning_rate, fused=True)
        folder.mkdir(parents=True, exist_ok=True)

    def train(self, report: Callable[[dict[str, Any]], None] = lambda record: None) -> None:
        """Train to the end; the model then holds the averaged weights. `report` gets each log record."""
        self._resume()
        self.model.train()
        began, loss_sum, tokens, since = time.monotonic(), 0.0, 0, self.step
        for batch in self._batches():
            loss_sum += self._update(batch)
            tokens += int(batch.mask.sum())
            if self.step % 50 == 0 or self.step == self.schedule.steps:
                seconds = time.monotonic() - began
                record = {
                    "step": self.step,
                    "steps": self.schedule.steps,
                    "loss": round(loss_sum / (self.step - since), 4),
                    "tokens_per_s": round(tokens / seconds),
                }
                with (self.folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(record) + "\n")
                report(record)
                began, loss_sum, tokens, since = time.monotonic(), 0.0, 0, self.step
            if self.step % self.schedule.save_every == 0:
                self._save()
        self._save()
        self.model.load_state_dict(self.average, strict=False)
        self.model.eval()

    def _batches(self) -> Iterator[Batch]:
        groups = batches_without_end(self.samples, self.schedule)
        return map(collate, itertools.islice(groups, self.step, self.schedule.steps))

    def _update(self, batch: Batch) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(batch.ids, batch.mask).logits
        loss = allowed_loss(logits, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate * self._rate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        keep = min(self.schedule.average, self.step / (self.step + 10))
        for name, parameter in self.model.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1 - keep)
        return loss.item()

    def _rate(self) -> float:
        """Linear warm-up, then a cosine to a twentieth."""
        warm = max(1, int(self.schedule.warmup * self.schedule.steps))
        if self.step < warm:
            return (self.step + 1) / warm
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (self.step - warm) / max(1, self.schedule.steps - warm)))

    def _save(self) -> None:
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, self.folder / "checkpoint.tmp")
        (self.folder / "checkpoint.tmp").replace(self.folder / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.step = state["average"], state["step"]


def _groups(model: nn.Module, schedule: Schedule) -> list[dict[str, Any]]:
    """Weight decay for matrices, none for embeddings, norms, biases and the spectral parameters."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 2 and name.endswith((".weight", ".readout")) and "embed" not in name
        (decayed if matrix else free).append(parameter)
    return [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": free, "weight_decay": 0.0}]
