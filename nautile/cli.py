"""The command line, `nautile`: options in, one line for every error, nothing heavy before a command needs it."""

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from typer import Argument, Option

from nautile import __version__
from nautile.errors import NautileError, Stopped, first_line
from nautile.pretraining.command_line import app as pretrain_app
from nautile.quiet import quiet
from nautile.tasks.bench.command_line import app as bench_app
from nautile.tasks.evaluate.command_line import evaluate
from nautile.tasks.finetune.command_line import finetune

if TYPE_CHECKING:
    from nautile.model.heads import NautileForCausalLM
    from nautile.tasks.row_judge import RowJudge

app = typer.Typer(
    help="Structured judgments from large volumes of text.",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_STOPPED = 130  # the exit code after Ctrl-C
# The base of typer's usage errors, which has no public name.
_USAGE_ERROR = cast(type[typer.BadParameter], typer.BadParameter.mro()[1])

_CLASSIFY = """Label every row of a file, and say how sure each label is.

Every column is kept and rows keep their order. Added are label, confidence,
a probability for each label, windows (in how many parts the text was read)
and note (why a row has no label).

\b
Examples:
  nautile classify reviews.csv -o labelled.csv           the column "text"
  nautile classify posts.parquet -c body -o posts.jsonl  any format to any
  nautile classify big.csv.gz -o big.parquet --resume    on after a stop
  nautile classify a.csv --task sentiment,topic          several judgments
  nautile classify a.csv --task intent --answer-share 0.8   the surest rows
  nautile classify a.csv --labels "refund, shipping, praise"  any labels
  nautile classify --text "I love it"                    one text
  cat a.csv | nautile classify - > b.csv                 through a pipe
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for an error, 130 after Ctrl-C, 141 for a closed pipe."""
    _print_what_can_be()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with quiet():
            code = int(app(given or ["--help"], prog_name="nautile", standalone_mode=False) or 0)
        return _stopped() if code == _STOPPED else code  # typer gives this code for a KeyboardInterrupt
    except Stopped as stop:
        return _stopped(str(stop))
    except typer.Abort:  # typer gives this for an EOFError
        return _fail("an input ended before its time: is the file whole?")
    except _USAGE_ERROR as error:
        said = error.format_message()
        return _fail(f"{said} (nautile --help tells more)") if said else 0  # no arguments: help was shown
    except NautileError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))


def _print_what_can_be() -> None:
    """Let what standard output cannot encode be escaped there, not an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nautile {__version__}")
        raise typer.Exit


Version = Annotated[bool, Option("--version", help="Print the version.", is_eager=True, callback=_print_version)]


@app.callback()
def _options(version: Version = False) -> None:
    pass


@app.command(help=_CLASSIFY)
def classify(
    input: Annotated[str | None, Argument(metavar="FILE", help="CSV, TSV, JSONL or Parquet; - for stdin.")] = None,
    text: Annotated[list[str] | None, Option(help="A text to judge, in place of a file.")] = None,
    output: Annotated[str | None, Option("--output", "-o", metavar="FILE", help="Its suffix is its format.")] = None,
    column: Annotated[str | None, Option("--column", "-c", help="The column of texts (default: text).")] = None,
    task: Annotated[str | None, Option(help="sentiment (default), emotion, intent, topic; or some: a,b.")] = None,
    labels: Annotated[str | None, Option(help="Labels of your own: comma-separated, or a .json or .txt file.")] = None,
    multi_label: Annotated[bool, Option("--multi-label", help="Your labels may hold together.")] = False,
    none_of_these: Annotated[bool, Option("--none-of-these", help="Your labels may all be wrong.")] = False,
    permutations: Annotated[int, Option(help="How many orders of your labels to average over.")] = 1,
    threshold: Annotated[float | None, Option(help="No label below this confidence.")] = None,
    answer_share: Annotated[float | None, Option(help="Label about this share of rows, the surest.")] = None,
    set_coverage: Annotated[float | None, Option(help="Add label sets that hold the truth this often.")] = None,
    detail: Annotated[bool | None, Option(help="Probabilities of each label (default: with one task).")] = None,
    model: Annotated[str | None, Option(help="A fine-tuned folder or a checkpoint, in place of a task.")] = None,
    precision: Annotated[str, Option(help="bfloat16 (often faster), int8 (less memory) or auto.")] = "float32",
    device: Annotated[str, Option(help="cpu, cuda, cuda:1 ..., or auto: a GPU where there is one.")] = "cpu",
    threads: Annotated[int | None, Option(help="CPU threads (default: every core).")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on where a job to this output was stopped.")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the output, drop an unfinished job.")] = False,
    prefix: Annotated[str, Option(help="Put before the name of each result column.")] = "",
    limit: Annotated[int | None, Option(help="Judge the first rows only.")] = None,
    format: Annotated[str | None, Option(help="csv, tsv or jsonl: of stdin, stdout, odd suffixes.")] = None,
    encoding: Annotated[str, Option(help="Encoding of a text file.")] = "utf-8",
    delimiter: Annotated[str | None, Option(help="Character between CSV cells.")] = None,
    no_quotes: Annotated[bool, Option("--no-quotes", help="Quote marks are ordinary characters.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress bar, no summary.")] = False,
) -> None:
    """Run `nautile classify`; see `Request` and `load_judge` for what its options mean."""
    from nautile.tasks.files.run import Request, judge_identity
    from nautile.tasks.names import named
    from nautile.tasks.question import Policy, labels_from, question

    asked = question(
        task,
        model,
        None if labels is None else labels_from(labels),
        multi_label=multi_label,
        none_of_these=none_of_these,
        permutations=permutations,
        policy=Policy(threshold, answer_share, set_coverage, "," not in (task or "") if detail is None else detail),
        precision=precision,
        device=device,
    )

    def load() -> "RowJudge":
        from nautile.tasks.classify import load_judge

        return load_judge(asked, threads)

    request = Request(
        named("the input", input), text or None, named("the output", output), column, format, encoding, delimiter,
        not no_quotes, prefix, limit, resume, overwrite, quiet,
    )  # fmt: skip
    with _stoppable(lambda: "what is done is kept: go on with --resume" if request.kept else ""):
        request.run(load, judge_identity(asked, threads))


app.command()(finetune)
app.command()(evaluate)


class Framework(StrEnum):
    """What `nautile convert` can write."""

    pytorch = "pytorch"
    jax = "jax"


@app.command()
def convert(
    source: Annotated[str, Argument(metavar="SOURCE", help="Released weights, or a checkpoint of either framework.")],
    output: Annotated[Path, Argument(metavar="FOLDER", help="Folder to write: a new or an empty one.")],
    to: Annotated[Framework | None, Option(help="What to write (default: pytorch, which transformers loads).")] = None,
) -> None:
    """Turn the released weights into a checkpoint folder, or a checkpoint folder into the other framework's.

    Every tensor is checked: what is missing, unexpected or of a wrong shape is named. Pickled objects are refused.
    """
    with _stoppable():
        model = _conversion(source, to)(output)
    typer.echo(f"{output}: {model.num_parameters():,} parameters, {model.config.num_layers} layers", err=True)


def _conversion(source: str, to: Framework | None) -> "Callable[[Path], NautileForCausalLM]":
    from nautile.model.checkpoints import convert as convert_released
    from nautile.model.places import read_config

    config = Path(source) / "config.json"
    kind = read_config(config).get("model_type") if config.is_file() else None
    if kind == "nautile" and to is not Framework.jax:
        raise NautileError(f"{source}: a PyTorch checkpoint already; give --to jax to convert it")
    if kind != "nautile-jax" and to is not Framework.jax:
        return partial(convert_released, Path(source))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # no accelerator is needed, one in use would be in the way
    try:
        from nautile.pretraining.convert import convert_to_jax, convert_to_torch
    except ModuleNotFoundError:
        raise NautileError(f'{source}: converting it needs JAX: pip install "nautile[pretraining]"') from None
    return partial(convert_to_jax, source) if to is Framework.jax else partial(convert_to_torch, Path(source))


@app.command()
def doctor() -> None:
    """Say what is installed, what this machine can do, and whether the main job works: paste it into bug reports."""
    from rich.console import Console

    from nautile.tasks.extras import missing
    from nautile.tasks.sheets import print_sheet, say

    try:
        from nautile.tasks.doctor import check_main_job, examine
    except (ImportError, OSError) as error:
        lacks = f"; it lacks {', '.join(missing(''))}" if missing("") else ""
        raise NautileError(f"nautile cannot be loaded ({first_line(error)}){lacks}: pip install nautile") from None
    with _stoppable():
        console = Console(highlight=False)
        print_sheet(console, examine())
        console.print()
        say(console, check_main_job())


app.add_typer(pretrain_app, name="pretrain")
app.add_typer(bench_app, name="bench")


@contextmanager
def _stoppable(hint: "Callable[[], str]" = str) -> Iterator[None]:
    """End without a traceback on Ctrl-C, with what `hint` then says, and when the reader of the output is gone."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(hint()) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None


def _stopped(hint: str = "") -> int:
    typer.echo("; ".join(filter(None, ["nautile: stopped", hint])), err=True)
    return _STOPPED


def _fail(message: str) -> int:
    line = " ".join(message.split())
    typer.echo("nautile: error: " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in line), err=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
