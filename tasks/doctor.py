"""`nautile doctor`: what is installed here, what the machine can do, and whether the main job works."""

import platform
import time
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import torch

from nautile import __version__
from nautile.engine.processor import multiplies_bfloat16
from nautile.errors import NautileError, first_line
from nautile.model.kernels.cpu import has_loops
from nautile.model.places import fingerprint, locate
from nautile.tasks.bench.speed.results import this_machine
from nautile.tasks.classify import classify
from nautile.tasks.extras import missing
from nautile.tasks.question import BASE
from nautile.tasks.sheets import Sheet

TEXT, LABEL = "I love it", "positive"
FOR_DEVELOPERS = "dev"


def examine() -> Sheet:
    """What was found, and what may be done about it."""
    rows = [*_machine(), *_extras(), *_shipped()]
    return Sheet(f"nautile {__version__}", ("", "found", "what to do"), rows, prose=True)


def check_main_job() -> str:
    """Label a text with the model that ships; says so in a line.

    Raises:
        NautileError: it gives another label than it should, or none.
    """
    start = time.perf_counter()
    try:
        found = classify(TEXT)["label"].iloc[0]
    except (NautileError, ImportError, RuntimeError, OSError) as error:
        raise NautileError(f"the main job fails: {first_line(error)}; install nautile anew") from error
    if found != LABEL:
        raise NautileError(f"the main job calls {TEXT!r} {found}, not {LABEL}; install nautile anew")
    return f"the main job works: {TEXT!r} is {found} ({time.perf_counter() - start:.1f} seconds)"


def _machine() -> Iterator[tuple[str, str, str]]:
    machine = this_machine()
    yield "Python", f"{platform.python_version()}, {platform.system()}, {platform.machine()}", ""
    yield "processor", f"{machine.processor}, {machine.instructions}, {machine.cores} cores", ""
    yield "torch", f"{machine.torch}, {machine.threads} threads", ""
    fast = multiplies_bfloat16(torch.device("cpu"))
    yield "bfloat16", "multiplied by the processor" if fast else "not fast here", "--precision auto" if fast else ""
    gpus = (
        [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    yield "GPU", ", ".join(gpus) or "none that torch can use", "--device auto" if gpus else ""
    loop = has_loops()
    yield "SCA's loop", "there" if loop else "not there", "" if loop else 'faster on a CPU: pip install "nautile[cpu]"'


def _extras() -> Iterator[tuple[str, str, str]]:
    for extra in ("", *sorted(set(metadata("nautile").get_all("Provides-Extra") or ()) - {FOR_DEVELOPERS})):
        lacks = missing(extra)
        remedy = f'pip install "nautile[{extra}]"' if extra else "pip install nautile"
        found = f"lacks {', '.join(lacks)}" if lacks else "complete"
        yield f"nautile[{extra}]" if extra else "nautile", found, remedy if lacks else ""


def _shipped() -> Iterator[tuple[str, str, str]]:
    files = [path for path in Path(locate(BASE)).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    yield BASE, f"weights {fingerprint(BASE)}, {size:.0f} MB", ""
