"""A classification job over a source of rows: to a file that survives a kill, or row by row to whoever asks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from nautile.engine.memory import give_back_pages
from nautile.errors import NautileError
from nautile.tasks.files.chunks import CHUNK_CHARACTERS, CHUNK_ROWS, Chunk
from nautile.tasks.files.readers import Rows, Source
from nautile.tasks.files.tally import Tally, tally_of
from nautile.tasks.files.values import mended
from nautile.tasks.files.workspace import Workspace
from nautile.tasks.files.writers import Results, Writer
from nautile.tasks.once import Once
from nautile.tasks.row_judge import RowJudge


class Watcher(Protocol):
    """Is told how far a job is."""

    def check(self, rows: int) -> None:
        """So many more rows of the input have been found to be in order."""

    def begin(self, total: int | None) -> None:
        """Judging begins; `total` rows, where they could be counted."""

    def advance(self, rows: int, judged: bool) -> None:
        """So many more rows are done, judged now or (when False) before the job was resumed."""


@dataclass(frozen=True)
class Job:
    """An open source, the judge, and which column it reads."""

    source: Source
    rows: Rows
    judge: RowJudge
    column: str
    prefix: str = ""

    @property
    def results(self) -> dict[str, pa.DataType]:
        """The result columns under the names they have in the output."""
        return {self.prefix + name: kind for name, kind in self.judge.columns.items()}

    @property
    def shown(self) -> tuple[str, str, str]:
        """The output's columns of label, confidence and note."""
        label, confidence = self.judge.main
        return self.prefix + label, self.prefix + confidence, self.prefix + "note"

    def stream(self, watcher: Watcher) -> Iterator[tuple[Chunk, Results, Tally]]:
        """Judge chunk by chunk, after the source was checked to its end if it can be read twice."""
        watcher.begin(self._checked(watcher))
        once = Once(self.judge)
        for chunk in self.rows.chunks:
            yield chunk, *self._judged(chunk, once, watcher)

    def to_file(
        self, workspace: Workspace, writer: Writer, options: Mapping[str, object], resume: bool, watcher: Watcher
    ) -> Tally:
        """Judge what is not judged yet, keep every chunk as it is done, and put the whole in the output's place.

        `options` are all that besides the source decides the output; a resumed job must have the same.
        Raises NautileError when they differ, when the input changes meanwhile, and where another job has the output.
        """
        with workspace.held():
            return self._to_held(workspace, writer, options, resume, watcher)

    def _to_held(
        self, workspace: Workspace, writer: Writer, options: Mapping[str, object], resume: bool, watcher: Watcher
    ) -> Tally:
        before = self.source.fingerprint()
        identity = {**before, **options, "chunk limits": [CHUNK_ROWS, CHUNK_CHARACTERS]}
        total = workspace.started(identity) if resume else None
        if total is None:
            total = self._checked(watcher)
            workspace.begin(identity, total)
        watcher.begin(total)
        done, count, once = Tally(), 0, Once(self.judge)
        try:
            for chunk in self.rows.chunks:
                done.add(self._part(count, chunk, once, workspace, writer, watcher))
                count += 1
            if self.source.fingerprint() != before or done.rows != (done.rows if total is None else total):
                raise NautileError(f"{self.source.name} changed while it was read; start again with --overwrite")
            workspace.publish(count, writer.join)
        finally:
            if not self.source.repeatable:
                workspace.clear()
        return done

    def _checked(self, watcher: Watcher) -> int | None:
        if not self.source.repeatable:
            return None
        total = 0
        with self.source.open() as rows:
            for chunk in rows.chunks:
                total += len(chunk)
                watcher.check(len(chunk))
        return total

    def _part(
        self, number: int, chunk: Chunk, once: Once, workspace: Workspace, writer: Writer, watcher: Watcher
    ) -> Tally:
        kept = workspace.finished(number)
        if kept is None:
            results, tally = self._judged(chunk, once, watcher)
            workspace.keep(number, writer.part(chunk, results), tally, once.added())
        else:
            tally, answers = kept
            once.learn(answers)
            watcher.advance(len(chunk), judged=False)
        assert tally.rows == len(chunk), f"part {number} has {tally.rows} rows, the input {len(chunk)}"
        return tally

    def _judged(self, chunk: Chunk, once: Once, watcher: Watcher) -> tuple[Results, Tally]:
        texts = [mended(cell) if isinstance(cell, str) else cell for cell in chunk.values(self.column)]
        found = once(texts, lambda rows: watcher.advance(rows, judged=True))
        columns = {name: found[name] for name in self.judge.columns}
        assert all(len(values) == len(chunk) for values in columns.values()), "the judge lost or added a row"
        label, agreement = columns[self.judge.main[0]], columns.get("agreement", [])
        tally = tally_of(label, columns["windows"], columns["note"], chunk.broken, agreement, chunk.nuls)
        give_back_pages()
        return {self.prefix + name: values for name, values in columns.items()}, tally


@contextmanager
def opened_job(source: Source, load: Callable[[], RowJudge], column: str | None, prefix: str) -> Iterator[Job]:
    """Open the source, settle its text column, and only then load the judge.

    Raises NautileError for a column that isn't there and for result columns that the input has already.
    """
    with source.open() as rows:
        text = _text_column(rows.columns, column, source.name)
        job = Job(source, rows, load(), text, prefix)
        taken = [name for name in job.results if name in rows.columns]
        if taken:
            raise NautileError(
                f"{source.name} has a column {taken[0]!r} already; give the results another name, "
                f"such as --prefix {'pred_' if prefix != 'pred_' else 'nautile_'}"
            )
        yield job


def prepared(output: Path, source: Source, resume: bool, overwrite: bool) -> Workspace:
    """The workspace of a job, once it is sure that its output can be written; raises NautileError otherwise."""
    if resume and not source.repeatable:
        raise NautileError(f"--resume needs a file to read again, and {source.name} is not one; save the input first")
    workspace = Workspace(output.resolve())
    workspace.check(source.path, resume, overwrite)
    return workspace


def _text_column(columns: Sequence[str], wanted: str | None, name: str) -> str:
    column = wanted if wanted is not None else columns[0] if len(columns) == 1 else "text"
    if column not in columns:
        listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
        raise NautileError(f"{name} has no column {column!r}; pass --column with one of: {listed}")
    return column
