from collections import Counter

import pytest
from rich.console import Console

from nautile.tasks.files.chunks import ListChunk
from nautile.tasks.files.tally import Tally
from nautile.tasks.files.terminal import Preview

LONG = "a very long review " * 30


def printed(texts: list[str], notes: list[str], width: int) -> list[str]:
    labels = [None if note else "positive" for note in notes]
    preview = Preview("review", ("label", "confidence", "note"))
    results = {"label": labels, "confidence": [None if note else 0.875 for note in notes], "note": notes}
    preview.add(ListChunk(["review"], [[text] for text in texts]), results)
    console = Console(record=True, width=width, quiet=False, file=None, force_terminal=False)
    with console.capture() as capture:
        preview.show(console, Tally(rows=len(texts), labels=Counter(["positive"] * len(texts))))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_long_texts_are_shortened_so_that_labels_stay_readable(width: int) -> None:
    lines = printed([LONG, "short", ""], ["", "", "empty text"], width)
    assert lines[0].split() == ["review", "label", "confidence", "note"]
    assert lines[1].rstrip().endswith("positive        0.88")
    assert "…" in lines[1]
    assert lines[3].rstrip().endswith("empty text")
    assert all(len(line) <= width for line in lines[:4])


def test_the_note_column_is_there_only_when_something_is_noted() -> None:
    assert printed(["fine"], [""], 80)[0].split() == ["review", "label", "confidence"]


def test_a_table_without_rows_has_its_header() -> None:
    assert printed([], [], 80)[0].split()[0] == "review"


def test_labels_cannot_style_the_terminal() -> None:
    preview, label = Preview("review", ("label", "confidence", "note")), "odd\x1b[2J"
    preview.add(ListChunk(["review"], [["fine"]]), {"label": [label], "confidence": [0.875], "note": [""]})
    console = Console(width=80)
    with console.capture() as capture:
        preview.show(console, Tally(rows=1, labels=Counter([label])))
    assert capture.get().count("odd [2J") == 2
