"""The training loop: from a recipe to a folder of checkpoints and metrics, resumable after any end."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nautile.errors import NautileError
from nautile.pretraining.checkpoints import Checkpoints, placed
from nautile.pretraining.curriculum import Stage
from nautile.pretraining.data import batches, check_held_out, report
from nautile.pretraining.devices import peak_flops
from nautile.pretraining.flops import training_flops
from nautile.pretraining.folder import load_folder
from nautile.pretraining.held_out import Continuation, HeldOut
from nautile.pretraining.log import Log, Window
from nautile.pretraining.model import NautileLM
from nautile.pretraining.processes import agreed, gathered, together
from nautile.pretraining.recipe import Recipe
from nautile.pretraining.sharding import device_mesh
from nautile.pretraining.step import Batch, Trainer, TrainState
from nautile.pretraining.stop import asked_to_stop

RECIPE, CHECKPOINTS = "recipe.json", "checkpoints"


@dataclass
class Progress:
    """What besides parameters and optimiser a checkpoint holds: steps and tokens done, and where the data stands.

    `tokens` are real ones, padding not counted. `data` is the state of every process's batches within the stage.
    """

    step: int = 0
    tokens: int = 0
    stage: str = ""
    data: list[dict[str, Any]] = field(default_factory=list)


class Ending(NamedTuple):
    """How a run ended: after `step` of `steps`, with `tokens` read in all."""

    step: int
    steps: int
    tokens: int


class _Sent(NamedTuple):
    """A step on its way: its number, its batch on this host, and its metrics once the device has them."""

    step: int
    batch: Batch
    metrics: dict[str, jax.Array]


def begin(recipe: Recipe, folder: Path) -> None:
    """Make the folder of a new run, once it is sure that it can begin; every process of the run calls it.

    Raises NautileError for a folder that is not empty, files that are missing, rows held out here and trained on there,
    rows that the devices can't share, and weights to start with that are another model's.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise NautileError(f"{folder} is not empty: go on with `nautile pretrain resume {folder}`, or name another")
    make_trainer(recipe)
    check_held_out(recipe.curriculum)
    if recipe.training.start is not None:
        started(recipe)
    together("all have looked")
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE).write_text(recipe.to_json(), encoding="utf-8")
    together("the folder is made")


def recipe_of(folder: Path) -> Recipe:
    """The recipe that a run was begun with; raises NautileError where there is none."""
    path = folder / RECIPE
    if not path.is_file():
        raise NautileError(f"{folder} holds no run: {RECIPE} is missing")
    return Recipe.from_json(path.read_text(encoding="utf-8"))


def started(recipe: Recipe) -> nnx.State:
    """The weights that a run starts with, on the host; raises NautileError where they are another model's."""
    architecture, _, params = load_folder(Path(str(recipe.training.start)))
    if architecture != recipe.model:
        raise NautileError(f"training.start: {recipe.training.start} is of another architecture than the recipe's")
    return params


def builder(recipe: Recipe) -> Callable[[], NautileLM]:
    """What makes the recipe's model, its weights drawn from the curriculum's seed."""
    dtype = jnp.dtype(recipe.training.dtype)
    return lambda: NautileLM(recipe.model, nnx.Rngs(recipe.curriculum.seed), dtype, recipe.training.remat)


def make_trainer(recipe: Recipe, devices: list[Any] | None = None) -> Trainer:
    """The recipe's trainer on a mesh of `devices` (default: all); raises NautileError where rows don't divide."""
    run = recipe.training
    mesh = device_mesh(run.data, run.fsdp, devices)
    if recipe.curriculum.rows % (run.accumulate * mesh.size):
        raise NautileError(
            f"curriculum.rows is {recipe.curriculum.rows}, it must be a multiple of training.accumulate "
            f"({run.accumulate}) times the devices ({mesh.size})"
        )
    graph = nnx.split(nnx.eval_shape(builder(recipe)), nnx.Param)[0]
    return Trainer(graph, recipe.optimizer.build(recipe.steps), mesh, accumulate=run.accumulate, z_loss=run.z_loss)


def train(folder: Path, minutes: float | None = None, visible: bool = True) -> Ending:
    """Train the run in `folder` to its end, from its newest whole checkpoint or from the start.

    SIGTERM, Ctrl-C and the end of `minutes` save a checkpoint and return early.

    Raises:
        NautileError: a loss, gradient or weight that is not finite, naming step, batch and last good checkpoint;
            corrupt data beyond the recipe's limit; a checkpoint that cannot be read, or written for want of room.
    """
    recipe = recipe_of(folder)
    run = _Run(recipe, folder)
    with asked_to_stop(minutes) as asked, run.opened(visible) as log:
        log.say(f"{recipe.name}: from step {run.progress.step:,} of {recipe.steps:,} on {run.devices}")
        for step in range(run.progress.step, recipe.steps):
            run.advance(step)
            if agreed(asked(), due=(step + 1) % recipe.training.log_every == 0):
                break
        run.save()
    return Ending(run.progress.step, recipe.steps, run.progress.tokens)


class _Run:
    """The parts of a run, and how far it has come.

    A step is sent to the device before the metrics of the one before are received, so that the device never waits.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.trainer = make_trainer(recipe)
        self.checkpoints = Checkpoints(folder / CHECKPOINTS, recipe.training.keep)
        self.state, self.progress = self._restored()
        self._saved = self.progress.step
        self._step = jax.jit(self.trainer.step, donate_argnums=0)
        self._rate = recipe.optimizer.schedule(recipe.steps)
        self._continue = Continuation(self.trainer.graph, recipe.curriculum.vocabulary)
        self._sent: _Sent | None = None
        self._window = Window()
        self._iterator: grain.DatasetIterator[dict[str, np.ndarray]] | None = None
        self._held_out: HeldOut | None = None
        self._log: Log

    @property
    def devices(self) -> str:
        """How many devices of which kind."""
        return f"{self.trainer.mesh.size} × {self.trainer.mesh.devices.flat[0].device_kind}"

    @contextmanager
    def opened(self, visible: bool) -> Iterator[Log]:
        """The log of the run; at the end, what is in the background is waited for."""
        active = jax.process_index() == 0
        try:
            with Log(self.folder, self.progress.step, self.recipe.steps, active, visible) as self._log:
                yield self._log
        finally:
            if self._iterator is not None:
                self._iterator.close()
            self.checkpoints.close()

    def advance(self, step: int) -> None:
        """Make step number `step`, counted from 0, and all that is due after it."""
        stage, end = self.recipe.stage_at(step)
        iterator = self._enter(stage)
        if step == 0:
            self._evaluate()
        batch = Batch(**next(iterator))
        self.state, metrics = self._step(self.state, self.trainer.put(batch))
        self._receive()
        self._sent = _Sent(step, batch, metrics)
        done, last, every = step + 1, step + 1 == end, self.recipe.training
        if done % every.log_every == 0 or last:
            self._report()
        if done % every.evaluate_every == 0 or last:
            self._evaluate()
        if done % every.save_every == 0 or last:
            self.save()

    def save(self) -> None:
        """Write a checkpoint in the background, unless this step has one."""
        self._receive()
        if self.progress.step == self._saved or self._iterator is None:
            return
        self.progress.data = gathered(self._iterator.get_state())
        self._log.data(self.progress.step, self.progress.stage, report(self.progress.data))
        self.checkpoints.save(self.progress.step, self.state, asdict(self.progress))
        self._saved = self.progress.step
        self._window.restart()

    def _restored(self) -> tuple[TrainState, Progress]:
        build = builder(self.recipe)
        like = self.trainer.abstract(build)
        if self.checkpoints.steps:
            state, progress = self.checkpoints.restore(self.checkpoints.steps[-1], like)
            return state, Progress(**progress)
        state = self.trainer.init(build)
        if self.recipe.training.start is not None:
            state = state._replace(params=placed(started(self.recipe), like.params))
        return state, Progress()

    def _enter(self, stage: Stage) -> grain.DatasetIterator[dict[str, np.ndarray]]:
        """The batches of the stage, from where they stand."""
        resumed = self.progress.stage == stage.name
        if self._iterator is not None:
            if resumed:
                return self._iterator
            self._iterator.close()
        curriculum, process, processes = self.recipe.curriculum, jax.process_index(), jax.process_count()
        saved = self.progress.data
        if saved and len(saved) != processes:
            raise NautileError(f"the run was saved by {len(saved)} processes: resume it with as many")
        self._iterator = batches(curriculum, stage, process, processes, after=saved[process] if saved else None)
        if resumed:
            self._iterator.set_state(saved[process])
        self.progress.stage = stage.name
        if curriculum.held_out:
            at_once = curriculum.rows // self.recipe.training.accumulate
            self._held_out = HeldOut(self.trainer, curriculum, stage, self.recipe.training.evaluate_rows, at_once)
            for source, places in self._held_out.corrupt.items():
                self._log.passed_over(f"{source} (held out)", places)
        self._window.restart()
        return self._iterator

    def _receive(self) -> None:
        """The metrics of the step on its way; a run with a figure that is not finite ends here."""
        if self._sent is None:
            return
        (step, batch, metrics), self._sent = self._sent, None
        loss, norm, size = (float(metrics[name]) for name in ("loss", "gradient_norm", "parameter_norm"))
        if not all(map(math.isfinite, (loss, norm, size))):
            raise NautileError(self._diverged(step, batch, f"loss {loss}, norm of gradient {norm}, of weights {size}"))
        self._window.add(loss, norm)
        self.progress.step = step + 1
        self.progress.tokens += int(metrics["tokens"])
        self._log.advance(step + 1)

    def _diverged(self, step: int, batch: Batch, figures: str) -> str:
        kept = self.folder / f"bad-batch-{step + 1}-{jax.process_index()}.npz"
        np.savez_compressed(kept, **batch._asdict())
        self.checkpoints.wait()
        good = f"checkpoint {self.checkpoints.steps[-1]}" if self.checkpoints.steps else "none, the run's start"
        return (
            f"step {step + 1} (stage {self.progress.stage}) has no finite figures: {figures}; last good checkpoint: "
            f"{good}; the batch is kept in {kept}; look at it, or begin again with a lower learning rate"
        )

    def _report(self) -> None:
        self._receive()
        recipe, mesh = self.recipe, self.trainer.mesh
        loss, norm, steps_per_second = self._window.close()
        speed = steps_per_second and steps_per_second * recipe.curriculum.rows * recipe.curriculum.length
        peak = peak_flops(mesh.devices.flat[0].device_kind)
        flops = training_flops(recipe.model, recipe.curriculum.length)
        self._log.train(
            {
                "step": self.progress.step,
                "stage": self.progress.stage,
                "loss": loss,
                "gradient_norm": norm,
                "learning_rate": float(self._rate(self.progress.step - 1)),
                "tokens": self.progress.tokens,
                "tokens_per_second": speed,
                "mfu": speed and peak and speed * flops / (peak * mesh.size),
            }
        )

    def _evaluate(self) -> None:
        self._receive()
        step = self.progress.step
        if self._held_out is not None:
            scores = list(self._held_out.scores(self.state.params))
            place = {"step": step, "stage": self.progress.stage, "tokens": self.progress.tokens}
            self._log.evaluation([{**place, **score._asdict()} for score in scores])
        for prompt in self.recipe.training.prompts if step else ():
            self._log.sample(step, prompt, self._continue(self.state.params, prompt))
        self._window.restart()
