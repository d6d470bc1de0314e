"""`nautile pretrain`: plan, run, resume, plot, export. Nothing heavy is imported before a command needs it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from nautile.errors import NautileError

EXTRA = {"jax", "jaxlib", "flax", "optax", "orbax", "grain", "pydantic", "matplotlib", "tensorstore"}

app = typer.Typer(
    help="Train the language model in JAX: plan a run, run it, go on after a stop, look at it, export it.",
    no_args_is_help=True,
)

RecipeName = Annotated[str, Argument(metavar="RECIPE", help="A shipped recipe, such as smoke, or a .toml file.")]
RunFolder = Annotated[Path, Argument(metavar="RUN", help="The folder of a run.")]
Data = Annotated[Path | None, Option(help="Folder that stands for {data} in the recipe's sources.")]
Changes = Annotated[list[str] | None, Option("--set", metavar="PATH=VALUE", help="Change a value of the recipe.")]
Minutes = Annotated[float | None, Option(help="Save and stop after so many minutes.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress bar, no lines.")]
Distributed = Annotated[bool, Option("--distributed", help="One of several processes (TPU pods, Slurm: found out).")]
Coordinator = Annotated[str | None, Option(metavar="HOST:PORT", help="Of process 0, where it can't be found out.")]
Processes = Annotated[int | None, Option(help="How many processes, with --coordinator.")]
Process = Annotated[int | None, Option(help="Which of them this one is, from 0.")]

_RUN = """Train a model from a recipe; everything goes into the folder --output.

\b
Examples:
  nautile pretrain run smoke --data texts/ -o runs/smoke
  nautile pretrain run smoke --data texts/ -o runs/long --set curriculum.stages.language.tokens=6_000_000
  nautile pretrain run mine.toml -o runs/mine --minutes 25

Ctrl-C and SIGTERM save a checkpoint; `nautile pretrain resume` goes on from the newest whole one, also after a crash.
"""


@app.command()
def plan(
    recipe: RecipeName,
    chips: Annotated[str, Option(help="v4-64, 64xv4, 8xh100, ...")] = "v4-64",
    mfu: Annotated[float, Option(help="Model FLOP utilisation to reckon with.")] = 0.35,
    data: Data = None,
    changes: Changes = None,
) -> None:
    """What a run would take: parameters, memory a chip, FLOPs, and days."""
    with _pretraining():
        from rich.console import Console

        from nautile.pretraining.devices import parse_chips
        from nautile.pretraining.plan import make_plan, render
        from nautile.pretraining.recipe import load_recipe

        made = make_plan(load_recipe(recipe, data or Path("DATA"), changes or ()), parse_chips(chips), mfu)
        Console().print(render(made))


@app.command(help=_RUN)
def run(
    recipe: RecipeName,
    output: Annotated[Path, Option("--output", "-o", help="Folder of the run: a new or an empty one.")],
    data: Data = None,
    changes: Changes = None,
    minutes: Minutes = None,
    distributed: Distributed = False,
    coordinator: Coordinator = None,
    processes: Processes = None,
    process: Process = None,
    quiet: Quiet = False,
) -> None:
    """Begin a run."""
    with _pretraining():
        from nautile.pretraining.recipe import load_recipe
        from nautile.pretraining.train import begin

        loaded = load_recipe(recipe, None if data is None else data.resolve(), changes or ())
        _join(distributed, coordinator, processes, process)
        begin(loaded, output)
        _train(output, minutes, quiet)


@app.command()
def resume(
    folder: RunFolder,
    minutes: Minutes = None,
    distributed: Distributed = False,
    coordinator: Coordinator = None,
    processes: Processes = None,
    process: Process = None,
    quiet: Quiet = False,
) -> None:
    """Go on from the newest whole checkpoint of a run, with the recipe it was begun with."""
    with _pretraining():
        _join(distributed, coordinator, processes, process)
        _train(folder, minutes, quiet)


@app.command()
def plot(
    folders: Annotated[list[Path], Argument(metavar="RUN...", help="Folders of runs.")],
    output: Annotated[Path, Option("--output", "-o", help="Picture to write: .png or .svg.")] = Path("curve.png"),
) -> None:
    """Draw training loss and held-out bits per byte over the tokens read."""
    with _pretraining():
        from nautile.pretraining.curves import draw

        draw(folders, output)
        typer.echo(f"{output}", err=True)


@app.command()
def export(
    folder: RunFolder,
    output: Annotated[Path, Argument(metavar="FOLDER", help="Folder to write: a new or an empty one.")],
    step: Annotated[int | None, Option(help="Which checkpoint (default: the newest).")] = None,
    average: Annotated[int, Option(help="Average the weights of so many checkpoints, this one the last.")] = 1,
    dtype: Annotated[str, Option(help="float32 or bfloat16.")] = "bfloat16",
) -> None:
    """Write a checkpoint as a PyTorch folder that `nautile.load` and transformers take."""
    with _pretraining():
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # no accelerator is needed, one in use would be in the way
        from nautile.pretraining.export import export as export_run

        steps = export_run(folder, output, step, average, dtype)
        typer.echo(f"{output}: step {', '.join(map(str, steps))}, {dtype}", err=True)


def _train(folder: Path, minutes: float | None, quiet: bool) -> None:
    from nautile.pretraining.train import train

    if minutes is not None and not minutes >= 0:
        raise NautileError(f"--minutes {minutes}: give 0 or more")
    end = train(folder, minutes, visible=not quiet)
    if not quiet:
        how = "finished" if end.step == end.steps else f"stopped; go on with: nautile pretrain resume {folder}"
        typer.echo(f"nautile: step {end.step:,} of {end.steps:,}, {end.tokens:,} tokens, {how}", err=True)


def _join(distributed: bool, coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join the other processes of a run."""
    given = [value is not None for value in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise NautileError("--coordinator, --processes and --process belong together")
    if not distributed and coordinator is None:
        return
    import jax

    jax.distributed.initialize(coordinator, processes, process, shutdown_timeout_seconds=30)


@contextmanager
def _pretraining() -> Iterator[None]:
    """Say which extra is missing, and keep the libraries' own messages off the terminal."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRA:
            raise
        raise NautileError(f'pretraining needs {error.name}: pip install "nautile[pretraining]"') from None
