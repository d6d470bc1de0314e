"""One optimiser step: loss over packed rows, accumulation, update. Pure functions, jitted once for a mesh."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nautile.pretraining.model import NautileLM
from nautile.pretraining.sharding import Rules, batch_sharding, parameter_shardings


class Batch(NamedTuple):
    """Packed rows: ids and document numbers (B,L) int32, and weight (B,L), 1 where a token is to be predicted."""

    ids: Array
    document: Array
    weight: Array


class TrainState(NamedTuple):
    """All that a step changes; `step` counts optimiser steps, `tokens` real tokens seen."""

    params: nnx.State
    optimizer: Any
    step: Array
    tokens: Array


def token_losses(logits_BLV: Array, batch: Batch, z_loss: float) -> Array:
    """Sum over the batch of next-token cross entropy in nats, plus `z_loss` times log²Z, where `weight` is set."""
    targets, weight = batch.ids[:, 1:], batch.weight[:, 1:]
    logits = logits_BLV[:, :-1]
    log_z = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jnp.sum((log_z - chosen + z_loss * log_z**2) * weight)


@dataclass(frozen=True)
class Trainer:
    """A model's graph, an optimiser and a mesh, bound into `init`, `step` and `evaluate`."""

    graph: nnx.GraphDef[NautileLM]
    optimizer: optax.GradientTransformation
    mesh: Mesh
    rules: Rules = field(default_factory=Rules)
    accumulate: int = 1
    z_loss: float = 0.0

    def init(self, build: Callable[[], NautileLM]) -> TrainState:
        """A fresh state, each parameter made where it lives."""

        def make() -> TrainState:
            params = nnx.state(build(), nnx.Param)
            return TrainState(params, self.optimizer.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32))

        return jax.jit(make, out_shardings=self.shardings(jax.eval_shape(make)))()

    def shardings(self, state: TrainState) -> Any:
        """A `TrainState` of shardings: where each leaf of a state lives; moments live with their parameters."""
        params = parameter_shardings(state.params, self.mesh, self.rules)
        whole = NamedSharding(self.mesh, PartitionSpec())
        optimizer = optax.tree.map_params(
            self.optimizer,
            lambda leaf, place: leaf if isinstance(leaf, optax.MaskedNode) else place,
            state.optimizer,
            params,
            transform_non_params=lambda _: whole,
            is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode),
        )
        places: tuple[Any, ...] = (params, optimizer, whole, whole)
        return TrainState(*places)

    def put(self, batch: Batch) -> Batch:
        """The batch on the mesh, rows spread over it; each process gives its own rows."""
        place = batch_sharding(self.mesh, self.rules)
        return Batch(*(jax.make_array_from_process_local_data(place, part) for part in batch))

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        """One optimiser step over `accumulate` equal parts of the batch; the loss is the mean over all its targets."""
        parts = jax.tree.map(lambda x: x.reshape(self.accumulate, -1, *x.shape[1:]), batch)
        targets = jnp.maximum(batch.weight[:, 1:].sum(), 1)

        def add(total: tuple[Array, nnx.State], part: Batch) -> tuple[tuple[Array, nnx.State], None]:
            found = jax.value_and_grad(self._loss)(state.params, part, targets)
            return jax.tree.map(jnp.add, total, found), None

        zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
        (loss, gradients), _ = jax.lax.scan(add, zeros, parts)
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        tokens = (batch.document > 0).sum()
        metrics = {"loss": loss, "gradient_norm": optax.global_norm(gradients), "tokens": tokens, "targets": targets}
        return TrainState(params, optimizer, state.step + 1, state.tokens + tokens), metrics

    def evaluate(self, params: nnx.State, batch: Batch) -> tuple[Array, Array]:
        """Summed loss in nats and the number of targets."""
        return self._loss(params, batch, jnp.ones(())), batch.weight[:, 1:].sum()

    def _loss(self, params: nnx.State, batch: Batch, targets: Array) -> Array:
        model = nnx.merge(self.graph, params)
        return token_losses(model(batch.ids, batch.document), batch, self.z_loss) / targets
