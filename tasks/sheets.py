"""Tables of a report, as Markdown and on a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console


class Sheet(NamedTuple):
    """A table. Its first column holds names; the others hold figures, set to the right, or with `prose` texts."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    prose: bool = False


def as_markdown(sheet: Sheet) -> str:
    """A heading and the table; what cells hold cannot end them."""
    rule = ["---", *["---" if sheet.prose else "---:"] * (len(sheet.columns) - 1)]
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in (sheet.columns, rule, *sheet.rows)]
    return f"## {_cell(sheet.title)}\n\n" + "\n".join(lines)


def print_sheet(console: "Console", sheet: Sheet) -> None:
    """The title and the table after an empty line; what cells hold cannot style the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(sheet.columns):
        right = place and not sheet.prose
        table.add_column(Text(visible(name), "bold"), justify="right" if right else "left", overflow="fold")
    for row in sheet.rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console.print()
    console.print(Text(visible(sheet.title), "italic"), soft_wrap=True)
    console.print(table)


def say(console: "Console", line: str) -> None:
    """A line as it is: no markup, no control characters, not broken."""
    console.print(visible(line), markup=False, soft_wrap=True)


def visible(text: str) -> str:
    """Blanks in place of characters that cannot be printed."""
    return "".join(char if char.isprintable() else " " for char in text)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
