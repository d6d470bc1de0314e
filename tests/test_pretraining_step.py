"""Meshes and accumulation change nothing: eight virtual devices against one."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from nautile.errors import NautileError
from nautile.model.architecture import PRESETS, Architecture, preset
from nautile.pretraining.flops import forward_flops, parameters, training_flops
from nautile.pretraining.model import NautileLM
from nautile.pretraining.optimizer import OptimizerConfig
from nautile.pretraining.sharding import device_mesh

TINY = {"vocab_size": 64, "d_model": 32, "num_layers": 3, "d_ff": 40, "memory_heads": 4, "query_heads": 4}
TRAJECTORY = """
import json, sys
import jax, numpy as np
from flax import nnx
from nautile.model.architecture import Architecture
from nautile.pretraining.model import NautileLM
from nautile.pretraining.optimizer import OptimizerConfig
from nautile.pretraining.sharding import device_mesh
from nautile.pretraining.step import Batch, Trainer

kind, data, fsdp, accumulate, tiny = json.loads(sys.argv[1])
build = lambda: NautileLM(Architecture(**tiny), nnx.Rngs(0))
graph = nnx.split(nnx.eval_shape(build), nnx.Param)[0]
config = OptimizerConfig(kind=kind, warmup_steps=2, learning_rate=1e-3)
mesh = device_mesh(data, fsdp, jax.devices()[: data * fsdp])
trainer = Trainer(graph, config.build(30), mesh, accumulate=accumulate, z_loss=1e-4)
state, step = trainer.init(build), jax.jit(trainer.step, donate_argnums=0)
rng, losses = np.random.default_rng(0), []
for _ in range(20):
    ids = rng.integers(8, 64, (16, 32)).astype(np.int32)
    document = np.sort(rng.integers(1, 4, (16, 32)), axis=1).astype(np.int32)
    weight = rng.integers(0, 2, (16, 32)).astype(np.float32)
    state, metrics = step(state, trainer.put(Batch(ids, document, weight)))
    losses.append(float(metrics["loss"]))
    assert int(metrics["tokens"]) == 16 * 32
print(json.dumps(losses))
"""


def trajectory(kind: str, data: int, fsdp: int, accumulate: int) -> np.ndarray:
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    arguments = json.dumps([kind, data, fsdp, accumulate, TINY])
    command = [sys.executable, "-c", TRAJECTORY, arguments]
    printed = subprocess.run(command, env={**os.environ, **flags}, capture_output=True, text=True, check=True).stdout
    return np.array(json.loads(printed))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_loss_is_the_same_on_every_mesh_and_with_accumulation(kind: str) -> None:
    one = trajectory(kind, 1, 1, 1)
    assert one[-1] < one[0]
    for mesh in ((8, 1, 1), (1, 8, 1), (2, 4, 1), (1, 1, 8)):
        np.testing.assert_allclose(trajectory(kind, *mesh), one, atol=1e-5, err_msg=str(mesh))


@pytest.mark.parametrize(
    "changes", [{}, {"spectral_points": 1, "query_heads": 2}, {"anchor_heads": 1, "final_norm": False}]
)
def test_the_parameter_formula_counts_what_the_model_has(changes: dict) -> None:
    architecture = Architecture(**{**TINY, **changes})
    model = nnx.eval_shape(lambda: NautileLM(architecture, nnx.Rngs(0)))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == parameters(architecture)["whole"]


def test_the_full_size_by_formula() -> None:
    counts = parameters(Architecture(**preset("nautile-370m")))
    assert counts == {
        "embedding": 102_707_200,
        "sca": 11_316_352,
        "attention": 11_016_532,
        "whole": 371_901_088,
    }


@pytest.mark.parametrize("name", PRESETS)
def test_a_training_token_costs_about_six_flops_a_parameter(name: str) -> None:
    architecture = Architecture(**preset(name))
    per_parameter = training_flops(architecture, 1024) / parameters(architecture)["whole"]
    assert 5.5 < per_parameter < 7
    assert (
        forward_flops(architecture, 2048)["attention scores"]
        == 2 * forward_flops(architecture, 1024)["attention scores"]
    )


def test_the_learning_rate_warms_up_and_falls_to_its_floor() -> None:
    rate = OptimizerConfig(learning_rate=1.0, warmup_steps=10, floor=0.1).schedule(100)
    assert float(rate(0)) == 0
    assert float(rate(10)) == 1
    np.testing.assert_allclose(rate(100), 0.1, rtol=1e-6)
    assert all(rate(step) > rate(step + 1) for step in range(10, 99))


def test_a_mesh_or_schedule_that_cannot_be_is_refused() -> None:
    with pytest.raises(NautileError, match="needs 3 devices"):
        device_mesh(data=3, fsdp=1, devices=jax.devices()[:1])
    with pytest.raises(NautileError, match="warmup_steps is 5, it must be below the run's 5 steps"):
        OptimizerConfig(warmup_steps=5).build(5)
