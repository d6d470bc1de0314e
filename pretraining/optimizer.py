"""The optimiser of a recipe: clipping, AdamW or Muon, warm-up and cosine."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax
from flax import nnx

from nautile.errors import NautileError


@dataclass(frozen=True)
class OptimizerConfig:
    """Steps are optimiser steps, after accumulation. The rate warms up linearly, then falls by a cosine to `floor`."""

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    steps: int = 1000
    warmup_steps: int = 100
    floor: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("adamw", "muon"):
            raise NautileError(f"optimizer kind must be 'adamw' or 'muon', not {self.kind!r}")
        if not 0 <= self.warmup_steps < self.steps:
            raise NautileError(f"warmup_steps={self.warmup_steps} must be below steps={self.steps}")

    def schedule(self) -> optax.Schedule:
        """The learning rate of each step."""
        peak = self.learning_rate
        return optax.warmup_cosine_decay_schedule(0.0, peak, self.warmup_steps, self.steps, peak * self.floor)

    def build(self) -> optax.GradientTransformation:
        """The optax transformation; Muon takes the matrices of the blocks, AdamW everything else."""
        adamw = optax.adamw(self.schedule(), self.beta1, self.beta2, weight_decay=self.weight_decay, mask=decayed)
        if self.kind == "muon":
            muon = optax.contrib.muon(self.schedule(), weight_decay=self.weight_decay, adam_weight_decay=0.0)
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
