"""`nautile classify` on a file of short rows, some of which repeat others: rows/s, memory, where time goes."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from nautile.tasks.bench.speed.models import body_bytes, token_flops
from nautile.tasks.bench.speed.session import Case, Session, Work
from nautile.tasks.bench.speed.texts import texts, with_repeats
from nautile.tasks.bench.speed.timing import clock_of, ratio
from nautile.tasks.classify import judge_for
from nautile.tasks.files.run import Request, judge_identity
from nautile.tasks.judge import HeadJudge
from nautile.tasks.question import question

TINY_ROWS = 60
REPEATED = 0.3  # of the rows
WORDS = (3, 9)
NAME = "nautile classify"
DTYPE = "float32"  # what the command computes in


def rows(session: Session) -> None:
    """A CSV file to a CSV file, with the default task, whose model is loaded before."""
    count = TINY_ROWS if session.settings.tiny else session.settings.rows
    asked = question(device=str(session.device))
    judge = judge_for(asked)
    assert isinstance(judge, HeadJudge)
    model, distinct = judge.reader.model, texts(max(1, round(count * (1 - REPEATED))), *WORDS)
    tokens = sum(map(len, judge.reader.vocabulary.encode_batch(distinct)))
    identity, inside = judge_identity(asked, session.settings.threads), list[float]()
    case = Case("rows", f"{count:,} rows, {REPEATED:.0%} repeated", DTYPE, "row")
    with TemporaryDirectory() as folder, stopwatch(model, inside, clock_of(session.device)):
        source = write_rows(Path(folder) / "rows.csv", with_repeats(distinct, count))
        request = Request(source, output=Path(folder) / "judged.csv", overwrite=True, quiet=True)

        def job() -> None:
            inside.append(0.0)
            request.run(lambda: judge, identity)

        work = Work(job, count, tokens * token_flops(model), body_bytes(model))
        whole = session.compare(case, {NAME: work}, [])[NAME].seconds
        outside = [all_ - model for all_, model in zip(whole, inside[1:], strict=True)]
        session.note_ratio(case, "s", "time outside the model", "all time", ratio(outside, whole))
        session.compare_peaks(case, {NAME: work}, [])


@contextmanager
def stopwatch(module: nn.Module, laps: list[float], clock: Callable[[], float]) -> Iterator[None]:
    """Add the seconds that each call of the module takes to the last of `laps`."""
    started: list[float] = []

    def begin(*call: object) -> None:
        started.append(clock())

    def end(*call: object) -> None:
        laps[-1] += clock() - started.pop()

    hooks = [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def write_rows(path: Path, texts: Sequence[str]) -> Path:
    """A CSV file with the columns id and text."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
    return path
