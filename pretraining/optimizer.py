"""The optimiser of a recipe: clipping, AdamW or Muon, warm-up and cosine."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import optax
from flax import nnx

from nautile.errors import NautileError

MUON_RMS = 0.2


@dataclass(frozen=True)
class OptimizerConfig:
    """Steps are optimiser steps, after accumulation. The rate warms up linearly, then falls by a cosine to `floor`.

    `floor` is a share of `learning_rate`, which is AdamW's; Muon's updates are scaled to AdamW's size (RMS 0.2), so
    that the same rate serves both.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    floor: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("adamw", "muon"):
            raise NautileError(f"optimizer kind must be 'adamw' or 'muon', not {self.kind!r}")
        rules = [
            (0 < self.learning_rate < math.inf, "learning_rate must be a positive number"),
            (self.clip_norm > 0, "clip_norm must be positive; inf for no clipping"),
            (0 <= self.floor <= 1, "floor must lie between 0 and 1"),
            (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "beta1 and beta2 must lie between 0 and 1"),
            (0 <= self.weight_decay < math.inf, "weight_decay must be 0 or more"),
        ]
        for holds, problem in rules:
            if not holds:
                raise NautileError(f"optimizer: {problem}")

    def check(self, steps: int) -> None:
        """Raise NautileError when a run of so many steps would end before it is warm."""
        if not 0 <= self.warmup_steps < steps:
            raise NautileError(
                f"optimizer.warmup_steps is {self.warmup_steps}, it must be below the run's {steps} steps"
            )

    def schedule(self, steps: int) -> optax.Schedule:
        """The learning rate of each step of a run."""
        self.check(steps)
        peak = self.learning_rate
        return optax.warmup_cosine_decay_schedule(0.0, peak, self.warmup_steps, steps, peak * self.floor)

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optax transformation; Muon takes the matrices of the blocks, AdamW everything else."""
        rate = self.schedule(steps)
        adamw = optax.adamw(rate, self.beta1, self.beta2, weight_decay=self.weight_decay, mask=decayed)
        if self.kind == "muon":
            muon = optax.contrib.muon(rate, weight_decay=self.weight_decay, consistent_rms=MUON_RMS)
            chosen = optax.multi_transform({"muon": muon, "adamw": adamw}, _muon_labels)
            return optax.chain(optax.clip_by_global_norm(self.clip_norm), chosen)
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), adamw)


def decayed(params: Any) -> Any:
    """Weight decay for the kernels and the readout; none for embedding, norms, biases and spectral parameters."""
    return _by_path(params, lambda path: path[-1] in ("kernel", "readout"))


def _muon_labels(params: Any) -> Any:
    return _by_path(params, lambda path: "muon" if path[-1] == "kernel" else "adamw")


def _by_path(params: nnx.State, value: Any) -> Any:
    def of(path: Any, variable: nnx.Variable) -> Any:
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        return variable.replace(value(names))

    return jax.tree_util.tree_map_with_path(of, params, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
