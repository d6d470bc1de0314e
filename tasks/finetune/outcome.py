"""What came out of a run: figures of the validation rows, the calibration, and the files that tell them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nautile.tasks.calibrate import FEWEST_ROWS, Calibration, calibrate_on, probabilities
from nautile.tasks.evaluate.plots import confusion_png
from nautile.tasks.evaluate.report import markdown
from nautile.tasks.evaluate.results import Estimate, Figures
from nautile.tasks.evaluate.scores import Judged, figures
from nautile.tasks.finetune.curves import curves_png
from nautile.tasks.finetune.options import Options
from nautile.tasks.finetune.split import Split
from nautile.tasks.heads.head import head_text
from nautile.tasks.kinds import Array

RESAMPLES = 500


@dataclass(frozen=True)
class Training:
    """How it went: updates and the best one, the history of losses and validations, seconds, arithmetic, weights."""

    history: list[dict[str, Any]]
    updates: int = 0
    best_update: int | None = None
    seconds: float = 0.0
    bf16: bool = False
    weights: int | None = None
    training_weights: int | None = None
    adapted_share: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A finished training; without validation rows there are no figures, with fewer than 20 no calibration."""

    options: Options
    split: Split
    training: Training
    calibration: Calibration | None
    judged: Judged | None
    figures: Figures | None
    notes: tuple[str, ...]

    @property
    def learned(self) -> int:
        """How many rows the weights in the folder were trained on."""
        return len(self.split.train.texts) + (len(self.split.valid.texts) if self.options.refit else 0)


def make_outcome(
    options: Options, split: Split, logits_NC: Array, training: Training, notes: tuple[str, ...]
) -> Outcome:
    """Calibrate on the validation rows' logits (N,C) and take their figures."""
    valid, rows = split.valid, len(split.valid.texts)
    calibration = None
    if len(set(valid.texts)) >= FEWEST_ROWS:
        best = "regularisation" if options.method == "head" else "checkpoint"
        said = "each fifth by a head of all other rows" if options.refit else f"on which the best {best} was chosen too"
        source = f"{rows:,} validation rows of its fine-tuning, {said}"
        calibration = calibrate_on(logits_NC, valid.truth, valid.kind, source, valid.texts)
    else:
        few = f"{len(set(valid.texts))} different validation texts are too few to calibrate on"
        notes = (*notes, f"{few}: the probabilities are not calibrated")
    if not rows:
        return Outcome(options, split, training, None, None, None, notes)
    shares_NC = probabilities(logits_NC, valid.kind, calibration)
    judged = Judged(valid.labels, valid.kind, shares_NC, valid.truth, calibration, options.out_of_scope)
    found = figures(judged, RESAMPLES)
    if calibration is not None:
        found = found.model_copy(update={"ece": Estimate(value=calibration.ece), "sets": None})
        said = "ECE is cross-fitted: each fifth of the validation rows scaled as the others say"
        notes = (*notes, f"{said}; how often prediction sets hold the truth, only rows not seen here can tell")
    return Outcome(options, split, training, calibration, judged, found, notes)


def head_json(outcome: Outcome, base_digest: str) -> str:
    """The text of head.json; the digest is of the base's weights, "" for a hub id."""
    options, valid = outcome.options, outcome.split.valid
    about = {
        "base": options.base,
        "base_digest": base_digest,
        "method": options.method,
        "max_length": options.max_length,
        "rows": outcome.learned,
        "validation_rows": len(valid.texts),
        "seed": options.seed,
    }
    unit = options.method == "head"
    return head_text(valid.labels, valid.kind, outcome.calibration, options.out_of_scope, unit, about)


def write_files(outcome: Outcome, folder: Path) -> None:
    """curves.png, metrics.json, and where there was validation confusion.png and report.md."""
    training = outcome.training
    best = training.best_update
    curves_png(training.history, outcome.options, best, folder / "curves.png")
    found = None if outcome.figures is None else json.loads(outcome.figures.model_dump_json())
    known = {name: value for name, value in asdict(training).items() if name != "history"}
    told = {"training": known, "validation": found, "notes": list(outcome.notes)}
    (folder / "metrics.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if outcome.figures is None or outcome.judged is None:
        return
    confusion_png(outcome.judged, folder / "confusion.png")
    title = f"{folder.name}: validation rows"
    (folder / "report.md").write_text(markdown(outcome.figures, title, outcome.notes), encoding="utf-8")
