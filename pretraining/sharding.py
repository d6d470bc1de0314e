"""Where parameters and batches live: a mesh of devices, and one table from logical axes to its axes."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nautile.errors import NautileError


@dataclass(frozen=True)
class Rules:
    """Which mesh axis each logical axis is spread over; None: every device holds it whole.

    Rows of a batch are spread over both mesh axes; parameters over `fsdp` along their `embed` axis.
    """

    batch: tuple[str, ...] = ("data", "fsdp")
    embed: str | None = "fsdp"
    vocab: str | None = None
    heads: str | None = None
    mlp: str | None = None

    def spec(self, axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        """The partition of a parameter; an axis that the mesh does not divide stays whole."""
        names = [None if axis is None else getattr(self, axis) for axis in axes]
        fits = [
            name if name and size % mesh.shape[name] == 0 else None for name, size in zip(names, shape, strict=True)
        ]
        return PartitionSpec(*fits)


def device_mesh(data: int = -1, fsdp: int = 1, devices: list[Any] | None = None) -> Mesh:
    """A (data, fsdp) mesh over all devices; -1 for what is left."""
    devices = jax.devices() if devices is None else devices
    if data == -1:
        data = len(devices) // fsdp
    if data * fsdp != len(devices):
        raise NautileError(f"a mesh of data={data} × fsdp={fsdp} needs {data * fsdp} devices, there are {len(devices)}")
    return Mesh(np.array(devices).reshape(data, fsdp), ("data", "fsdp"))


def parameter_shardings(params: nnx.State, mesh: Mesh, rules: Rules) -> Any:
    """A tree like `params` with the sharding of every parameter, from its `axes`."""

    def of(variable: Any) -> NamedSharding:
        shape = variable.get_value().shape
        return NamedSharding(mesh, rules.spec(variable.get_metadata("axes"), shape, mesh))

    return jax.tree.map(
        lambda variable: variable.replace(of(variable)), params, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)
    )


def batch_sharding(mesh: Mesh, rules: Rules) -> NamedSharding:
    """Rows spread over the mesh, tokens of a row together."""
    return NamedSharding(mesh, PartitionSpec(rules.batch))
