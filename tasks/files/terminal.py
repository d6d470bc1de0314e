"""What a job shows on a terminal: its first rows as a table, and the rows of each label."""

from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nautile.tasks.files.chunks import Chunk
from nautile.tasks.files.tally import Tally
from nautile.tasks.files.values import as_text
from nautile.tasks.files.writers import Results
from nautile.tasks.sheets import visible
from nautile.tasks.wording import counted

_STYLES = {"positive": "green", "negative": "red", "neutral": "yellow"}


class Preview:
    """The first rows of a job, as a table."""

    def __init__(self, column: str, shown: tuple[str, str, str], most: int = 20) -> None:
        """`column` holds the texts; `shown` are the result columns of label, confidence and note."""
        self._column, self._shown, self._most = column, shown, most
        self._rows: list[tuple[str, str, str, str]] = []

    def add(self, chunk: Chunk, results: Results) -> None:
        """Take rows of the chunk while there is room."""
        room = self._most - len(self._rows)
        if room <= 0:
            return
        texts = [as_text(cell) for cell in chunk.values(self._column)[:room]]
        labels, confidences, notes = (results[name] for name in self._shown)
        for text, label, confidence, note in zip(texts, labels, confidences, notes, strict=False):
            share = f"{confidence:.2f}" if isinstance(confidence, float) else ""
            self._rows.append((text, as_text(label), share, as_text(note)))

    def show(self, console: Console, tally: Tally) -> None:
        """Print the rows, how many more there are, and the rows of each label."""
        table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
        table.add_column(_visible(self._column), no_wrap=True, overflow="ellipsis", ratio=1)
        for name, cells in zip(("label", "confidence", "note"), list(zip(*self._rows, strict=True))[1:], strict=False):
            if name != "note" or any(cells):
                width = max(map(len, (name, *cells)))
                table.add_column(
                    name, no_wrap=True, min_width=width, justify="right" if name == "confidence" else "left"
                )
        for text, label, confidence, note in self._rows:
            cells = (_visible(text), Text(visible(label), _STYLES.get(label, "")), confidence, _visible(note))
            table.add_row(*cells[: len(table.columns)])
        console.print(table)
        if more := tally.rows - len(self._rows):
            console.print(f"... and {counted(more, 'more row')}; pass --output to keep them all")
        console.print(_counts(tally.labels, tally.rows))


def _counts(labels: Counter[str], rows: int) -> Text:
    line = Text()
    for label, count in labels.most_common():
        line.append(f"{visible(label)} ", _STYLES.get(label, ""))
        line.append(f"{count:,} ({count / rows:.0%})  ")
    return line


def _visible(text: str, most: int = 500) -> Text:
    return Text(visible(text[:most]))
