"""Calibrate the sentiment checkpoint on dev rows, which it has not learned from: while it has a backbone of its own.

python -m nautile.tasks.heads.recalibrate DATA nautile/assets/nautile-mini/heads/sentiment
"""

import random
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from nautile.tasks.calibrate import calibrate
from nautile.tasks.heads.loading import load_judging
from nautile.tasks.heads.sentiment_data import Example, read_split

SETS = ("sst2", "sst5", "imdb", "amazon5", "goemotions")
ROWS = 800  # of each set


def dev_rows(data: Path) -> list[Example]:
    """Random rows of the sets' dev splits, always the same."""
    rng = random.Random(0)
    splits = [list(read_split(data / "sentiment", name, "dev")) for name in SETS]
    return [example for rows in splits for example in rng.sample(rows, min(ROWS, len(rows)))]


def main(
    data: Annotated[Path, typer.Argument(help="folder of KIND/NAME/SPLIT.jsonl.xz")],
    folder: Annotated[Path, typer.Argument(help="the checkpoint; its head.json is written")],
) -> None:
    """Write temperature and quantiles into the folder's head.json."""
    examples = dev_rows(data)
    reader, head = load_judging(folder)
    logits_NC = head.logits(reader([example.text for example in examples]).vectors_ND)
    source = f"{len(examples):,} rows of the dev splits of {', '.join(SETS[:-1])} and {SETS[-1]}"
    fitted = calibrate(logits_NC, np.array([example.label for example in examples]), head.kind, source)
    (folder / "head.json").write_text(replace(head, calibration=fitted).text, encoding="utf-8")
    Console().print(f"temperature {fitted.temperature:.2f}, ECE {fitted.ece_before:.3f} → {fitted.ece:.3f}")


if __name__ == "__main__":
    typer.run(main)
