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
    """All that a step changes; the optimiser counts the steps."""

    params: nnx.State
    optimizer: Any


def token_losses(logits_BLV: Array, batch: Batch, z_loss: float = 0.0) -> Array:
    """Sum over the batch of next-token cross entropy in nats, plus `z_loss` times log²Z, where `weight` is set."""
    targets, weight = _next(batch.ids), _next(batch.weight)
    log_z = jax.nn.logsumexp(logits_BLV, axis=-1)
    chosen = jnp.take_along_axis(logits_BLV, targets[..., None], axis=-1)[..., 0]
    return jnp.sum((log_z - chosen + z_loss * log_z**2) * weight)


def _next(x_BL: Array) -> Array:
    """What stands one place further on, 0 at the end: shifting this, not the logits, saves copies of the largest."""
    return jnp.pad(x_BL[:, 1:], [(0, 0), (0, 1)])


@dataclass(frozen=True)
class Trainer:
    """A model's graph, an optimiser and a mesh, bound into `init`, `step` and `evaluate`."""

    graph: nnx.GraphDef[NautileLM]
    optimizer: optax.GradientTransformation
    mesh: Mesh
    rules: Rules = field(default_factory=Rules)
    accumulate: int = 1
    z_loss: float = 0.0

    def fresh(self, build: Callable[[], NautileLM]) -> TrainState:
        """The state before the first step."""
        params = nnx.state(build(), nnx.Param)
        return TrainState(params, self.optimizer.init(params))

    def init(self, build: Callable[[], NautileLM]) -> TrainState:
        """The fresh state, each parameter made where it lives."""
        shapes = jax.eval_shape(lambda: self.fresh(build))
        return jax.jit(lambda: self.fresh(build), out_shardings=self.shardings(shapes))()

    def abstract(self, build: Callable[[], NautileLM]) -> TrainState:
        """The fresh state's shapes, types and places, without its memory."""
        shapes = jax.eval_shape(lambda: self.fresh(build))
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self.shardings(shapes),
        )

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
        return TrainState(params, optimizer)

    def put(self, batch: Batch) -> Batch:
        """The batch on the mesh, rows spread over it; each process gives its own rows."""
        place = batch_sharding(self.mesh, self.rules)
        return Batch(*(jax.make_array_from_process_local_data(place, part) for part in batch))

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        """One optimiser step over `accumulate` equal parts of the batch; the loss is the mean over all its targets.

        A part takes every `accumulate`-th row, so that each device works on rows that it has already.
        """
        parts = jax.tree.map(lambda x: x.reshape(-1, self.accumulate, x.shape[-1]).swapaxes(0, 1), batch)
        targets = jnp.maximum(batch.weight[:, 1:].sum(), 1)

        def loss(params: nnx.State, part: Batch) -> Array:
            return token_losses(self._logits(params, part), part, self.z_loss) / targets

        def add(total: tuple[Array, nnx.State], part: Batch) -> tuple[tuple[Array, nnx.State], None]:
            return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(state.params, part)), None

        zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
        (mean, gradients), _ = jax.lax.scan(add, zeros, parts)
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        tokens = (batch.document > 0).sum()
        metrics = {"loss": mean, "gradient_norm": optax.tree.norm(gradients), "tokens": tokens}
        metrics["parameter_norm"] = optax.tree.norm(params)
        return TrainState(params, optimizer), metrics

    def evaluate(self, params: nnx.State, batch: Batch, bytes_V: Array) -> Array:
        """Over the targets of a batch, summed: nats, targets, and the bytes of their text; float32 (3,)."""
        nats = token_losses(self._logits(params, batch), batch)
        weight = batch.weight[:, 1:]
        return jnp.stack([nats, weight.sum(), (bytes_V[batch.ids[:, 1:]] * weight).sum()])

    def _logits(self, params: nnx.State, batch: Batch) -> Array:
        rows = batch_sharding(self.mesh, self.rules)
        model = nnx.merge(self.graph, params)
        return model(batch.ids, batch.document, lambda x_BLD: jax.lax.with_sharding_constraint(x_BLD, rows))
