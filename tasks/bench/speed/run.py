"""The run of `nautile bench speed`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from nautile.errors import NautileError
from nautile.tasks.bench.speed.classify import classify
from nautile.tasks.bench.speed.decode import decode
from nautile.tasks.bench.speed.labels import labels
from nautile.tasks.bench.speed.prefill import prefill
from nautile.tasks.bench.speed.report import save
from nautile.tasks.bench.speed.results import Findings, this_machine
from nautile.tasks.bench.speed.rows import rows
from nautile.tasks.bench.speed.session import Session, Settings
from nautile.tasks.bench.speed.training import training
from nautile.tasks.evaluate.checks import check_folder, make_folder
from nautile.tasks.question import check_device

# In this order whatever order is asked for: training leaves the process holding on to memory.
BENCHMARKS: Mapping[str, Callable[[Session], None]] = {
    "prefill": prefill,
    "decode": decode,
    "classify": classify,
    "labels": labels,
    "rows": rows,
    "training": training,
}


def speed(settings: Settings, tell: Callable[[str], None] = lambda line: None) -> Findings:
    """Measure what is asked for, and write it into `settings.output`; `tell` gets a line before each case.

    Raises:
        NautileError: an unknown benchmark, no such device, or a folder that cannot be written to.
    """
    for name in settings.names:
        if name not in BENCHMARKS:
            raise NautileError(f"unknown benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
    check_device(settings.device)
    session = Session(settings, tell)
    if settings.output is not None:
        check_folder(settings.output)
        make_folder(settings.output)
    with _threads(settings.threads):
        for name, benchmark in BENCHMARKS.items():
            if name in (settings.names or BENCHMARKS):
                benchmark(session)
        machine = this_machine(session.device)
    findings = Findings(
        machine=machine,
        repeats=settings.repeats,
        tiny=settings.tiny,
        figures=session.figures,
        ratios=session.ratios,
        notes=session.notes,
    )
    for remark in () if settings.output is None else save(findings, settings.output):
        tell(remark)
    return findings


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
