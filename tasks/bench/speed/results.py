"""What a run finds, as it is written to speed.json."""

import os
import platform
from pathlib import Path

import torch
from pydantic import Field

from nautile import __version__
from nautile.tasks.bench.speed.memory import CPU
from nautile.tasks.bench.speed.timing import Spread
from nautile.tasks.evaluate.results import Result


class Roof(Result):
    """What the machine gave in the same rounds, and how near a contender came to it."""

    share: Spread = Field(description="the least time that the work could take here, over the time that it took")
    gemm: Spread = Field(description="GFLOP/s of a matrix product in the contender's type")
    bandwidth: Spread = Field(description="GB/s that a copy in memory reads and writes")


class Figure(Result):
    """A contender in a case; the roofline is left out where it says nothing, as of memory."""

    benchmark: str
    case: str
    contender: str
    unit: str
    value: Spread
    roof: Roof | None = None


class Ratio(Result):
    """How many times the figure of `against` that of `of` is, in the same rounds."""

    benchmark: str
    case: str
    unit: str
    of: str
    against: str
    value: Spread


class Machine(Result):
    """Where a run took place."""

    processor: str
    gpu: str | None = Field(None, description="what computed, where it was not the processor")
    instructions: str = Field(description="the widest that torch uses here")
    cores: int
    threads: int
    torch: str


class Findings(Result):
    """One run of `nautile bench speed`; `notes` say what was left out, and what was measured on."""

    version: str = __version__
    machine: Machine
    repeats: int
    tiny: bool = Field(description="small models and sizes: to see that all works, no figures to quote")
    figures: list[Figure]
    ratios: list[Ratio]
    notes: list[str]

    @property
    def about(self) -> str:
        """What the figures rest on, in words."""
        machine = self.machine
        return (
            f"nautile {self.version}, torch {machine.torch}, "
            + (f"on {machine.gpu}, beside " if machine.gpu else "")
            + f"{machine.processor} ({machine.instructions}), "
            f"{machine.threads} of {machine.cores} threads; medians and [quartiles] of {self.repeats} rounds"
            + (", tiny models: no figures to quote" if self.tiny else "")
        )


def this_machine(device: torch.device = CPU) -> Machine:
    """The machine of this process, with the threads that torch uses now, and what computes."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return Machine(
        processor=(named or [platform.processor() or platform.machine()])[0],
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        instructions=torch.backends.cpu.get_cpu_capability(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )
