"""What a run would take, by arithmetic alone: parameters, FLOPs, memory of a device, days.

Activation memory is an estimate. Kept for the backward pass are counted, for every token, in the run's dtype where
nothing is said (letters: `nautile/model/architecture.py`; R is the readout's width):

| remat  | by an SCA block                                   | by an attention block                           |
|--------|---------------------------------------------------|-------------------------------------------------|
| none   | 2 D input, normed; 3 P projected, convolved, silu | 4 D two inputs, normed; 2 D + 2 GE q, k, v, y   |
|        | 2 KH o in float32; 4 KH gate, gated norm          | NL scores in float32, NL in the dtype           |
|        | 3 R both halves of the readout, their product     | 3 F both inner halves, their product            |
| dots   | D + P + 2 KH input and projections                | 3 D + 2 GE + 2 F input and projections          |
| blocks | D input                                           | D input                                         |

Besides, the larger of two that are never there at once: the logits, and the inside of one block (what "none" keeps
of it, where it is computed again, and the work on a chunk of SCA's sums).

What XLA's compiler takes depends on what it fuses. Compiled for TPU v5p, one to four layers of nautile-370m took 0.8
to 1.15 times what is said here, with every `remat`. For a CPU, small models took 1.5 to 1.8 times as much, and `remat`
saved nothing. GPUs were not measured.
"""

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from nautile.errors import NautileError
from nautile.model.architecture import Architecture
from nautile.pretraining.devices import GIB, Slice
from nautile.pretraining.flops import parameters, training_flops
from nautile.pretraining.recipe import Recipe
from nautile.pretraining.spectral import CHUNK

BYTES = {"float32": 4, "bfloat16": 2}
CHUNK_TENSORS = 24  # float32 tensors of K·H·M a token that are alive while a chunk is differentiated
TIGHT = 0.8  # above this share of a device's memory an estimate promises nothing


@dataclass(frozen=True)
class Part:
    """Memory of one kind: bytes on a device, and how the mesh divides it."""

    name: str
    bytes: float
    divided: str


@dataclass(frozen=True)
class StagePlan:
    """A stage's budget of tokens, and the optimiser steps that it buys."""

    name: str
    tokens: int
    steps: int


@dataclass(frozen=True)
class Plan:
    """What a run would take. Bytes are those of one JAX device: a chip, or on TPU v2 and v3 a core, half a chip.

    `parameters` has "embedding", "body" and "whole". `rows` is how many rows a device works on at once, in one of the
    `accumulate` parts of a batch. `mfu` is the share of the peak that is reckoned with.
    """

    recipe: str
    chips: Slice
    mfu: float
    data: int
    fsdp: int
    accumulate: int
    rows: int
    parameters: dict[str, int]
    stages: tuple[StagePlan, ...]
    tokens_a_step: int
    flops_a_token: float
    parts: tuple[Part, ...]

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def flops(self) -> float:
        """FLOPs of all steps; the last step of a stage is whole, so they may cover a little more than its budget."""
        return self.steps * self.tokens_a_step * self.flops_a_token

    @property
    def days(self) -> float:
        """Days of computing at `mfu`, without evaluation, compilation and stops."""
        return self.flops / (self.chips.chips * self.chips.accelerator.peak * self.mfu) / 86_400

    @property
    def needed(self) -> float:
        """Bytes that a device needs at its peak."""
        return sum(part.bytes for part in self.parts)

    @property
    def memory(self) -> float:
        """Bytes that a device has."""
        return self.chips.accelerator.memory / self.chips.accelerator.devices

    @property
    def fits(self) -> bool:
        """Whether the estimate is below what a device has."""
        return self.needed <= self.memory


def make_plan(recipe: Recipe, chips: Slice, mfu: float = 0.35) -> Plan:
    """The plan of a recipe on some chips; `mfu` is the model FLOP utilisation to reckon with, above 0 and at most 1.

    Raises NautileError where the mesh is not the devices, or a batch does not divide among them.
    """
    if not 0 < mfu <= 1:
        raise NautileError(f"the MFU is {mfu}, it must be above 0 and at most 1, such as 0.35")
    curriculum, run, count = recipe.curriculum, recipe.training, parameters(recipe.model)
    data = _data(recipe, chips)
    rows = _rows(recipe, chips)
    embedding, whole = count["embedding"], count["whole"]
    return Plan(
        recipe=recipe.name,
        chips=chips,
        mfu=mfu,
        data=data,
        fsdp=run.fsdp,
        accumulate=run.accumulate,
        rows=rows,
        parameters={"embedding": embedding, "body": whole - embedding, "whole": whole},
        stages=tuple(StagePlan(stage.name, stage.tokens, curriculum.steps(stage)) for stage in curriculum.stages),
        tokens_a_step=curriculum.rows * curriculum.length,
        flops_a_token=training_flops(recipe.model, curriculum.length),
        parts=(*_weights(recipe), *_activations(recipe, rows, tpu=chips.accelerator.counted > 0)),
    )


def _data(recipe: Recipe, chips: Slice) -> int:
    """The mesh's data axis: as the recipe says, or what `fsdp` leaves of the devices."""
    run = recipe.training
    data = chips.devices // run.fsdp if run.data == -1 else run.data
    if data * run.fsdp != chips.devices:
        there = f"{chips.chips} {chips.kind} chips" + (f" ({chips.devices} devices)" * (chips.devices != chips.chips))
        needs = f"a multiple of {run.fsdp}" if run.data == -1 else f"{data * run.fsdp} devices"
        raise NautileError(
            f"recipe {recipe.name}: training.data={run.data} × training.fsdp={run.fsdp} needs {needs}, "
            f"there are {there}: set training.data and training.fsdp"
        )
    return data


def _rows(recipe: Recipe, chips: Slice) -> int:
    rows, accumulate = recipe.curriculum.rows, recipe.training.accumulate
    at_once = accumulate * chips.devices
    if rows % at_once:
        raise NautileError(
            f"recipe {recipe.name}: curriculum.rows is {rows}, it must be a multiple of training.accumulate "
            f"({accumulate}) times the devices ({chips.devices}), such as {-(-rows // at_once) * at_once}"
        )
    return rows // at_once


@dataclass(frozen=True)
class Weights:
    """Parameters by how they are kept: `kernels` (the blocks' matrices) and `embed` (others with an `embed` axis) are
    divided by `fsdp`, `loose` ones are whole on every device.
    """

    kernels: int
    embed: int
    loose: int

    @staticmethod
    def of(a: Architecture) -> "Weights":
        """The counts of an architecture."""
        D, K, H, M, F, P = a.d_model, a.memory_heads, a.head_width, a.spectral_points, a.d_ff, a.projection_width
        sca, attention = a.layer_kinds.count("sca"), a.layer_kinds.count("attention")
        kernels = sca * D * (P + 2 * K * H + a.readout_width)
        kernels += attention * D * (2 * D + 2 * a.num_kv_heads * a.attention_width + 3 * F)
        readout = K * 2 * H * 2 * a.readout_expand * H
        loose = sca * (a.conv_kernel * P + 2 * K * H * M + 4 * K + 2 * K * H + readout) + attention * 2 * F
        return Weights(kernels, parameters(a)["whole"] - kernels - loose, loose)

    def bytes(self, fsdp: int, kernel: int, other: int) -> float:
        """Bytes on a device, with so many bytes for a parameter of the kernels, and for any other."""
        return (kernel * self.kernels + other * self.embed) / fsdp + other * self.loose


def _weights(recipe: Recipe) -> list[Part]:
    """Parameters and what has their size: gradients, moments, copies in the dtype that is computed in."""
    run, a, weights = recipe.training, recipe.model, Weights.of(recipe.model)
    fsdp = run.fsdp if a.d_model % run.fsdp == 0 else 1
    divided = f"by fsdp {fsdp}" if fsdp > 1 else "whole on each"
    sums = 8 if run.accumulate > 1 else 4
    parts = [
        Part("parameters, float32", weights.bytes(fsdp, 4, 4), divided),
        Part("gradients, float32" + " and their sum" * (sums == 8), weights.bytes(fsdp, sums, sums), divided),
        Part(f"moments of {recipe.optimizer.kind}",
             weights.bytes(fsdp, 4 if recipe.optimizer.kind == "muon" else 8, 8), divided),
    ]  # fmt: skip
    if run.dtype != "float32" or fsdp > 1:
        copies = weights.bytes(1, BYTES[run.dtype], BYTES[run.dtype])
        parts.append(Part(f"weights to compute with, {run.dtype}", copies, "whole on each"))
    if fsdp > 1:
        gathered = 2 * 4 * a.vocab_size * a.d_model * (1 - 1 / fsdp)
        parts.append(Part("embedding and its gradient, gathered", gathered, "whole on each"))
    return parts


def _activations(recipe: Recipe, rows: int, tpu: bool) -> list[Part]:
    """What is kept for the backward pass, and the larger of the two things that are worked on."""
    a, length, remat = recipe.model, recipe.curriculum.length, recipe.training.remat
    item = BYTES[recipe.training.dtype]
    tokens, divided = rows * length, "rows, by data × fsdp"
    kept, whole = kept_bytes(a, length, remat, item), kept_bytes(a, length, "none", item)
    again = {kind: 0.0 if remat == "none" else whole[kind] for kind in whole}
    chunk = CHUNK_TENSORS * a.memory_heads * a.head_width * a.spectral_points + 3 * a.memory_heads * CHUNK
    inside = {"sca": again["sca"] + 4 * chunk * min(CHUNK, length) / length, "attention": again["attention"]}
    copies = 1 if tpu else 2  # on TPUs XLA writes the gradient over the logits
    work = [
        Part("logits and their gradient, float32", tokens * a.vocab_size * 4.0 * copies, divided),
        Part("inside of one block", tokens * max(inside[kind] for kind in a.layer_kinds), divided),
    ]
    saved = Part(f"saved activations, remat {remat}", tokens * sum(kept[kind] for kind in a.layer_kinds), divided)
    return [saved, max(work, key=lambda part: part.bytes)]


def kept_bytes(a: Architecture, length: int, remat: str, item: int) -> dict[str, float]:
    """Bytes a token that a block of each kind keeps for its backward pass, `item` bytes a number: the table above."""
    D, F, N, P, R = a.d_model, a.d_ff, a.num_heads, a.projection_width, a.readout_width
    KH, GE = a.memory_heads * a.head_width, a.num_kv_heads * a.attention_width
    if remat == "blocks":
        return {"sca": item * D, "attention": item * D}
    if remat == "dots":
        return {"sca": item * (D + P + 2 * KH), "attention": item * (3 * D + 2 * GE + 2 * F)}
    scores = N * length
    return {
        "sca": item * (2 * D + 3 * P + 4 * KH + 3 * R) + 4 * 2 * KH,
        "attention": item * (6 * D + 2 * GE + 3 * F + scores) + 4 * scores,
    }


def render(plan: Plan) -> RenderableType:
    """The plan as tables for a terminal."""
    note = [f"Note: {plan.chips.note}."] if plan.chips.note else []
    return Group(_facts(plan), "", _memory(plan), "", _verdict(plan), *note)


def _facts(plan: Plan) -> Table:
    table = Table(
        "", "", title=f"{escape(plan.recipe)} on {plan.chips.chips} {plan.chips.kind}", show_header=False, box=None
    )
    count, accelerator = plan.parameters, plan.chips.accelerator
    table.add_row("parameters", f"{count['whole']:,} (embedding {count['embedding']:,}, body {count['body']:,})")
    for stage in plan.stages:
        table.add_row(f"stage {escape(stage.name)}", f"{stage.tokens:,} tokens in {stage.steps:,} steps")
    table.add_row("a step", f"{plan.tokens_a_step:,} tokens")
    table.add_row("mesh", f"data {plan.data} × fsdp {plan.fsdp}, {plan.rows} rows at once on each, "
                          f"{plan.accumulate} time{'s' * (plan.accumulate > 1)} a step")  # fmt: skip
    table.add_row("FLOPs", f"{plan.flops_a_token:.3g} a token, {plan.flops:.3g} in all")
    table.add_row("peak", f"{accelerator.peak / 1e12:,.4g} TFLOP/s a chip in bfloat16")
    table.add_row("time", f"{_time(plan.days)} at {plan.mfu:.0%} of the peak")
    return table


def _memory(plan: Plan) -> Table:
    device = "chip" if plan.chips.accelerator.devices == 1 else "core"
    table = Table(f"memory of a {device}, estimated", "GiB", "divided", box=None, title_justify="left")
    table.columns[1].justify = "right"
    for part in plan.parts:
        table.add_row(part.name, f"{part.bytes / GIB:.2f}", part.divided)
    table.add_row("needed", f"{plan.needed / GIB:.2f}", "", style="bold")
    table.add_row("there", f"{plan.memory / GIB:.2f}", "")
    return table


def _verdict(plan: Plan) -> str:
    share = plan.needed / plan.memory
    if not plan.fits:
        return (
            f"[bold red]Does not fit[/]: it takes {share:.0%} of the memory. Raise training.accumulate or "
            "training.fsdp, or set training.remat=blocks."
        )
    return f"[bold]Fits[/], in {share:.0%} of the memory{', but tightly: this is an estimate' * (share > TIGHT)}."


def _time(days: float) -> str:
    for name, length in {"days": 1, "hours": 24, "minutes": 24 * 60}.items():
        if days * length >= 2:
            return f"{days * length:,.1f} {name}"
    return "under two minutes"
