"""The head of sentiment: the layer that learned together with the backbone, calibrated on dev rows it has not seen."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from nautile.engine.reader import Reader
from nautile.model.checkpoints import load
from nautile.model.places import fingerprint
from nautile.tasks.backbone.export import load_student
from nautile.tasks.backbone.heads.sentiment_data import LABELS, Example, read_split
from nautile.tasks.calibrate import calibrate_on
from nautile.tasks.heads.head import linear_head
from nautile.tasks.question import BASE

SETS = ("sst2", "sst5", "imdb", "amazon5", "goemotions")
ROWS = 800  # of each set


def fit_sentiment(run: Path, base: Path, data: Path) -> None:
    """Write `base/heads/sentiment` from a run of the backbone."""
    layer = load_student(run).sentiment
    examples = dev_rows(data)
    head = linear_head(LABELS, layer.weight.detach(), layer.bias.detach(), unit=True)
    texts = [example.text for example in examples]
    logits_NC = head.logits(Reader(load(base))(texts).vectors_ND)
    source = f"{len(examples):,} rows of the dev splits of {', '.join(SETS[:-1])} and {SETS[-1]}"
    fitted = calibrate_on(logits_NC, np.array([example.label for example in examples]), head.kind, source, texts)
    about = {"base": BASE, "base_digest": fingerprint(base), "method": "trained with the backbone"}
    replace(head, calibration=fitted, about=about).save(base / "heads" / "sentiment")
    Console(stderr=True).print(f"{fitted.scaling}, ECE {fitted.ece_before:.3f} → {fitted.ece:.3f}")


def dev_rows(data: Path, sets: Sequence[str] = SETS) -> list[Example]:
    """Random rows of the sets' dev splits, always the same."""
    rng = random.Random(0)
    splits = [list(read_split(data / "sentiment", name, "dev")) for name in sets]
    return [example for rows in splits for example in rng.sample(rows, min(ROWS, len(rows)))]
