"""Accelerators: what a chip computes and holds, as its maker publishes it, and which chips a name means."""

import re
from dataclasses import dataclass

from nautile.errors import NautileError

GIB = 1 << 30  # what the makers write as GB
PAPER = "v4-64"  # section 3.4 of the paper: "a single Cloud TPU v4-64 pod slice (64 TPU v4 chips)"


@dataclass(frozen=True)
class Accelerator:
    """One chip: dense bfloat16 FLOP/s, bytes of memory, and what JAX calls it (`jax.Device.device_kind`).

    A chip shows as `devices` JAX devices: on TPU v2 and v3 each of the two cores is one, with half of the chip's FLOP/s
    and memory; from v4 on the whole chip is one, as a GPU is. `counted` is what Google's names of slices count of a
    chip: two TensorCores, or one chip; 0 for what is not Google's.
    """

    peak: float
    memory: int
    names: tuple[str, ...]
    devices: int = 1
    counted: int = 0


ACCELERATORS = {
    "v2": Accelerator(45e12, 16 * GIB, ("TPU v2",), devices=2, counted=2),
    "v3": Accelerator(123e12, 32 * GIB, ("TPU v3",), devices=2, counted=2),
    "v4": Accelerator(275e12, 32 * GIB, ("TPU v4",), counted=2),
    "v5e": Accelerator(197e12, 16 * GIB, ("TPU v5 lite", "TPU v5e"), counted=1),
    "v5p": Accelerator(459e12, 95 * GIB, ("TPU v5", "TPU v5p"), counted=2),
    "v6e": Accelerator(918e12, 32 * GIB, ("TPU v6 lite", "TPU v6e"), counted=1),
    "a100-40": Accelerator(312e12, 40 * GIB, ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB")),
    "a100-80": Accelerator(312e12, 80 * GIB, ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe")),
    "h100": Accelerator(989.4e12, 80 * GIB, ("NVIDIA H100 80GB HBM3",)),  # SXM; the PCIe card is slower
    "h200": Accelerator(989.4e12, 141 * GIB, ("NVIDIA H200",)),
}
ALIASES = {"v5litepod": "v5e"}


@dataclass(frozen=True)
class Slice:
    """`chips` chips of one kind (a key of `ACCELERATORS`), and a line on how the name was read, where it misleads."""

    kind: str
    chips: int
    note: str = ""

    @property
    def accelerator(self) -> Accelerator:
        """What one chip is."""
        return ACCELERATORS[self.kind]

    @property
    def devices(self) -> int:
        """How many devices JAX sees."""
        return self.chips * self.accelerator.devices


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of one JAX device of that kind (half a chip on TPU v2 and v3); None where unknown."""
    for accelerator in ACCELERATORS.values():
        if device_kind in accelerator.names:
            return accelerator.peak / accelerator.devices
    return None


def parse_chips(text: str) -> Slice:
    """The chips that a text names: "64xv4" and "8xh100" (so many chips), "h100" (one), or Google's "v4-64".

    Google's names count TensorCores, two a chip, for v2, v3, v4 and v5p, and chips for v5e and v6e.
    Raises NautileError for a kind that is not in `ACCELERATORS`, or a number that cannot be.
    """
    name = text.strip().lower()
    if explicit := re.fullmatch(r"(\d{1,6})x(.+)", name):
        return _some(text, _kind(text, explicit[2]), int(explicit[1]))
    if name in ACCELERATORS:
        return Slice(name, 1)
    named = re.fullmatch(r"(.+)-(\d{1,6})", name)
    if named is None:
        raise _unknown(text)
    kind, number = _kind(text, named[1]), int(named[2])
    counted = ACCELERATORS[kind].counted
    if not counted:
        raise NautileError(f"chips {text!r}: write so many {kind} as {number}x{kind}")
    if number % counted:
        raise NautileError(f"chips {text!r}: the number counts TensorCores, two a chip, so it must be even")
    return _some(text, kind, number // counted, _note(name, kind, number) if counted > 1 else "")


def _note(name: str, kind: str, cores: int) -> str:
    chips = "1 chip" if cores == 2 else f"{cores // 2} chips"
    meant = f"the paper speaks of {cores} chips, which is" if name == PAPER else f"{cores} chips are"
    return f"{name} is {chips}: Google's names count TensorCores; {meant} {cores}x{kind}"


def _some(text: str, kind: str, chips: int, note: str = "") -> Slice:
    if chips < 1:
        raise NautileError(f"chips {text!r}: there must be at least one")
    return Slice(kind, chips, note)


def _kind(text: str, name: str) -> str:
    kind = ALIASES.get(name, name)
    if kind not in ACCELERATORS:
        raise _unknown(text)
    return kind


def _unknown(text: str) -> NautileError:
    return NautileError(f"chips {text!r} are unknown: write such as 64xv4, v4-64 or h100, of {', '.join(ACCELERATORS)}")
