"""A head: labels, a linear layer from a text's vector to their logits, and what is known of its probabilities.

A head's folder holds ``head.json`` and ``head.safetensors``; nothing in it is ever unpickled or evaluated.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nautile.engine.words import BUCKETS
from nautile.errors import NautileError, first_line
from nautile.model.places import make_readable
from nautile.tasks.calibrate import Calibration, probabilities
from nautile.tasks.heads.neighbours import Neighbours
from nautile.tasks.kinds import Array, Kind
from nautile.tasks.names import check_labels


@dataclass(frozen=True)
class Head:
    """Logits (N,C) of vectors (N,D); `out_of_scope` names the label, if any, that means "none of the others".

    A `unit` head was fitted to vectors as `to_unit` makes them, and does so itself. One with `words_SC` also looks at
    which words a text holds (`engine/words.py`), one with `neighbours` asks the rows that it learned from
    (`neighbours.py`).
    """

    labels: tuple[str, ...]
    weight_CD: Tensor
    bias_C: Tensor
    kind: Kind = "single"
    calibration: Calibration | None = None
    out_of_scope: str | None = None
    unit: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    words_SC: Tensor | None = None
    neighbours: Neighbours | None = None

    def __post_init__(self) -> None:
        check_labels(self.labels, joined=self.kind == "multi")
        if self.weight_CD.shape[0] != len(self.labels) or self.bias_C.shape != (len(self.labels),):
            raise NautileError(f"a head of {len(self.labels)} labels has weights for {self.weight_CD.shape[0]}")
        if self.words_SC is not None and self.words_SC.shape != (BUCKETS, len(self.labels)):
            shape = tuple(self.words_SC.shape)
            raise NautileError(f"a head of {len(self.labels)} labels has weights of words of shape {shape}")
        if self.neighbours is not None:
            self._check_neighbours(self.neighbours)
        if self.out_of_scope is not None and self.out_of_scope not in self.labels:
            raise NautileError(f"out_of_scope={self.out_of_scope!r} is not one of the labels")

    def _check_neighbours(self, known: Neighbours) -> None:
        rows, width = known.labels_N.numel(), self.weight_CD.shape[1]
        places = known.labels_N.shape == (rows,) and known.rows_ND.shape == (rows, width)
        fit = places and known.mean_D.shape == known.scale_D.shape == (width,)
        if self.kind != "single" or not rows or not fit:
            raise NautileError(f"a {self.kind} head of width {width} has {rows} rows to ask, or of another width")
        if not 0 <= int(known.labels_N.min()) <= int(known.labels_N.max()) < len(self.labels):
            raise NautileError(f"a head of {len(self.labels)} labels has rows to ask of other labels")

    def logits(self, vectors_ND: Tensor, words_NS: Tensor | None = None) -> Array:
        """(N,C), uncalibrated; `words_NS` for a head that looks at words."""
        vectors_ND = to_unit(vectors_ND.float()) if self.unit else vectors_ND.float()
        logits_NC = vectors_ND @ self.weight_CD.float().T + self.bias_C.float()
        if self.words_SC is not None:
            assert words_NS is not None, "this head looks at words: read with words=True"
            logits_NC += torch.sparse.mm(words_NS, self.words_SC.float())
        if self.neighbours is not None:
            logits_NC = self.neighbours.blend(logits_NC, vectors_ND)
        found: Array = logits_NC.double().numpy()
        return found

    def probabilities(self, vectors_ND: Tensor, words_NS: Tensor | None = None) -> Array:
        """(N,C), calibrated where the head is."""
        return probabilities(self.logits(vectors_ND, words_NS), self.kind, self.calibration)

    def save(self, folder: Path) -> None:
        """Write the folder."""
        self.save_weights(folder)
        (folder / "head.json").write_text(self.text, encoding="utf-8")

    def save_weights(self, folder: Path) -> None:
        """Write ``head.safetensors`` alone."""
        folder.mkdir(parents=True, exist_ok=True)
        words_SC = None if self.words_SC is None else self.words_SC.half()
        tensors = {"weight": self.weight_CD, "bias": self.bias_C, "words": words_SC}
        if self.neighbours is not None:
            tensors |= self.neighbours._asdict()
        there = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
        save_file(there, folder / "head.safetensors")
        make_readable(folder)

    @property
    def text(self) -> str:
        """What ``head.json`` holds."""
        return head_text(self.labels, self.kind, self.calibration, self.out_of_scope, self.unit, self.about)


def head_text(
    labels: Sequence[str],
    kind: Kind,
    calibration: Calibration | None,
    out_of_scope: str | None,
    unit: bool,
    about: Mapping[str, Any],
) -> str:
    """The text of ``head.json``; `read_about` reads it."""
    known = {
        "labels": list(labels),
        "kind": kind,
        "out_of_scope": out_of_scope,
        "unit": unit,
        "calibration": None if calibration is None else calibration.model_dump(),
        "about": dict(about),
    }
    return json.dumps(known, indent=1, ensure_ascii=False) + "\n"


def load_head(folder: Path) -> Head:
    """The head of a folder.

    Raises:
        NautileError: files that are missing, damaged or do not fit each other.
    """
    known = read_about(folder)
    try:
        tensors = load_file(folder / "head.safetensors")
        weight_CD, bias_C, words_SC = tensors["weight"], tensors["bias"], tensors.get("words")
        asked = Neighbours(*(tensors[name] for name in Neighbours._fields)) if "rows_ND" in tensors else None
        return Head(weight_CD=weight_CD, bias_C=bias_C, words_SC=words_SC, neighbours=asked, **known)
    except (OSError, KeyError, SafetensorError) as error:
        raise _not_a_head(folder / "head.safetensors", error) from None


def read_about(folder: Path) -> dict[str, Any]:
    """What ``head.json`` says: the fields of a `Head` without its weights.

    Raises:
        NautileError: a file that is missing or damaged.
    """
    try:
        known = json.loads((folder / "head.json").read_text(encoding="utf-8"))
        calibration = known["calibration"]
        return {
            "labels": tuple(known["labels"]),
            "kind": get_args(Kind)[get_args(Kind).index(known["kind"])],
            "out_of_scope": known["out_of_scope"],
            "unit": known["unit"] is True,
            "calibration": None if calibration is None else Calibration.model_validate(calibration),
            "about": dict(known["about"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_a_head(folder / "head.json", error) from None


def _not_a_head(path: Path, error: Exception) -> NautileError:
    reason = first_line(error)
    return NautileError(f"{path}: cannot be read as part of a head ({type(error).__name__}: {reason})")


def linear_head(
    labels: tuple[str, ...],
    weight: np.ndarray | Tensor,
    bias: np.ndarray | Tensor,
    kind: Kind = "single",
    unit: bool = False,
) -> Head:
    """A head of arrays."""
    return Head(labels, torch.as_tensor(weight).float(), torch.as_tensor(bias).float(), kind, unit=unit)


def to_unit(vectors_ND: Tensor) -> Tensor:
    """Vectors of unit mean square; zeros stay.

    The mean over many tokens is shorter than that over few, and so would be all logits of a long text.
    """
    return F.normalize(vectors_ND, dim=-1) * vectors_ND.shape[-1] ** 0.5
