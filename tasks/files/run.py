"""`nautile classify` from its options to its output."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from nautile import __version__
from nautile.errors import NautileError
from nautile.model.places import stamp
from nautile.tasks.files.delimited import Dialect
from nautile.tasks.files.formats import Format, check_kind, format_of
from nautile.tasks.files.job import Job, opened_job, prepared
from nautile.tasks.files.readers import FileSource, Source, TextSource
from nautile.tasks.files.tally import Tally
from nautile.tasks.files.terminal import Preview
from nautile.tasks.files.workspace import Workspace
from nautile.tasks.files.writers import writer_for
from nautile.tasks.progress import Meter
from nautile.tasks.question import BASE, Question
from nautile.tasks.row_judge import RowJudge
from nautile.tasks.sheets import say


def judge_identity(asked: Question, threads: int | None) -> dict[str, object]:
    """All that decides what a judge answers (on a CPU to the last bit): a resumed job must have the same."""
    own = [task.strip() for task in (asked.task or "").split(",")]
    models = [asked.model, BASE, *(task for task in own if Path(task).is_dir())]
    stamps = [found for model in models if model and (found := stamp(model))[1]]
    asked_for = json.loads(json.dumps(dataclasses.asdict(asked)))
    policy = asked_for.pop("policy")
    if asked.precision == "auto" or asked.device != "cpu":
        from nautile.tasks.heads.precision import settled

        asked_for["precision"], asked_for["device"] = settled(asked.precision, asked.device)
    return {
        **asked_for,
        **policy,
        "model files": json.loads(json.dumps(stamps)),
        "threads": threads,
        "nautile": __version__,
    }


@dataclass(frozen=True)
class Request:
    """What the user asked for; see the help of `nautile classify`."""

    input: Path | None = None
    texts: list[str] | None = None
    output: Path | None = None
    column: str | None = None
    format: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    quotes: bool = True
    prefix: str = ""
    limit: int | None = None
    resume: bool = False
    overwrite: bool = False
    quiet: bool = False

    def run(self, load: Callable[[], RowJudge], identity: Mapping[str, object]) -> None:
        """Judge the input with what `load` gives; raises NautileError.

        `identity` says which judge that is; see `judge_identity`.
        """
        source = self._source()
        piped_to = self._format_of_pipe()
        if self.output is None and (self.resume or self.overwrite):
            raise NautileError(f"--{'resume' if self.resume else 'overwrite'} goes with --output FILE")
        output_format = format_of(self.output, written=True) if self.output else None
        workspace = prepared(self.output, source, self.resume, self.overwrite) if self.output else None
        with opened_job(source, load, self.column, self.prefix) as job:
            meter = Meter(visible=sys.stderr is not None and sys.stderr.isatty() and not self.quiet)
            if workspace is not None and output_format is not None:
                tally = self._to_file(job, workspace, output_format, identity, meter)
            elif sys.stdout.isatty():
                tally = self._to_terminal(job, meter)
            else:
                tally = self._to_pipe(job, meter, piped_to)
        if not self.quiet:
            where = f"; written to {self.output}" if self.output else ""
            said = [f"{tally.sentence()}; {meter.rate:,.0f} rows/s{where}", job.judge.remark, job.judge.spared]
            say(Console(stderr=True, highlight=False), "; ".join(filter(None, said)))

    def _source(self) -> Source:
        if (self.input is None) == (self.texts is None):
            raise NautileError("give one input: a file, - for standard input, or --text 'some text'")
        if self.limit is not None and self.limit < 1:
            raise NautileError(f"--limit {self.limit}: give a number of rows from 1 up")
        limit = None if self.limit is None else min(self.limit, sys.maxsize)
        if self.texts is not None:
            return TextSource(self.texts[:limit])
        assert self.input is not None
        piped = str(self.input) == "-"
        kind = Format(check_kind(self.format or "csv")) if piped else format_of(self.input, self.format)
        return FileSource(None if piped else self.input, kind, self.encoding, self._dialect(kind), limit)

    def _dialect(self, format: Format) -> Dialect:
        return Dialect.of(format.kind, self.delimiter, self.quotes)

    def _to_file(
        self, job: Job, workspace: Workspace, format: Format, identity: Mapping[str, object], meter: Meter
    ) -> Tally:
        writer = writer_for(format, self._dialect(format), job.rows.schema, job.results)
        options = {**identity, "column": job.column, "prefix": self.prefix}
        with meter:
            return job.to_file(workspace, writer, options, self.resume, meter)

    def _to_terminal(self, job: Job, meter: Meter) -> Tally:
        preview, total = Preview(job.column, job.shown), Tally()
        with meter:
            for chunk, results, tally in job.stream(meter):
                preview.add(chunk, results)
                total.add(tally)
        preview.show(Console(), total)
        return total

    @property
    def kept(self) -> bool:
        """Whether parts of the output are there that outlive a stop."""
        return self.output is not None and any(Workspace(self.output.resolve()).folder.glob("*.part"))

    def _format_of_pipe(self) -> Format:
        """What goes to standard output where that is no terminal; raises NautileError."""
        if self.output is None and sys.stdout is None:
            raise NautileError("standard output is closed; give --output FILE")
        kind = check_kind(self.format or "csv")
        if kind == "parquet" and not self.output and not sys.stdout.isatty():
            raise NautileError("Parquet can't go through a pipe; name a file with --output, such as out.parquet")
        return Format(kind)

    def _to_pipe(self, job: Job, meter: Meter, format: Format) -> Tally:
        writer = writer_for(format, self._dialect(format), job.rows.schema, job.results)
        total, out = Tally(), sys.stdout.buffer

        def parts() -> Iterator[bytes]:
            for chunk, results, tally in job.stream(meter):
                total.add(tally)
                yield writer.part(chunk, results)
                out.flush()

        with meter, _as_standard_output():
            writer.join(parts(), out)
            out.flush()
        return total


@contextmanager
def _as_standard_output() -> Iterator[None]:
    """Say of a failure to write, which knows no name, where it was."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or "standard output"
        raise
