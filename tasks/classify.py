"""`classify`: labels for the texts of a string, a list, a Series or a DataFrame, on the input's own index."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from nautile.errors import NautileError
from nautile.model.places import Stamp, stamp
from nautile.tasks.analyze import load_panel
from nautile.tasks.frames import judged_frame
from nautile.tasks.heads.loading import KEPT, load_judging, load_task
from nautile.tasks.judge import HeadJudge, Judge
from nautile.tasks.question import BASE, DEFAULT_TASK, Policy, Question, question
from nautile.tasks.row_judge import RowJudge
from nautile.tasks.zero_shot.judge import load_zero_shot


def judge_for(asked: Question) -> Judge:
    """The judge that answers a question.

    Raises:
        NautileError: an unknown task or model, a model without labels, or a policy that it cannot follow.
    """
    if asked.labels is not None:
        return load_zero_shot(asked)
    if asked.model == BASE:
        raise NautileError(f"{BASE} is what the built-in tasks stand on: leave model out, and give a task or labels")
    if asked.model is not None:
        if asked.task is not None:
            raise NautileError(
                f"give task={asked.task!r} or model={asked.model!r}, not both: a model has its own labels"
            )
        return HeadJudge(*load_judging(asked.model, asked.precision, asked.device), asked.policy)
    return HeadJudge(*load_task(asked.task or DEFAULT_TASK, asked.precision, asked.device), asked.policy)


@lru_cache(maxsize=KEPT)
def _cached_judge(asked: Question, stamp: Stamp) -> Judge:
    """A judge stays as long as the files of its model do."""
    return judge_for(asked)


def load_judge(asked: Question | None = None, threads: int | None = None) -> RowJudge:
    """As `judge_for`, with torch's number of threads set; several tasks, comma-separated, are judged together."""
    if threads is not None:
        if threads < 1:
            raise NautileError(f"threads must be at least 1, not {threads}")
        torch.set_num_threads(threads)
    asked = asked or question()
    if asked.task is not None and "," in asked.task:
        plain = question(
            asked.task, policy=Policy(detail=asked.policy.detail), precision=asked.precision, device=asked.device
        )
        if asked != plain:
            raise NautileError("several tasks go without model, threshold, answer_share and set_coverage")
        tasks = [task.strip() for task in asked.task.split(",")]
        return load_panel(tasks, asked.policy.detail, asked.precision, asked.device)
    return judge_for(asked)


def classify(
    texts: str | Iterable[Any] | pd.Series | pd.DataFrame,
    column: str | None = None,
    *,
    task: str | None = None,
    labels: Iterable[str] | Mapping[str, str] | None = None,
    multi_label: bool = False,
    none_of_these: bool = False,
    permutations: int = 1,
    threshold: float | None = None,
    answer_share: float | None = None,
    set_coverage: float | None = None,
    detail: bool = True,
    model: str | Path | None = None,
    precision: str = "float32",
    device: str = "cpu",
    progress: bool | None = None,
) -> pd.DataFrame:
    """Label each text.

    Args:
        texts: one string, any iterable of strings, a Series, or a DataFrame with `column`.
        column: the DataFrame's column that holds the texts.
        task: a built-in task: "sentiment" (the default), "emotion", "intent" or "topic".
        labels: any labels instead of a task (zero-shot): a list of names, or names with descriptions.
        multi_label: zero-shot labels may hold together; `label` joins them by "; ".
        none_of_these: "none of these" is a possible answer.
        permutations: average over so many orders of the labels, up to 1,000, at most all there are; `agreement` then
            says how many agree with the answer.
        threshold: a row below this confidence gets no label; with several labels a text: each label's own threshold.
        answer_share: answer about this share of rows, the surest ones; needs a calibrated model.
        set_coverage: add `set`, labels that hold the truth in this share of rows like those that the model was
            calibrated on; needs a calibrated model.
        detail: a probability column a label; False where there are many.
        model: a fine-tuned folder or a checkpoint with labels in place of a task; with `labels` the base to use.
        precision: "bfloat16" reads faster where the processor multiplies such numbers; seldom is a label another.
            "int8" (extra int8) is bfloat16 with linear layers' weights in a byte each: less memory, not more speed.
            "auto": bfloat16 where it is faster, else float32.
        device: "cpu", "cuda", "cuda:1" and so on, or "auto": a GPU where torch sees one.
        progress: show a bar; by default from 1,000 texts on, where standard error is a terminal.

    Returns:
        A DataFrame on the input's index: `label`, `confidence`, one probability column a label, for zero-shot
        `legal_mass`, `windows` (how many windows the text was read in; more than one for a long text), and `note`. A
        row that holds no text keeps its place, without label, and `note` says why. `attrs["remark"]` says whether the
        probabilities are calibrated, and on what.

    Raises:
        NautileError: an unknown task, model or column, or options that clash.
    """
    policy = Policy(threshold, answer_share, set_coverage, detail)
    choice = {"multi_label": multi_label, "none_of_these": none_of_these, "permutations": permutations}
    asked = question(task, model, labels, **choice, policy=policy, precision=precision, device=device)
    return judged_frame(_cached_judge(asked, stamp(asked.model or BASE)), texts, column, progress)
