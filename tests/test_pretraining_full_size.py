"""nautile-370m on 64 devices, without their memory: the recipe lowers and compiles for the whole mesh."""

import json
import os
import subprocess
import sys

import pytest

from nautile.model.architecture import Architecture, preset
from nautile.pretraining.flops import parameters

COMPILE = """
import json, sys
import jax, jax.numpy as jnp
from nautile.pretraining.recipe import load_recipe
from nautile.pretraining.sharding import batch_sharding
from nautile.pretraining.step import Batch
from nautile.pretraining.train import builder, make_trainer

recipe = load_recipe("nautile_370m_v4_64", "texts", sys.argv[1:])
trainer = make_trainer(recipe)
state = trainer.abstract(builder(recipe))
shape, place = (recipe.curriculum.rows, recipe.curriculum.length), batch_sharding(trainer.mesh, trainer.rules)
batch = Batch(*(jax.ShapeDtypeStruct(shape, kind, sharding=place) for kind in (jnp.int32, jnp.int32, jnp.float32)))
compiled = jax.jit(trainer.step, donate_argnums=0).lower(state, batch).compile()
held, text = compiled.memory_analysis(), compiled.as_text()
parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
print(json.dumps({
    "devices": trainer.mesh.size,
    "parameters": parameters,
    "arguments": held.argument_size_in_bytes,
    "reused": held.alias_size_in_bytes,
    "sums gradients": "all-reduce" in text or "reduce-scatter" in text,
    "gathers parameters": "all-gather" in text,
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 8])
def test_the_full_recipe_compiles_for_64_devices(fsdp: int) -> None:
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=64"}
    command = [sys.executable, "-c", COMPILE, f"training.fsdp={fsdp}"]
    printed = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    found = json.loads(printed.stdout)
    whole = parameters(Architecture(**preset("nautile-370m")))["whole"]
    assert (found["devices"], found["parameters"]) == (64, whole)
    state = 3 * 4 * whole  # float32: parameters and two moments
    if fsdp == 1:
        assert state < found["arguments"] < 1.01 * state
    else:
        assert state / fsdp < found["arguments"] < 1.3 * state / fsdp
    assert found["reused"] > 0.99 * found["arguments"]
    assert found["sums gradients"]
    assert found["gathers parameters"] == (fsdp > 1)
