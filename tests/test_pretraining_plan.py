"""Plans of runs: chips by name, and counts, memory and time that agree with the model and the compiler."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nautile.errors import NautileError
from nautile.model.architecture import Architecture
from nautile.pretraining.devices import ACCELERATORS, Slice, parse_chips, peak_flops
from nautile.pretraining.model import NautileLM
from nautile.pretraining.optimizer import OptimizerConfig
from nautile.pretraining.plan import Plan, Weights, kept_bytes, make_plan, render
from nautile.pretraining.recipe import Recipe, load_recipe, shipped
from nautile.pretraining.sharding import Rules, device_mesh
from nautile.pretraining.step import Batch, Trainer

PAPER = "nautile_370m_v4_64"
TINY = {"vocab_size": 64, "d_model": 32, "num_layers": 3, "d_ff": 40, "memory_heads": 4, "query_heads": 4}
TINIES = [{}, {"spectral_points": 1, "query_heads": 2}, {"anchor_heads": 1, "final_norm": False, "num_layers": 4}]


def recipe(name: str, *changes: str) -> Recipe:
    return load_recipe(name, Path("texts"), changes)


def plan(name: str, chips: str, *changes: str) -> Plan:
    return make_plan(recipe(name, *changes), parse_chips(chips))


def part(made: Plan, name: str) -> float:
    (found,) = [part.bytes for part in made.parts if part.name.startswith(name)]
    return found


@pytest.mark.parametrize(
    ("text", "kind", "chips"),
    [
        ("v2-8", "v2", 4),
        ("v3-32", "v3", 16),
        ("v4-64", "v4", 32),
        ("V4-8 ", "v4", 4),
        ("v5p-16", "v5p", 8),
        ("v5litepod-16", "v5e", 16),
        ("v5e-16", "v5e", 16),
        ("v6e-8", "v6e", 8),
        ("64xv4", "v4", 64),
        ("4xv5litepod", "v5e", 4),
        ("8xh100", "h100", 8),
        ("2xa100-40", "a100-40", 2),
        ("a100-80", "a100-80", 1),
        ("h200", "h200", 1),
    ],
)
def test_chips_by_their_names(text: str, kind: str, chips: int) -> None:
    found = parse_chips(text)
    assert (found.kind, found.chips) == (kind, chips)
    assert bool(found.note) == (kind in ("v2", "v3", "v4", "v5p") and "x" not in text)


def test_the_note_on_names_that_mislead() -> None:
    assert parse_chips("v4-64").note == (
        "v4-64 is 32 chips: Google's names count TensorCores; the paper speaks of 64 chips, which is 64xv4"
    )
    assert parse_chips("v3-2").note == "v3-2 is 1 chip: Google's names count TensorCores; 2 chips are 2xv3"


@given(kind=st.sampled_from(sorted(ACCELERATORS)), chips=st.integers(1, 10_000))
def test_explicit_counts_are_chips(kind: str, chips: int) -> None:
    found = parse_chips(f"{chips}x{kind}")
    assert (found.kind, found.chips) == (kind, chips)
    assert found.devices == chips * (2 if kind in ("v2", "v3") else 1)


@pytest.mark.parametrize("text", ["", "v9-8", "8x", "xv4", "tpu", "8xb200", "v4-x", "-8", "a100"])
def test_unknown_chips_are_told_what_is_known(text: str) -> None:
    with pytest.raises(NautileError, match="v5e, v5p, v6e, a100-40, a100-80, h100, h200"):
        parse_chips(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [("h100-8", "8xh100"), ("v4-7", "even"), ("v4-0", "at least one"), ("0xv4", "at least one"), ("v5e-0", "least")],
)
def test_numbers_of_chips_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(NautileError, match=message):
        parse_chips(text)


def test_the_peak_is_that_of_a_jax_device() -> None:
    assert peak_flops("TPU v3") == 123e12 / 2
    assert peak_flops("TPU v4") == 275e12
    assert peak_flops("TPU v5 lite") == 197e12
    assert peak_flops("TPU v5") == peak_flops("TPU v5p") == 459e12
    assert peak_flops("TPU v6 lite") == 918e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989.4e12
    assert peak_flops("NVIDIA H100 PCIe") is None
    assert peak_flops(jax.devices("cpu")[0].device_kind) is None


@pytest.mark.parametrize("changes", TINIES)
@pytest.mark.parametrize("fsdp", [1, 4, 5])
def test_weights_lie_where_the_models_rules_put_them(changes: dict[str, Any], fsdp: int) -> None:
    architecture = Architecture(**{**TINY, **changes})
    mesh, kernels, others = jax.sharding.AbstractMesh((1, fsdp), ("data", "fsdp")), 0.0, 0.0
    for path, variable in nnx.to_flat_state(params_of(architecture)):
        shape = variable.get_value().shape
        divided = "fsdp" in Rules().spec(variable.get_metadata("axes"), shape, mesh)
        size = np.prod(shape) / (fsdp if divided else 1)
        kernels, others = (kernels + size, others) if path[-1] == "kernel" else (kernels, others + size)
    divisor = fsdp if architecture.d_model % fsdp == 0 else 1
    assert Weights.of(architecture).bytes(divisor, 1, 0) == kernels
    assert Weights.of(architecture).bytes(divisor, 0, 1) == others


@pytest.mark.parametrize("changes", TINIES)
@pytest.mark.parametrize(("kind", "of_a_kernel"), [("adamw", 8), ("muon", 4)])
def test_moments_are_those_of_the_optimizer(changes: dict[str, Any], kind: Any, of_a_kernel: int) -> None:
    architecture = Architecture(**{**TINY, **changes})
    optimizer = OptimizerConfig(kind=kind, warmup_steps=1).build(9)
    state = jax.eval_shape(optimizer.init, params_of(architecture))
    moments = optax.tree.map_params(optimizer, lambda leaf: leaf, state, transform_non_params=lambda _: None)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(moments))
    assert held == Weights.of(architecture).bytes(1, of_a_kernel, 8)


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_fits_where_it_is_meant_to_run(name: str) -> None:
    made = plan(name, "v4-64" if name == PAPER else "h100")
    assert made.fits
    assert made.parameters["embedding"] + made.parameters["body"] == made.parameters["whole"]
    assert all(part.bytes > 0 for part in made.parts)


def test_the_papers_run() -> None:
    made = plan(PAPER, "64xv4")
    assert made.parameters["whole"] == 371_901_088
    assert [stage.tokens for stage in made.stages] == [350_000_000_000, 250_000_000_000]
    assert made.flops == pytest.approx(600e9 * made.flops_a_token, rel=1e-5)
    assert made.days == pytest.approx(600e9 * made.flops_a_token / (64 * 275e12 * 0.35) / 86_400, rel=1e-5)
    assert plan(PAPER, "v4-64").days == pytest.approx(2 * made.days)
    assert part(made, "parameters") == 4 * 371_901_088
    assert part(made, "moments") == 8 * 371_901_088


def test_the_mesh_divides_weights_and_rows() -> None:
    whole = plan(PAPER, "64xv4", "training.fsdp=1")
    divided = plan(PAPER, "64xv4", "training.fsdp=64")
    assert (divided.data, divided.fsdp, divided.rows) == (1, 64, whole.rows)
    loose = Weights.of(recipe(PAPER).model).loose
    assert part(divided, "parameters") == 4 * ((371_901_088 - loose) / 64 + loose)
    assert part(divided, "saved") == part(whole, "saved")
    odd = plan(PAPER, "48xv4", "training.fsdp=3", "curriculum.rows=1152")
    assert part(odd, "parameters") == part(whole, "parameters"), "1024 is no multiple of 3: nothing is divided"


def test_accumulation_trades_activations_for_a_second_gradient() -> None:
    once, four = (plan("nautile_mini_gpu", "h100", f"training.accumulate={n}") for n in (1, 4))
    assert once.rows == 4 * four.rows
    assert part(four, "gradients") == 2 * part(once, "gradients")
    assert part(four, "saved") == part(once, "saved") / 4
    assert four.needed < once.needed
    assert four.flops == once.flops


@pytest.mark.parametrize("changes", TINIES)
@pytest.mark.parametrize("item", [2, 4])
@pytest.mark.parametrize("length", [16, 1024])
def test_the_more_is_computed_again_the_less_is_kept(changes: dict[str, Any], item: int, length: int) -> None:
    architecture = Architecture(**{**TINY, **changes})
    none, dots, blocks = (kept_bytes(architecture, length, remat, item) for remat in ("none", "dots", "blocks"))
    assert all(none[kind] > dots[kind] > blocks[kind] == 32 * item for kind in ("sca", "attention"))


def test_a_core_of_an_old_chip_has_half_its_memory() -> None:
    made = plan("nautile_mini_cpu", "v3-8")
    assert (made.chips.chips, made.data, made.rows) == (4, 8, 1)
    assert made.memory == 16 << 30
    assert "memory of a core" in shown(made)


@pytest.mark.parametrize(
    ("chips", "changes", "message"),
    [
        ("64xv4", ["training.data=32"], r"data=32 × training.fsdp=1 needs 32 devices, there are 64 v4 chips"),
        ("2xv3", ["training.data=2"], r"needs 2 devices, there are 2 v3 chips \(4 devices\)"),
        ("6xv4", ["training.fsdp=4"], "needs a multiple of 4, there are 6 v4"),
        ("2xv4", ["training.fsdp=4"], "needs a multiple of 4, there are 2 v4"),
        (
            "48xv4",
            [],
            r"rows is 1024, it must be a multiple of training.accumulate \(4\) times .* \(48\), such as 1152",
        ),
    ],
)
def test_meshes_and_batches_that_do_not_divide(chips: str, changes: list[str], message: str) -> None:
    with pytest.raises(NautileError, match=message):
        plan(PAPER, chips, *changes)


@pytest.mark.parametrize("mfu", [0.0, -1.0, 1.1, float("nan")])
def test_a_utilisation_that_cannot_be(mfu: float) -> None:
    with pytest.raises(NautileError, match="MFU"):
        make_plan(recipe("smoke"), Slice("h100", 1), mfu)


def test_what_the_terminal_shows() -> None:
    text = shown(plan(PAPER, "v4-64"))
    assert "371,901,088 (embedding 102,707,200, body 269,193,888)" in text
    assert "350,000,000,000 tokens in 333,787 steps" in text
    assert "the paper speaks of 64 chips" in text
    assert "Fits" in text
    assert "Does not fit" in shown(plan(PAPER, "v5e-16", "training.remat=none", "curriculum.rows=8192"))
    odd = replace(recipe("smoke"), name="[/bold] [x]")
    assert "[/bold] [x] on 1 h100" in shown(make_plan(odd, Slice("h100", 1)))


@pytest.mark.slow
def test_the_estimate_is_near_what_the_compiler_needs() -> None:
    """Within a factor of two on a CPU, where XLA fuses less than on the accelerators that the estimate is made for."""
    model = {"d_model": 64, "num_layers": 2, "attention_every": 2, "d_ff": 170, "num_heads": 2, "num_kv_heads": 1}
    changes = [f"model.{name}={value}" for name, value in model.items()]
    small = recipe("smoke", "curriculum.ranks=1_000", "curriculum.length=64", "curriculum.rows=8", *changes)

    def build() -> NautileLM:
        return NautileLM(small.model, nnx.Rngs(0))

    graph = nnx.split(nnx.eval_shape(build), nnx.Param)[0]
    trainer = Trainer(graph, small.optimizer.build(small.steps), device_mesh(devices=jax.devices()[:1]))
    ids, weight = (jax.ShapeDtypeStruct((8, 64), dtype) for dtype in (jnp.int32, jnp.float32))
    step = jax.jit(trainer.step, donate_argnums=0).lower(trainer.abstract(build), Batch(ids, ids, weight))
    used = step.compile().memory_analysis()
    taken = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes + used.temp_size_in_bytes
    assert 0.5 < taken / make_plan(small, Slice("h100", 1)).needed < 2


def params_of(architecture: Architecture) -> nnx.State:
    return nnx.state(nnx.eval_shape(lambda: NautileLM(architecture, nnx.Rngs(0))), nnx.Param)


def shown(made: Plan) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(render(made))
    return console.file.getvalue()  # type: ignore[attr-defined]
