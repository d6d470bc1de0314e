"""A fine-tuned model that the estimator owns: the files of its run in memory, read into a model when first used."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nautile.errors import NautileError
from nautile.tasks.calibrate import Calibration
from nautile.tasks.classifier.names import names_of
from nautile.tasks.classifier.targets import Targets
from nautile.tasks.finetune.options import make_options
from nautile.tasks.kinds import Array

if TYPE_CHECKING:
    from nautile.engine.reader import Reader
    from nautile.tasks.heads.head import Head

OURS = (
    "data", "output", "validation", "text", "label", "labels", "separator", "encoding", "delimiter", "kind", "method",
    "base", "config", "overwrite",
)  # fmt: skip

OF_RUN = ("README.md", "report.md", "config.yaml")  # files that name a run's folder, which is gone
OF_CALIBRATED = ("metrics.json",)  # files that tell how calibrated probabilities did


class Tuned:
    """Logits (N,C) from a fine-tuning run's files, by name; pickles and copies as these."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self._ready: tuple[Reader, Head] | None = None

    @classmethod
    def read(cls, folder: Path) -> "Tuned":
        """The files of a folder that are not about this folder, without those in folders below it."""
        files = (path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in OF_RUN)
        return cls({path.name: path.read_bytes() for path in files})

    def uncalibrated(self) -> "Tuned":
        """The same without its calibration, and without the files that tell of it."""
        head = {**json.loads(self.files["head.json"]), "calibration": None}
        files = {name: content for name, content in self.files.items() if name not in OF_CALIBRATED}
        return Tuned({**files, "head.json": (json.dumps(head, indent=1, ensure_ascii=False) + "\n").encode()})

    def write(self, folder: Path) -> None:
        """Write the files into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)

    def logits(self, texts: Sequence[str | None]) -> Array:
        """(N,C), uncalibrated; those of a row without text are the head's bias."""
        import torch

        reader, head = self._model()
        there = [n for n, text in enumerate(texts) if text is not None]
        vectors_ND = torch.zeros(len(texts), reader.model.config.d_model)
        if there:
            vectors_ND[there] = reader([texts[n] or "" for n in there]).vectors_ND
        return head.logits(vectors_ND)

    @property
    def calibration(self) -> Calibration | None:
        """As the run found it on its validation rows."""
        return self._model()[1].calibration

    def _model(self) -> "tuple[Reader, Head]":
        if self._ready is None:
            from nautile.tasks.heads.loading import load_judging

            with TemporaryDirectory(prefix="nautile-", ignore_cleanup_errors=True) as folder:
                self.write(Path(folder))
                self._ready = load_judging(folder)
        return self._ready

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "_ready": None}


def check_options(options: Mapping[str, Any] | None, method: str) -> None:
    """NautileError for options that are the estimator's own or that `finetune` does not know, whatever the method."""
    if options is not None and not isinstance(options, Mapping):
        raise NautileError(f"finetune_options must be a dict of options, not {options!r}")
    if clash := sorted(set(options or {}) & set(OURS)):
        raise NautileError(f"finetune_options holds {clash[0]!r}, which Classifier decides itself; leave it out")
    try:
        make_options({"method": "full" if method == "full" else "lora", **(options or {})})
    except NautileError as error:
        raise NautileError(f"finetune_options: {error}") from None


def tune(
    texts: Sequence[str | None],
    targets: Targets,
    held_out: np.ndarray | None = None,
    *,
    options: Mapping[str, Any] | None,
    **fixed: Any,
) -> Tuned:
    """Fine-tune on the rows, those at `held_out` for validation; rows without text teach nothing.

    `fixed` are options of `finetune` that the estimator decides, `options` those of its user, which come first.
    """
    from nautile.tasks.finetune.run import finetune

    names = names_of(targets)
    frame = pd.DataFrame({"text": texts, "label": _labels(targets, names)})
    held = np.zeros(len(frame), dtype=bool)
    held[held_out if held_out is not None else []] = True
    with TemporaryDirectory(prefix="nautile-", ignore_cleanup_errors=True) as folder:
        given = {"kind": targets.kind, "labels": names, **fixed, **(options or {})}
        validation = frame[held] if held.any() else None
        run = finetune(frame[~held], validation=validation, output=str(Path(folder) / "run"), quiet=True, **given)
        return Tuned.read(run)


def _labels(targets: Targets, names: list[str]) -> list[Any]:
    if targets.form == "class":
        return [names[n] for n in targets.truth_NC.argmax(axis=1)]
    return [[names[n] for n in np.flatnonzero(row)] for row in targets.truth_NC]
