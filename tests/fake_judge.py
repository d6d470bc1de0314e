"""The command line with a judge that needs no model: `python fake_judge.py classify ...`.

FAKE_SECONDS makes it slow; FAKE_LOG names a file that gets a line for every call, with the number of rows judged.
"""

import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

LABELS = ("negative", "neutral", "positive")


class FakeJudge:
    """Labels a text by its length; a window holds 1,000 characters."""

    remark = ""
    spared = ""
    main = ("label", "confidence")

    columns: ClassVar = {
        "label": pa.string(),
        "confidence": pa.float64(),
        **dict.fromkeys(LABELS, pa.float64()),
        "windows": pa.int64(),
        "note": pa.string(),
    }

    def __call__(self, texts: list[object], progress: Callable[[int], None], /) -> dict[str, list[Any]]:
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        if "FAKE_LOG" in os.environ:
            with Path(os.environ["FAKE_LOG"]).open("a") as log:
                log.write(f"{len(texts)}\n")
        progress(len(texts))
        rows = [self._row(text) for text in texts]
        return {name: [row[place] for row in rows] for place, name in enumerate(self.columns)}

    def _row(self, text: object) -> tuple[Any, ...]:
        if not isinstance(text, str) or not text:
            note = "empty text" if text == "" else "missing" if text is None else "not text"
            return (None, None, None, None, None, 0, note)
        text.encode()
        shares = [1 / 3, 1 / 7, 1 - 1 / 3 - 1 / 7]
        best = LABELS[len(text) % 3]
        return (best, max(shares), *shares, 1 + len(text) // 1000, "")


def module() -> types.ModuleType:
    """What stands in for `nautile.tasks.classify`."""
    fake = types.ModuleType("nautile.tasks.classify")
    fake.load_judge = lambda *options: FakeJudge()  # type: ignore[attr-defined]
    return fake


if __name__ == "__main__":
    sys.modules["nautile.tasks.classify"] = module()
    from nautile.cli import main

    sys.exit(main())
