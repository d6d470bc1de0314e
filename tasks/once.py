"""A text that comes again in a run is not judged again, and gets the very same answer."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from nautile.tasks.row_judge import RowJudge

MOST = 1 << 17  # values kept, of the newest texts: some 6 MB
KEY = "text"


class Once:
    """A judge with a memory for one run; what its last call added to it can be kept, and learned again.

    Texts are known by their digests. The oldest are forgotten first, whatever was looked up: so the memory depends
    on the rows alone, and a resumed run answers to the last bit as an undisturbed one.
    """

    def __init__(self, judge: RowJudge) -> None:
        self.judge = judge
        self._rows: dict[bytes, tuple[Any, ...]] = {}
        self._added: dict[bytes, tuple[Any, ...]] = {}

    def __call__(self, cells: Sequence[Any], progress: Callable[[int], None]) -> dict[str, list[Any]]:
        """The judge's columns for `cells`."""
        keys = [_key(cell) for cell in cells]
        known = [None if key is None else self._rows.get(key) for key in keys]
        asked = [n for n, row in enumerate(known) if row is None]
        progress(len(cells) - len(asked))
        found = self.judge([cells[n] for n in asked], progress)
        rows = list(zip(*(found[name] for name in self.judge.columns), strict=True))
        answers = dict(zip(asked, rows, strict=True))
        self._add({key: row for n, row in answers.items() if (key := keys[n]) is not None})
        whole = [answers[n] if row is None else row for n, row in enumerate(known)]
        return {name: [row[place] for row in whole] for place, name in enumerate(self.judge.columns)}

    def added(self) -> bytes:
        """What the last call added, as an Arrow stream."""
        columns = list(zip(*self._added.values(), strict=True)) or [()] * len(self.judge.columns)
        types = self.judge.columns.values()
        arrays = [pa.array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
        schema = pa.schema([(KEY, pa.binary()), *((f"{n}", kind) for n, kind in enumerate(types))])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as stream:
            stream.write_table(pa.Table.from_arrays([pa.array(list(self._added), pa.binary()), *arrays], schema=schema))
        return sink.getvalue().to_pybytes()

    def learn(self, added: bytes) -> None:
        """Add what an earlier run kept."""
        keys, *columns = (column.to_pylist() for column in pa.ipc.open_stream(added).read_all().columns)
        self._add(dict(zip(keys, zip(*columns, strict=True), strict=True)))

    def _add(self, rows: dict[bytes, tuple[Any, ...]]) -> None:
        self._added = rows
        self._rows.update(rows)
        surplus = len(self._rows) - MOST // max(1, len(self.judge.columns))
        for key in list(self._rows)[: max(0, surplus)]:
            del self._rows[key]


def _key(cell: Any) -> bytes | None:
    if not isinstance(cell, str):
        return None
    return hashlib.blake2b(cell.encode("utf-8", "surrogatepass"), digest_size=16).digest()
