"""What the backbone reads, in which order and in which shares: a curriculum of stages, as plain values."""

import glob
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from nautile.errors import NautileError
from nautile.model.vocabulary import Layout, Vocabulary

Format = Literal["text", "chat"]
Loss = Literal["all", "answer"]

HUB = "hub:"
_PACKINGS = (".gz", ".xz", ".zst")
_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Source:
    """Documents of one kind: JSON Lines (plain, .gz, .xz, .zst) or Parquet files, or a data set on the hub.

    `location` is a path, a glob (``**`` too), or ``hub:owner/dataset``, of which `subset` and `split` are read.
    `weight` is the share of a stage's tokens, relative to the other sources' weights.
    `format` "text" reads the column `text`; "chat" reads `query`, `answer` and, where a row has it, `reasoning`.
    `drop` is taken off the end of every text, such as a marker that is spelled out there.
    `loss` "answer" leaves the prompt of a chat out of the loss.
    `max_corrupt` is how many unreadable lines and files are passed over before the run ends.

    Raises NautileError for a value that cannot be meant.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    name: str
    location: str
    weight: float = 1.0
    format: Format = "text"
    loss: Loss = "all"
    text: str = "text"
    query: str = "query"
    reasoning: str = "reasoning"
    answer: str = "answer"
    drop: str = ""
    subset: str | None = None
    split: str = "train"
    max_corrupt: int = 100

    def __post_init__(self) -> None:
        where = f"source {self.name!r}"
        if not self.name or not self.location.removeprefix(HUB):
            raise NautileError(f"{where} at {self.location!r}: a source needs a name and a location")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise NautileError(f"{where}: the weight is {self.weight!r}, it must be a positive number")
        if self.format not in get_args(Format):
            raise NautileError(f"{where}: the format {self.format!r} is unknown: use 'text' or 'chat'")
        if self.loss not in get_args(Loss):
            raise NautileError(f"{where}: the loss {self.loss!r} is unknown: use 'all' or 'answer'")
        if self.loss == "answer" and self.format == "text":
            raise NautileError(f"{where}: plain text has no prompt to leave out; use loss='all' or format='chat'")
        if self.max_corrupt < 0:
            raise NautileError(f"{where}: max_corrupt is {self.max_corrupt}, it must be 0 or more")

    @property
    def hub_name(self) -> str | None:
        """The ``owner/dataset`` of a source on the hub; None for local files."""
        return self.location.removeprefix(HUB) if self.location.startswith(HUB) else None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row that are read."""
        return (self.text,) if self.format == "text" else (self.query, self.reasoning, self.answer)

    def files(self) -> list[Path]:
        """The local files, sorted by path; none for a source on the hub.

        Raises NautileError where no file matches, or one has a suffix that no format here has.
        """
        if self.hub_name:
            return []
        named = Path(self.location).expanduser()
        matches = glob.glob(str(named), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        found = [named] if named.exists() else sorted(map(Path, matches))
        files = [path for path in found if path.is_file()]
        if not files:
            raise NautileError(f"source {self.name!r}: no file matches {self.location!r}")
        for path in files:
            file_kind(path)
        return files


def file_kind(path: Path) -> tuple[Literal["lines", "parquet"], str]:
    """What a file's suffixes say: lines or Parquet, and the packing: "", ".gz", ".xz" or ".zst"."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packing = suffixes.pop() if suffixes and suffixes[-1] in _PACKINGS else ""
    kind = suffixes[-1] if suffixes else ""
    if kind in _LINES:
        return "lines", packing
    if kind in _PARQUET and not packing:
        return "parquet", ""
    raise NautileError(f"{path}: pretraining reads .jsonl (also .gz, .xz, .zst) and .parquet; rename or convert it")


@dataclass(frozen=True)
class Stage:
    """Some sources mixed by their weights until `tokens` tokens were read; raises NautileError.

    A source that the stage before had too goes on where that stage left it.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    name: str
    sources: tuple[Source, ...]
    tokens: int

    def __post_init__(self) -> None:
        if not self.sources:
            raise NautileError(f"stage {self.name!r} has no sources: name at least one")
        if self.tokens <= 0:
            raise NautileError(f"stage {self.name!r}: the budget is {self.tokens} tokens, it must be positive")
        _once(f"stage {self.name!r}", "source", [source.name for source in self.sources])

    @property
    def shares(self) -> dict[str, float]:
        """The share of the stage's tokens that each source has, by name; they sum to 1."""
        total = math.fsum(source.weight for source in self.sources)
        return {source.name: source.weight / total for source in self.sources}


@dataclass(frozen=True)
class Curriculum:
    """A curriculum, and how it is cut: batches of `rows` rows (over all processes) of `length` tokens.

    Documents are shuffled within blocks of `block`, in an order that follows from `seed`; a state holds no text, so
    a resumed run reads the open block of each source again. With `held_out`, every so many-th row of each source is
    kept for evaluation. Raises NautileError for a value that cannot be meant.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    stages: tuple[Stage, ...]
    length: int = 1024
    rows: int = 64
    layout: Layout = "nautile"
    ranks: int = 32_000
    seed: int = 0
    block: int = 1024
    held_out: int = 0

    def __post_init__(self) -> None:
        if not self.stages:
            raise NautileError("a recipe has no stages: give it at least one")
        _once("the recipe", "stage", [stage.name for stage in self.stages])
        if self.held_out < 0 or self.held_out == 1:
            raise NautileError(f"the recipe's held_out is {self.held_out}: give 0 for none, or 2 and more")
        for name, least in {"length": 2, "rows": 1, "block": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise NautileError(f"the recipe's {name} is {getattr(self, name)}, it must be at least {least}")
        Vocabulary(self.layout, self.ranks)

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of `layout` and `ranks`."""
        return Vocabulary(self.layout, self.ranks)

    def steps(self, stage: Stage) -> int:
        """The batches that a stage's budget buys, the last one whole. Padding counts, so every process agrees."""
        return -(-stage.tokens // (self.rows * self.length))


def _once(where: str, what: str, names: list[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise NautileError(f"{where} names the {what} {twice[0]!r} more than once: give each its own name")
