"""One judgment a text, of a head or of anything that measures how well labels fit."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from nautile.engine.reader import Reader
from nautile.tasks.calibrate import Calibration
from nautile.tasks.decide import check_policy, decide
from nautile.tasks.heads.head import Head
from nautile.tasks.kinds import Array, Kind
from nautile.tasks.question import Policy
from nautile.tasks.row_judge import Finished, RowJudge


class Measured(NamedTuple):
    """Of each text: probabilities (N,C), how many windows it was read in, and what else a judge has to say."""

    probabilities_NC: Array
    windows: list[int]
    more: dict[str, list[float]]


def calibrated(calibration: Calibration | None) -> str:
    """How far probabilities can be trusted, in words."""
    if calibration is None:
        return "probabilities are not calibrated"
    return f"calibrated on {calibration.source}: ECE {calibration.ece:.3f}"


class Judge(RowJudge):
    """One judgment a text: label, confidence, a probability a label, and what the policy adds."""

    def __init__(self, labels: Sequence[str], kind: Kind, calibration: Calibration | None, policy: Policy) -> None:
        check_policy(policy, kind, calibration)
        self.labels, self.kind, self.calibration, self.policy = tuple(labels), kind, calibration, policy
        self.alone: int | None = None  # the label, if any, that is never given with others

    @abstractmethod
    def judge(self, texts: Sequence[str], finished: Finished) -> Measured:
        """Measure distinct texts."""

    def measure(self, texts: Sequence[str]) -> Array:
        """Probabilities (N,C) of texts, in their order, repeats allowed."""
        place = {text: n for n, text in enumerate(dict.fromkeys(texts))}
        found = self.judge(list(place), lambda index: None).probabilities_NC
        chosen: Array = found[np.array([place[text] for text in texts], dtype=int)]
        return chosen

    @property
    def more(self) -> tuple[str, ...]:
        """The names in `Measured.more`."""
        return ()

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """`label` (several are joined by "; "), `confidence`, the labels, `set` if asked for, `windows`, `note`."""
        numbers = dict.fromkeys((*(self.labels if self.policy.detail else ()), *self.more), pa.float64())
        sets = {} if self.policy.set_coverage is None else {"set": pa.string()}
        ends = {"windows": pa.int64(), "note": pa.string()}
        return {"label": pa.string(), "confidence": pa.float64(), **numbers, **sets, **ends}

    @property
    def remark(self) -> str:
        """How far the probabilities can be trusted."""
        return calibrated(self.calibration)

    def read(self, texts: Sequence[str], finished: Finished) -> dict[str, list[Any]]:
        """The columns for distinct texts."""
        measured = self.judge(texts, finished)
        decided = decide(measured.probabilities_NC, self.labels, self.kind, self.calibration, self.policy, self.alone)
        numbers = {label: measured.probabilities_NC[:, n].tolist() for n, label in enumerate(self.labels)}
        sets = {} if decided.sets is None else {"set": decided.sets}
        return {
            "label": decided.label,
            "confidence": decided.confidence,
            **numbers,
            **measured.more,
            **sets,
            "windows": measured.windows,
            "note": decided.note,
        }


class HeadJudge(Judge):
    """A head on what a reader reads."""

    def __init__(self, reader: Reader, head: Head, policy: Policy | None = None) -> None:
        super().__init__(head.labels, head.kind, head.calibration, policy or Policy())
        self.reader, self.head = reader, head

    def judge(self, texts: Sequence[str], finished: Finished) -> Measured:
        """Read, then apply the head."""
        found = self.reader(texts, finished=finished, words=self.head.words_SC is not None)
        return Measured(self.head.probabilities(found.vectors_ND, found.words_NS), found.windows, {})
