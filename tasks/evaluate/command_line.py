"""`nautile evaluate`: nothing heavy is imported before it runs."""

from collections.abc import Sequence
from enum import StrEnum
from json import dumps, loads
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from nautile.errors import NautileError
from nautile.tasks.evaluate import MOST_RESAMPLES

if TYPE_CHECKING:
    from nautile.tasks.evaluate.results import Summary

_HELP = """Measure a model on labelled rows, and say how sure the figures are.

Shown are accuracy, macro-F1, calibration (ECE) and the accuracy left when
unsure rows get no label, with 95 % bootstrap intervals, and each label's
precision and recall. MODEL is a built-in task, a fine-tuned folder or a
checkpoint. A second model on the same rows is compared by a paired test.

\b
Examples:
  nautile evaluate sentiment reviews.csv                 columns text, label
  nautile evaluate tickets/ test.csv -o report           also JSON, pictures
  nautile evaluate tickets/ test.csv --against older/    which one is better?
  nautile evaluate tickets/ test.csv --baseline tfidf --train train.csv
  nautile evaluate sentiment sst2.jsonl --restrict       two labels of three
  nautile evaluate intent clinc.csv --rename oos=out_of_scope
  nautile evaluate nautile-mini t.csv --labels "refund, shipping"  zero-shot
  nautile evaluate stars/ test.csv --kind ordinal --json > figures.json
  nautile evaluate tickets/ test.csv --precision int8 --against tickets/
"""


Resamples = Annotated[int, Option(min=0, max=MOST_RESAMPLES, help="Bootstrap resamples; 0 for no intervals.")]


class BaselineName(StrEnum):
    """What a model can be compared with, trained on --train."""

    tfidf = "tfidf"
    minilm = "minilm"


class KindName(StrEnum):
    """How a model's labels may be judged."""

    single = "single"
    ordinal = "ordinal"
    multi = "multi"


def evaluate(
    model: Annotated[str, Argument(metavar="MODEL", help="A built-in task, a fine-tuned folder or a checkpoint.")],
    data: Annotated[str, Argument(metavar="FILE", help="Labelled rows: CSV, TSV, JSONL or Parquet.")],
    text: Annotated[str, Option("--text", "-t", help="The column of texts.")] = "text",
    label: Annotated[str, Option("--label", "-l", help="The column of labels.")] = "label",
    separator: Annotated[str, Option(help="Between several labels in one cell.")] = ";",
    encoding: Annotated[str, Option(help="Encoding of text files.")] = "utf-8",
    delimiter: Annotated[str | None, Option(help="Character between CSV cells.")] = None,
    rename: Annotated[list[str] | None, Option(metavar="OLD=NEW", help="The model's name for a label.")] = None,
    task: Annotated[str | None, Option(help="Where MODEL is nautile-mini: which of its tasks.")] = None,
    labels: Annotated[str | None, Option(help="Zero-shot: comma-separated, or a .json or .txt file.")] = None,
    kind: Annotated[KindName | None, Option(help="ordinal: the labels have an order; single: none.")] = None,
    precision: Annotated[str, Option(help="What MODEL reads in: float32, bfloat16, int8 or auto.")] = "float32",
    device: Annotated[str, Option(help="Where MODEL reads: cpu, cuda, cuda:1 ..., or auto.")] = "cpu",
    against: Annotated[str | None, Option(help="A second model to compare with.")] = None,
    baseline: Annotated[list[BaselineName] | None, Option(help="Compare with it; may be repeated.")] = None,
    train: Annotated[str | None, Option(metavar="FILE", help="Labelled rows to train the baselines on.")] = None,
    restrict: Annotated[bool, Option("--restrict", help="Compare only labels that occur in the data.")] = False,
    ignore_unknown: Annotated[bool, Option("--ignore-unknown", help="Leave out rows with unknown labels.")] = False,
    output: Annotated[
        str | None, Option("--output", "-o", metavar="FOLDER", help="For JSON, report and pictures.")
    ] = None,
    resamples: Resamples = 1000,
    seed: Annotated[int, Option(min=0, help="Of the resamples.")] = 0,
    json: Annotated[bool, Option("--json", help="Print JSON in place of tables.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Run `nautile evaluate`; see `nautile.tasks.evaluate.run.evaluate` for what its options mean."""
    from nautile.tasks.evaluate.run import evaluate as run
    from nautile.tasks.question import labels_from

    found = run(
        model,
        data,
        text=text,
        label=label,
        separator=separator,
        encoding=encoding,
        delimiter=delimiter,
        rename=_renamings(rename or ()),
        task=task,
        labels=None if labels is None else labels_from(labels),
        kind=None if kind is None else kind.value,
        precision=precision,
        device=device,
        against=against,
        baselines=[name.value for name in baseline or ()],
        train=train,
        restricted=restrict,
        ignore_unknown=ignore_unknown,
        output=output,
        resamples=resamples,
        seed=seed,
        progress=False if quiet else None,
    )
    if json:
        typer.echo(dumps(loads(found.summary.model_dump_json()), indent=1))  # in ASCII, which any terminal takes
    else:
        _show(found.summary)
    if output is not None:
        typer.echo(f"nautile: wrote {output}: figures.json, report.md, 3 pictures", err=True)


def _renamings(given: Sequence[str]) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in given]
    if odd := [old for old, equals, new in pairs if not (equals and old and new)]:
        raise NautileError(f"--rename {odd[0]}: give OLD=NEW, the data's name of a label and the model's")
    return {old: new for old, _, new in pairs}


def _show(summary: "Summary") -> None:
    from rich.console import Console

    from nautile.tasks.evaluate.report import about
    from nautile.tasks.evaluate.tables import comparison, sheets
    from nautile.tasks.sheets import print_sheet, say

    console = Console(highlight=False)
    say(console, f"{summary.model} on {summary.data}")
    for line in (about(summary.figures), *summary.notes):
        say(console, line)
    first, *rest = sheets(summary.figures)
    for sheet in rest:
        print_sheet(console, sheet)
    print_sheet(console, first)
    for found in summary.comparisons:
        print_sheet(console, comparison(found, summary.figures))
        say(console, found.verdict)


evaluate.__doc__ = _HELP
