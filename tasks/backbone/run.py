"""A training to a deadline that goes on where it was stopped, and that can be given more time later.

The learning rate stays level and falls over the last part of the time. The state before the fall is kept, so that a
longer deadline goes on from there.
"""

import json
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from nautile.engine.processor import fast_autocast
from nautile.tasks.backbone.ranks import agree, average, once, rank

LOG_EVERY, SAVE_EVERY = 50, 100
AVERAGE, AVERAGE_EVERY = 0.98, 10  # kept of the average each time, steps
WARMUP = 100  # steps
FALL, LOWEST = 0.3, 0.02  # of the time; of the rate
BETAS, DECAY, SCALE_SPEED = (0.9, 0.98), 0.05, 3.0


class Part(NamedTuple):
    """An objective: in which share of the steps, with what weight, from which share of the time on."""

    objective: Any
    share: float = 1.0
    weight: float = 1.0
    start: float = 0.0


class Run:
    """A training in `folder`: log.jsonl, checkpoint.pt (with averaged weights), stable.pt from before the fall.

    Each group of the optimizers says its full `rate`.
    """

    def __init__(
        self, module: nn.Module, optimizers: Sequence[Optimizer], folder: Path, minutes: float, seed: int
    ) -> None:
        self.module, self.optimizers, self.folder, self.seed = module, optimizers, folder, seed
        self.seconds, self.step, self.spent = minutes * 60, 0, 0.0
        self.average = {name: p.detach().clone() for name, p in module.named_parameters()}
        if (folder / "checkpoint.pt").exists():
            device = next(module.parameters()).device
            state = torch.load(folder / "checkpoint.pt", weights_only=True, map_location=device)
            if state["falling"] and state["spent"] < self._fall:  # more time was given
                state = torch.load(folder / "stable.pt", weights_only=True, map_location=device)
            self._restore(state)

    @property
    def _fall(self) -> float:
        return (1 - FALL) * self.seconds

    def train(self, objectives: dict[str, Part]) -> None:
        """Until the time is spent: at each step every objective is drawn by its share, weighted losses are added.

        Each of several processes (see `ranks.py`) reads batches of its own, and the gradients are averaged; the first
        writes, and logs its own losses.
        """
        agree(self.module)
        self.module.train()
        device = next(self.module.parameters()).device
        sums: dict[str, list[float]] = {name: [] for name in objectives}
        began = time.monotonic()
        while self.spent < self.seconds:
            shared, own = (random.Random(f"{self.seed}/{self.step}{of}") for of in ("", f"/{rank()}"))
            done = self.spent / self.seconds
            drawn = [name for name, part in objectives.items() if shared.random() < part.share and done >= part.start]
            for name in drawn:
                sums[name].append(self._backward(objectives[name], own, device))
            now = time.monotonic()
            passed, began = average(self.module, now - began), now
            self._update()
            stable, self.spent = self.spent < self._fall, self.spent + passed
            if self.step % LOG_EVERY == 0:
                self._log({name: round(sum(x) / len(x), 4) for name, x in sums.items() if x})
                sums = {name: [] for name in objectives}
            if stable and self.spent >= self._fall:
                self.save("stable.pt")
            if self.step % SAVE_EVERY == 0:
                self.save()
        once(self.save)

    def _backward(self, part: Part, rng: random.Random, device: torch.device) -> float:
        with fast_autocast(device):
            loss: Tensor = part.objective(self.module, rng)
        (part.weight * loss).backward()
        return loss.item()

    def _rate(self) -> float:
        left = (self.seconds - self.spent) / (self.seconds - self._fall)
        return min(1.0, (self.step + 1) / WARMUP, max(LOWEST, left))

    def _update(self) -> None:
        nn.utils.clip_grad_norm_((p for p in self.module.parameters() if p.grad is None or not p.grad.is_sparse), 1.0)
        rate = self._rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * rate
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        if self.step % AVERAGE_EVERY == 0:
            for name, parameter in self.module.named_parameters():
                self.average[name].lerp_(parameter.detach(), max(1 - AVERAGE, AVERAGE_EVERY / self.step))

    def _log(self, losses: dict[str, float]) -> None:
        if rank():
            return
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, "minutes": round(self.spent / 60, 2), **losses}) + "\n")

    def save(self, name: str = "checkpoint.pt") -> None:
        """Write the state, whole or not at all; the first process does."""
        if rank():
            return
        state = {
            "module": self.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average,
            "step": self.step,
            "spent": self.spent,
            "falling": self.spent > self._fall,
        }
        torch.save(state, self.folder / f"{name}.tmp")
        (self.folder / f"{name}.tmp").replace(self.folder / name)

    def _restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average, self.step, self.spent = state["average"], state["step"], state["spent"]


def group(parameters: Iterable[nn.Parameter], rate: float, decay: float = 0.0) -> dict[str, Any]:
    """A group of parameters for an optimizer of a run."""
    return {"params": list(parameters), "rate": rate, "lr": rate, "weight_decay": decay}


def adamw(named: Iterable[tuple[str, nn.Parameter]], rate: float) -> Optimizer:
    """Weight decay for matrices, none for norms and spectral parameters; lone scales learn faster."""
    kinds: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        matrix = parameter.ndim >= 2 and name.endswith((".weight", ".readout"))
        kind = (rate if parameter.ndim else SCALE_SPEED * rate, DECAY if matrix else 0.0)
        kinds.setdefault(kind, []).append(parameter)
    return AdamW([group(found, *kind) for kind, found in kinds.items()], betas=BETAS, fused=True)
