"""Built-in heads are calibrated on rows of dev splits, which neither they nor the backbone have learned from.

Topic has no dev split: `finetune` calibrates it on rows that each fold's head had not seen.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.console import Console

from nautile.engine.reader import Reader
from nautile.model.checkpoints import load
from nautile.tasks.backbone.heads.rows import emotion_calibration, intent_calibration
from nautile.tasks.backbone.heads.sentiment_data import CALIBRATING, sentiment_calibration
from nautile.tasks.calibrate import calibrate_on
from nautile.tasks.heads.head import Head
from nautile.tasks.labelled import read_labelled


class DevRows(NamedTuple):
    """How to read the rows, and which they are, in words."""

    read: Callable[[Path], pd.DataFrame]
    said: str


CALIBRATION = {
    "sentiment": DevRows(sentiment_calibration, f"of the dev splits of {', '.join(CALIBRATING)}"),
    "emotion": DevRows(emotion_calibration, "of one half of GoEmotions' dev split"),
    "intent": DevRows(intent_calibration, "of one half of CLINC150's dev split"),
}


def calibrated(head: Head, task: str, base: Path, data: Path) -> Head:
    """The head of a task with the calibration that its rows in `data` give, as `base` reads them."""
    held_out = CALIBRATION[task]
    known = read_labelled(held_out.read(data), kind=head.kind, labels=head.labels)
    found = Reader(load(base))(known.texts, words=head.words_SC is not None)
    logits_NC = head.logits(found.vectors_ND, found.words_NS)
    source = f"{len(known.texts):,} rows {held_out.said}"
    fitted = calibrate_on(logits_NC, known.truth, head.kind, source, known.texts)
    Console(stderr=True).print(f"{source}: {fitted.scaling}, ECE {fitted.ece_before:.3f} → {fitted.ece:.3f}")
    return replace(head, calibration=fitted)
