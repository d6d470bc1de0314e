"""Batches of packed rows: sources mixed by their share of tokens, in an order that a small state resumes exactly.

A state names places and holds no text: of each source the block that is open, the document in it, and the token in
that document. Batches end with a full row, so nothing else is on its way when a state is taken.
"""

import os
import zlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import grain
import numpy as np

from nautile.errors import NautileError
from nautile.pretraining.curriculum import Curriculum, Source, Stage
from nautile.pretraining.documents import Cursor, Reader, Share
from nautile.pretraining.packing import Row, Tokens, tokenise

Batch = dict[str, np.ndarray]
"""`ids` int32, `document` int32 (1, 2, 3, … in a row, 0 for padding at its end), `weight` float32, each (rows, L).

`weight` is 1 where the token is a target, to be predicted from the one before it."""

_ARRAYS = ("ids", "document", "weight")


def batches(
    curriculum: Curriculum,
    stage: Stage,
    process: int = 0,
    processes: int = 1,
    evaluate: bool = False,
    prefetch: int = 2,
    after: Mapping[str, Any] | None = None,
) -> grain.DatasetIterator[Batch]:
    """The batches of a stage, without end: `curriculum.rows / processes` rows each, made `prefetch` batches ahead.

    With `evaluate` they are those of the rows that `curriculum.held_out` keeps from training.
    `after` is the state that the stage before ended with: sources of both stages go on where they stood.
    `get_state()` after a batch is a JSON-able dict; `set_state()` of it, on another iterator over the same files,
    goes on with the very next batch. Raises NautileError: no file, no document, rows that the processes cannot
    share, a state of another recipe; and when reading, too many corrupt lines.
    """
    if not 0 <= process < processes:
        raise NautileError(f"process {process} of {processes}: processes are counted from 0")
    if curriculum.rows % processes:
        raise NautileError(f"a batch of {curriculum.rows} rows can't be shared by {processes} processes")
    if evaluate and not curriculum.held_out:
        raise NautileError("the recipe holds nothing out for evaluation: give it held_out=100, or so")
    dataset = _Batches(curriculum, stage, Share(process, processes, curriculum.held_out, evaluate), after)
    return iter(grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=prefetch))


@dataclass(frozen=True)
class SourceReport:
    """What was read of a source: whole passes, documents begun, tokens laid down, blank rows, and what is corrupt."""

    epoch: int
    documents: int
    tokens: int
    empty: int
    corrupt: tuple[str, ...]


def report(states: Sequence[Mapping[str, Any]]) -> dict[str, SourceReport]:
    """What has been read up to the states of all processes' batches, by source.

    A process finds the corrupt rows of its own share, and the corrupt files that it comes by.
    """
    found = {}
    for name in states[0]["sources"]:
        parts = [state["sources"][name] for state in states]
        found[name] = SourceReport(
            max(part["cursor"][0] for part in parts),
            sum(part["documents"] for part in parts),
            sum(part["tokens"] for part in parts),
            sum(part["empty"] + part["block_empty"] for part in parts),
            tuple(dict.fromkeys(place for part in parts for place in part["corrupt"])),
        )
    return found


def check_held_out(curriculum: Curriculum) -> None:
    """Raise NautileError where a file is missing, or could be held out in one source and trained on in another."""
    read_as: dict[Path, list[Path]] = {}
    for source in (source for stage in curriculum.stages for source in stage.sources):
        files = source.files()
        for file in files:
            if read_as.setdefault(file, files) != files and curriculum.held_out:
                raise NautileError(
                    f"source {source.name!r}: {file} belongs to another source among other files, so rows held out in "
                    "the one are trained on in the other; give both the same location"
                )


@dataclass
class _Place:
    """Where a source stands: its `block`-th block begins at `cursor`; `document` in it goes on at token `offset`.

    `documents`, `tokens` and `empty` count what lies behind; `block_empty` belongs to the open block.
    """

    cursor: Cursor = field(default_factory=Cursor)
    block: int = 0
    document: int = 0
    offset: int = 0
    documents: int = 0
    tokens: int = 0
    empty: int = 0
    block_empty: int = 0
    corrupt: list[str] = field(default_factory=list)


class _Stream:
    """The tokenised documents of one source, shuffled within blocks."""

    def __init__(self, source: Source, curriculum: Curriculum, share: Share) -> None:
        self.source, self.curriculum = source, curriculum
        self.seed = [curriculum.seed, zlib.crc32(source.name.encode()), share.process]
        self.reader = Reader(source, share)
        self.at = _Place()
        self._block: list[Tokens] = []

    def fill(self, row: Row) -> None:
        """Lay the open document, or what is left of it, into a row that is not full."""
        if not self._block:
            self._block = self._load()
        before = row.used
        rest = row.add(self._block[self.at.document], self.at.offset)
        self.at.tokens += row.used - before
        self.at.documents += self.at.offset == 0
        self.at.offset = rest or 0
        if rest is None:
            self._advance()

    def _advance(self) -> None:
        self.at.document += 1
        if self.at.document == len(self._block):
            self.at.cursor = self.reader.cursor
            self.at.block += 1
            self.at.document = 0
            self.at.empty += self.at.block_empty
            self.at.block_empty = 0
            self._block = []

    def _load(self) -> list[Tokens]:
        documents, self.at.block_empty = self.reader.read(self.curriculum.block)
        self.at.corrupt = list(self.reader.corrupt)
        order = np.random.default_rng([*self.seed, self.at.block]).permutation(len(documents))
        encode = partial(tokenise, vocabulary=self.curriculum.vocabulary, loss=self.source.loss)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(encode, [documents[place] for place in order]))

    def get_state(self) -> dict[str, Any]:
        return asdict(self.at) | {"cursor": list(self.at.cursor)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.at = _Place(**{**state, "cursor": Cursor(*state["cursor"]), "corrupt": list(state["corrupt"])})
        self.reader.seek(self.at.cursor)
        self.reader.corrupt = dict.fromkeys(self.at.corrupt)
        self._block = []


class _Batches(grain.IterDataset[Batch]):
    """What `batches` prefetches from."""

    def __init__(self, curriculum: Curriculum, stage: Stage, share: Share, after: Mapping[str, Any] | None) -> None:
        super().__init__()
        self._of = curriculum, stage, share, after

    def __iter__(self) -> "_BatchIterator":
        return _BatchIterator(*self._of)


class _BatchIterator(grain.DatasetIterator[Batch]):
    """Rows filled with documents of whichever source is furthest behind its share of the tokens.

    So the rest of a long document need not stand in the very next row.
    """

    def __init__(self, curriculum: Curriculum, stage: Stage, share: Share, after: Mapping[str, Any] | None) -> None:
        super().__init__()
        self._curriculum, self._rows = curriculum, curriculum.rows // share.processes
        self._streams = {source.name: _Stream(source, curriculum, share) for source in stage.sources}
        self._identity = _identity(curriculum, share, self._streams.values())
        self._batches = 0
        if after is not None:
            self._go_on(after)

    def _go_on(self, after: Mapping[str, Any]) -> None:
        """Stand where another stage left the sources that are the same, with nothing counted yet."""
        for name, stream in self._streams.items():
            if after["of"].get(f"source {name}") == self._identity[f"source {name}"]:
                stream.set_state(after["sources"][name])
                stream.at = replace(stream.at, documents=0, tokens=0, empty=0)

    def __next__(self) -> Batch:
        rows = [self._row() for _ in range(self._rows)]
        self._batches += 1
        return {name: np.stack([getattr(row, name) for row in rows]) for name in _ARRAYS}

    def _row(self) -> Row:
        row = Row(self._curriculum.length, self._curriculum.vocabulary.pad_id)
        while not row.full:
            min(self._streams.values(), key=lambda stream: stream.at.tokens / stream.source.weight).fill(row)
        return row

    def get_state(self) -> dict[str, Any]:
        streams = {name: stream.get_state() for name, stream in self._streams.items()}
        return {"of": self._identity, "batches": self._batches, "sources": streams}

    def set_state(self, state: dict[str, Any]) -> None:
        theirs, ours = state["of"], self._identity
        for what in ours | theirs:
            if ours.get(what) != theirs.get(what):
                raise NautileError(
                    f"the data's state is of another run: its {what} is {theirs.get(what)!r}, here {ours.get(what)!r}; "
                    "resume with the recipe, files and processes that it began with"
                )
        self._batches = state["batches"]
        for name, stream in self._streams.items():
            stream.set_state(state["sources"][name])


def _identity(curriculum: Curriculum, share: Share, streams: Collection[_Stream]) -> dict[str, Any]:
    """What a state depends on: where it differs, the same places would hold other tokens."""
    cut = {name: getattr(curriculum, name) for name in ("length", "rows", "layout", "ranks", "seed", "block")}
    weights = {f"weight of {stream.source.name}": stream.source.weight for stream in streams}
    return cut | asdict(share) | {f"source {s.source.name}": _fingerprint(s) for s in streams} | weights


def _fingerprint(stream: _Stream) -> str:
    """Of what a source reads, its files' names and sizes; its weight and the folder they lie in may change."""
    settings = asdict(stream.source) | {"location": stream.source.hub_name, "max_corrupt": None, "weight": None}
    files = [(path.name, path.stat().st_size) for path in stream.reader.files]
    return f"{zlib.crc32(repr((settings, files)).encode()):08x}"
