"""Cells to result columns: every row keeps its place, none is cut without a word, each distinct text is read once."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from nautile.tasks.cells import read_cell

NOTHING: dict[str, Any] = {"windows": 0}  # in rows without a text; None elsewhere
Finished = Callable[[int], None]


class RowJudge(ABC):
    """Result columns for any list of cells; what is asked of a text is the subclass's."""

    @property
    @abstractmethod
    def columns(self) -> dict[str, pa.DataType]:
        """The result's columns, in order, and their types; windows and note are among them."""

    @property
    def main(self) -> tuple[str, str]:
        """The columns of the label that summaries count, and of its confidence."""
        return "label", "confidence"

    @property
    def remark(self) -> str:
        """What a reader of the results must know of their probabilities."""
        return ""

    @property
    def spared(self) -> str:
        """How much reading was spared so far, where that can be told."""
        return ""

    @abstractmethod
    def read(self, texts: Sequence[str], finished: Finished) -> dict[str, list[Any]]:
        """The columns for distinct texts that hold something; `finished` gets the index of each that is done."""

    def __call__(
        self, cells: Sequence[Any], progress: Callable[[int], None] = lambda rows: None
    ) -> dict[str, list[Any]]:
        """The columns of the result, as long as `cells` and in their order; the same for the same list.

        `progress` is called with the number of rows finished since the last call.
        """
        found = [read_cell(cell) for cell in cells]
        repeats = Counter(cell.text for cell in found if cell.text is not None)
        texts = list(repeats)
        place = {text: n for n, text in enumerate(texts)}
        progress(len(found) - repeats.total())
        of_texts = self.read(texts, lambda index: progress(repeats[texts[index]]))
        return {name: self._scattered(name, of_texts[name], found, place) for name in self.columns}

    @staticmethod
    def _scattered(name: str, values: list[Any], cells: Iterable[Any], place: dict[str, int]) -> list[Any]:
        without = (lambda cell: cell.note) if name == "note" else lambda cell: NOTHING.get(name)
        return [without(cell) if cell.text is None else values[place[cell.text]] for cell in cells]
