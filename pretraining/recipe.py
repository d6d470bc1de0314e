"""A whole training run as one readable file (TOML): model, curriculum, optimiser, and how it is run."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from glob import escape
from importlib.resources import files
from os.path import commonpath
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import TypeAdapter, ValidationError

from nautile.errors import NautileError
from nautile.model.architecture import Architecture, preset
from nautile.model.vocabulary import Vocabulary
from nautile.pretraining.curriculum import Curriculum, Source, Stage
from nautile.pretraining.model import Remat
from nautile.pretraining.optimizer import OptimizerConfig

DATA = "{data}"
EACH_FILE = "each_file"  # in a recipe's file: the source stands for one source a file, named and weighted by it
CUT = ("layout", "ranks")  # what of a curriculum decides its vocabulary


@dataclass(frozen=True)
class Training:
    """How a run is run. Only `start`, `z_loss` and the rounding of mesh, `accumulate` and `dtype` change the weights.

    The mesh has `data` × `fsdp` devices (-1: all that are left); a batch is worked off in `accumulate` parts.
    Steps are optimiser steps. `start` is a JAX checkpoint folder (`nautile convert --to jax`) to begin with.
    At each evaluation `evaluate_rows` held-out rows of every source are read, and `prompts` continued.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    data: int = -1
    fsdp: int = 1
    accumulate: int = 1
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: Remat = "none"
    z_loss: float = 0.0
    start: str | None = None
    log_every: int = 10
    save_every: int = 500
    keep: int = 3
    evaluate_every: int = 500
    evaluate_rows: int = 32
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("fsdp", "accumulate", "log_every", "save_every", "keep", "evaluate_every", "evaluate_rows"):
            if getattr(self, name) < 1:
                raise NautileError(f"training.{name} is {getattr(self, name)}, it must be at least 1")
        if self.data != -1 and self.data < 1:
            raise NautileError(f"training.data is {self.data}, it must be at least 1, or -1 for all devices")


@dataclass(frozen=True)
class Recipe:
    """All that a run follows from; two runs of one recipe on the same files and devices are alike, bit for bit."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    name: str
    model: Architecture
    curriculum: Curriculum
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        self.model.check()
        if self.model.pairs:
            raise NautileError("model.pairs: vectors of token pairs are not to be had in JAX")
        size = self.curriculum.vocabulary.size
        if self.model.vocab_size != size:
            raise NautileError(f"the model's vocab_size is {self.model.vocab_size}, the curriculum's vocabulary {size}")
        if self.curriculum.rows % self.training.accumulate:
            raise NautileError(
                f"curriculum.rows ({self.curriculum.rows}) must be a multiple of training.accumulate "
                f"({self.training.accumulate})"
            )
        self.optimizer.check(self.steps)

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(map(self.curriculum.steps, self.curriculum.stages))

    def stage_at(self, step: int) -> tuple[Stage, int]:
        """The stage that step (counted from 0) belongs to, and the first step after it."""
        end = 0
        for stage in self.curriculum.stages:
            end += self.curriculum.steps(stage)
            if step < end:
                return stage, end
        raise NautileError(f"the recipe {self.name} has {self.steps} steps, there is no step {step}")

    def to_json(self) -> str:
        """Text that `from_json` reads back."""
        return json.dumps(asdict(self), indent=2)

    @staticmethod
    def from_json(text: str) -> "Recipe":
        """The recipe that `to_json` wrote; raises NautileError."""
        try:
            return _checked(json.loads(text), "the recipe")
        except json.JSONDecodeError as error:
            raise NautileError(f"the recipe is not JSON ({error})") from None


def shipped() -> list[str]:
    """The names of the recipes that ship."""
    return sorted(path.name.removesuffix(".toml") for path in _folder().iterdir() if path.name.endswith(".toml"))


def load_recipe(recipe: str | Path, data: Path | None = None, changes: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name, or a TOML file.

    `data` is put in the place of ``{data}`` in the locations of sources. A source with ``each_file = true`` becomes one
    source for each file that matches, named after it, its weight shared out by the files' sizes. `changes` are
    ``path=value`` in TOML, such as ``optimizer.learning_rate=1e-3`` or ``curriculum.stages.language.tokens=5_000_000``.

    Raises:
        NautileError: no such recipe, a value that cannot be, or a name that is not known, each with its place.
    """
    name = str(recipe)
    if name not in shipped() and not Path(recipe).is_file():
        raise NautileError(f"no recipe {name!r}: give a .toml file, or one of {', '.join(shipped())}")
    place = _folder() / f"{name}.toml" if name in shipped() else Path(recipe)
    try:
        values = tomllib.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NautileError(f"recipe {name}: not TOML ({error})") from None
    for change in changes:
        _change(values, change)
    return _checked({"name": Path(name).stem, **_filled(values, data)}, f"recipe {name}")


def _folder() -> Any:
    return files("nautile.pretraining") / "recipes"


def _filled(values: Mapping[str, Any], data: Path | None) -> dict[str, Any]:
    """With the preset's numbers, the vocabulary's size, and the data's folder in their places."""
    filled = dict(values)
    if wrong := [name for name in ("model", "curriculum") if not isinstance(filled.get(name, {}), dict)]:
        raise NautileError(f"{wrong[0]} of the recipe must be a table, not {filled[wrong[0]]!r}")
    model = dict(filled.get("model", {}))
    base = preset(model.pop("preset")) if "preset" in model else {}
    if unknown := set(model) - {known.name for known in fields(Architecture)}:
        raise NautileError(f"the model of the recipe has no {', '.join(sorted(unknown))}")
    curriculum = dict(filled.get("curriculum", {}))
    if isinstance(curriculum.get("stages"), list):
        curriculum["stages"] = [_with_files(stage, data) for stage in curriculum["stages"]]
    model = {**base, **model}
    model.setdefault("vocab_size", Vocabulary(**{name: curriculum[name] for name in CUT if name in curriculum}).size)
    return {**filled, "model": model, "curriculum": curriculum}


def _with_files(stage: Any, data: Path | None) -> Any:
    """A stage whose sources name the data folder's files; a source for `each_file` becomes several."""
    if not isinstance(stage, dict) or not isinstance(stage.get("sources"), list):
        return stage
    sources: list[Any] = []
    for source in stage["sources"]:
        each = isinstance(source, dict) and source.get(EACH_FILE, False)
        if not isinstance(source, dict) or not isinstance(source.get("location"), str):
            sources.append(source)
            continue
        if DATA in source["location"] and data is None:
            raise NautileError(f"source {source.get('name')!r} lies in the data folder: give it with --data")
        one = {name: value for name, value in source.items() if name != EACH_FILE}
        one["location"] = one["location"].replace(DATA, escape(str(data)))
        sources += _one_a_file(one) if each else [one]
    return {**stage, "sources": sources}


def _one_a_file(source: dict[str, Any]) -> list[dict[str, Any]]:
    """A source for each file, the weight shared by the files' sizes as they lie on disk; itself if none is there."""
    try:
        sizes = {path: path.stat().st_size for path in Source(source["name"], source["location"]).files()}
    except (NautileError, KeyError):
        return [source]
    weight, whole = source.get("weight", 1.0), sum(sizes.values())
    if not isinstance(weight, int | float):
        return [source]
    above = Path(commonpath([path.parent for path in sizes]))
    return [
        {
            **source,
            "name": f"{source['name']}/{path.relative_to(above)}",
            "location": escape(str(path)),
            "weight": weight * size / whole,
        }
        for path, size in sizes.items()
        if size
    ]


def _change(values: dict[str, Any], change: str) -> None:
    path, equals, text = change.partition("=")
    *parents, last = path.strip().split(".")
    if not equals or not last:
        raise NautileError(f"--set {change}: write it as path=value, such as optimizer.learning_rate=1e-3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    place: Any = values
    for name in parents:
        if isinstance(place, list):
            place = next((table for table in place if table.get("name") == name), None)
        else:
            place = place.setdefault(name, {}) if isinstance(place, dict) else None
        if place is None:
            raise NautileError(f"--set {change}: the recipe has no {name!r} there")
    if not isinstance(place, dict):
        raise NautileError(f"--set {change}: {'.'.join(parents)} has no entries of its own")
    place[last] = value


def _checked(values: Mapping[str, Any], where: str) -> Recipe:
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as errors:
        first = errors.errors()[0]
        place = [".".join(map(str, first["loc"]))] if first["loc"] else []
        raise NautileError(": ".join([where, *place, first["msg"].removeprefix("Value error, ")])) from None
