"""`evaluate`: a model, and what it is compared with, on labelled rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from nautile.errors import NautileError
from nautile.tasks.evaluate.baselines import Baseline, train_baseline
from nautile.tasks.evaluate.checks import (
    FIGURES,
    REPORT,
    check_numbers,
    check_output,
    check_rename,
    check_report,
    check_training,
    make_folder,
)
from nautile.tasks.evaluate.compare import compare
from nautile.tasks.evaluate.contenders import Contender, as_kind, find_contender, in_order
from nautile.tasks.evaluate.plots import confusion_png, coverage_png, reliability_png
from nautile.tasks.evaluate.report import markdown
from nautile.tasks.evaluate.results import Comparison, Figures, Summary
from nautile.tasks.evaluate.rows import judged_rows, keep_known, ordered, renamed, restrict
from nautile.tasks.evaluate.scores import Judged, figures
from nautile.tasks.files.chunks import CHUNK_ROWS
from nautile.tasks.kinds import Kind
from nautile.tasks.labelled import Labelled, Layout, read_labelled
from nautile.tasks.progress import Meter
from nautile.tasks.wording import counted


@dataclass(frozen=True)
class Evaluation:
    """Figures, comparisons and notes (`summary`), and the judged rows they are of."""

    judged: Judged
    summary: Summary

    @property
    def figures(self) -> Figures:
        """The model's."""
        return self.summary.figures

    @property
    def comparisons(self) -> list[Comparison]:
        """One an opponent."""
        return self.summary.comparisons

    @property
    def report(self) -> str:
        """Markdown."""
        title = f"{self.summary.model} on {self.summary.data}"
        return markdown(self.figures, title, self.summary.notes, self.comparisons, pictures=True)

    def save(self, folder: str | Path) -> None:
        """Write figures.json, report.md, confusion.png, reliability.png and coverage.png into a folder.

        Raises:
            NautileError: it cannot be made, or holds a model or files of these names that no evaluation wrote.
        """
        place = Path(folder)
        check_report(place)
        make_folder(place)
        (place / FIGURES).write_text(self.summary.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (place / REPORT).write_text(self.report, encoding="utf-8")
        confusion_png(self.judged, place / "confusion.png")
        reliability_png(self.judged, place / "reliability.png")
        coverage_png(self.judged, place / "coverage.png")


def evaluate(
    model: Any,
    data: Any,
    *,
    text: str = "text",
    label: str = "label",
    separator: str = ";",
    encoding: str = "utf-8",
    delimiter: str | None = None,
    rename: Mapping[str, str] | None = None,
    task: str | None = None,
    labels: Sequence[str] | Mapping[str, str] | None = None,
    kind: Kind | None = None,
    precision: str = "float32",
    device: str = "cpu",
    against: Any = None,
    baselines: Sequence[str] = (),
    train: Any = None,
    restricted: bool = False,
    ignore_unknown: bool = False,
    output: str | Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> Evaluation:
    """Measure a model on labelled rows.

    Args:
        model: a built-in task's name, a fine-tuned folder or checkpoint, a judge, or a fitted estimator of texts.
        data: labelled rows: DataFrame, CSV, TSV, JSONL or Parquet file, Hugging Face dataset.
        text: the column of texts.
        label: the column of labels.
        separator: between several labels in one cell.
        encoding, delimiter: of all text files; the delimiter of CSV is otherwise as the suffix says.
        rename: labels of the data, of `train` or of both, by the names that the model has for them.
        task: the built-in task, where `model` is "nautile-mini".
        labels: choose among these instead, zero-shot.
        kind: "ordinal" to judge a model's labels as ordered, "single" not to.
        precision, device: what `model` reads in and on, see `classify`; what it is compared with reads in float32
            on the CPU.
        against: a second model, named as the first is.
        baselines: "tfidf", "minilm", trained on `train`.
        train: labelled rows for the baselines, with the same columns.
        restricted: compare only labels that occur in the data.
        ignore_unknown: leave out rows whose label a model does not know; otherwise they are an error.
        output: write `Evaluation.save`'s files into this folder.
        resamples: bootstrap resamples, at most 100,000; 0 for no intervals.
        seed: of the resamples.
        progress: show a bar; by default from 2,048 rows on, where standard error is a terminal.

    Raises:
        NautileError: what cannot be read, found or compared.
    """
    check_numbers(kind, resamples, seed)
    check_training(baselines, train)
    check_rename(rename)
    check_output(output)
    first = as_kind(find_contender(model, task, labels, precision, device), kind)
    opponents = [] if against is None else [as_kind(find_contender(against), kind)]
    shown: Kind = "multi" if first.kind == "multi" else "single"
    read = partial(
        read_labelled, text=text, label=label, kind=shown, separator=separator, fewest_labels=1, of_results=False,
        layout=Layout(encoding, delimiter),
    )  # fmt: skip
    rows, *examples = renamed([read(source) for source in ([data] if train is None else [data, train])], rename or {})
    trained, notes = _baselines(baselines, first, rows, examples)
    contenders = [first, *_opponents(first, [*opponents, *trained])]
    rows, left_out = keep_known(rows, contenders, ignore_unknown)
    if output is not None:
        make_folder(Path(output))
    judged, changes = _judge(contenders, rows, restricted, progress)
    summary = Summary(
        model=first.name,
        data=str(data) if isinstance(data, str | Path) else "the data given",
        notes=[*rows.notes, *_order(first), *left_out, *notes, *changes],
        figures=figures(judged[0], resamples, seed),
        comparisons=[
            compare(judged[0], other, (first.name, found.name), figures(other, resamples, seed), resamples, seed)
            for found, other in zip(contenders[1:], judged[1:], strict=True)
        ],
    )
    evaluation = Evaluation(judged[0], summary)
    if output is not None:
        evaluation.save(output)
    return evaluation


def _baselines(
    names: Sequence[str], first: Contender, rows: Labelled, training: Sequence[Labelled]
) -> tuple[list[Contender], list[str]]:
    if not names:
        return [], []
    [examples] = training
    if first.kind == "ordinal":
        examples = ordered(examples, first.labels)
    told = counted(len(examples.texts), "training row")
    notes = [f"baselines: {told}", *(f"training: {note}" for note in examples.notes)]
    if shared := len(set(rows.texts) & set(examples.texts)):
        notes.append(f"the baselines were trained on {counted(shared, 'text')} of these")
    return [train_baseline(cast(Baseline, name), examples) for name in dict.fromkeys(names)], notes


def _order(contender: Contender) -> list[str]:
    """What is said of ordered labels: their order is the model's, which may not know of any."""
    return [f"ordinal, in this order: {' < '.join(contender.labels)}"] if contender.kind == "ordinal" else []


def _opponents(first: Contender, others: list[Contender]) -> list[Contender]:
    for other in others:
        if other.kind != first.kind:
            kinds = f"{first.name} judges as {first.kind}, {other.name} as {other.kind}"
            raise NautileError(f"{kinds}: give kind, or compare with another model")
    return [in_order(other, first.labels) if first.kind == "ordinal" else other for other in others]


def _judge(
    contenders: list[Contender], rows: Labelled, restricted: bool, progress: bool | None
) -> tuple[list[Judged], list[str]]:
    judged, notes = [], []
    many = len(rows.texts) * len(contenders) >= CHUNK_ROWS and Console(stderr=True).is_terminal
    with Meter(visible=many if progress is None else progress) as meter:
        meter.begin(len(rows.texts) * len(contenders))
        for contender in contenders:
            found = contender.measure_all(rows.texts, lambda done: meter.advance(done, judged=True))
            judged.append(judged_rows(contender, rows, found))
    if restricted:
        pairs = [restrict(one) for one in judged]
        judged = [one for one, _ in pairs]
        notes = [f"{who.name}: {note}" for who, (_, note) in zip(contenders, pairs, strict=True) if note]
    return judged, notes
