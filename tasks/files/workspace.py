"""The finished parts of a job, in a folder beside its output: what outlives a kill."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from nautile.errors import NautileError
from nautile.tasks.files.tally import Tally
from nautile.tasks.locks import locked


class Workspace:
    """`<output>.partial/`: `manifest.json`, a `<number>.part` for every finished chunk, and nothing half-written.

    A part is one line of JSON (the tally, its size, the checksum of it all), the bytes of the part, and the
    answers that later parts may need again.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".partial")

    def check(self, source: Path | None, resume: bool, overwrite: bool) -> None:
        """Raise NautileError, before any work, where the output can't be written or would cost something."""
        _check_place(self.output)
        if source is not None and self.output.exists() and self.output.samefile(source):
            raise NautileError(f"{self.output} is the input itself; name another output")
        started = self.folder.exists()
        if started and not self.folder.is_dir():
            raise NautileError(f"{self.folder} is in the way: the unfinished output goes there; move it")
        if started and not (resume or overwrite):
            raise NautileError(
                f"{self.folder} holds an unfinished job; pass --resume to go on with it or --overwrite to start again"
            )
        if self.output.exists() and not (overwrite or (resume and started)):
            over = " and no unfinished job is beside it" if resume else ""
            raise NautileError(f"{self.output} exists already{over}; pass --overwrite to replace it")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep other jobs out of it (where the system can); an empty one is gone in the end.

        Raises NautileError where another job has it.
        """
        self.folder.mkdir(exist_ok=True)
        with locked(self.folder, "another job is writing this output; wait for it, or name another"):
            try:
                for half in self.folder.glob("*.half"):  # of a job that was killed
                    half.unlink()
                yield
            finally:
                with suppress(OSError):
                    self.folder.rmdir()

    def begin(self, job: dict[str, object], rows: int | None) -> None:
        """Start afresh: empty the folder and note what the job is and how many rows it will read, if known."""
        self.folder.mkdir(exist_ok=True)
        self._empty()
        manifest = json.dumps({"job": job, "rows": rows}, indent=1)
        self._write("manifest.json", lambda stream: stream.write(manifest.encode()))

    def started(self, job: dict[str, object]) -> int | None:
        """The number of rows noted by the job to be resumed, None where there is none.

        Raises NautileError that names what differs when `job` isn't the one that was begun.
        """
        path = self.folder / "manifest.json"
        if not path.exists():
            return None
        try:
            manifest = json.loads(path.read_bytes())
            before, rows = dict(manifest["job"]), manifest["rows"]
        except (ValueError, TypeError, KeyError) as error:
            raise NautileError(f"{path} is damaged; pass --overwrite without --resume to start again") from error
        if not isinstance(rows, int):
            raise NautileError(f"{self.folder} was begun from a pipe, which can't be read again; pass --overwrite")
        changed = [name for name in {**before, **job} if before.get(name) != job.get(name)]
        if changed:
            raise NautileError(
                f"{self.folder} can't be resumed: it was begun with another {', '.join(changed)}; "
                "put that back, or pass --overwrite without --resume to start again"
            )
        return rows

    def finished(self, number: int) -> tuple[Tally, bytes] | None:
        """The tally and the answers of a part that is there and whole."""
        path = self._part(number)
        if not path.exists():
            return None
        with path.open("rb") as stream:
            line, rest = stream.readline(), stream.read()
        try:
            told = json.loads(line)
            whole = told.pop("checksum") == _checksum(told, rest)
            return (Tally.from_dict(told["tally"]), rest[told["size"] :]) if whole else None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def keep(self, number: int, part: bytes, tally: Tally, answers: bytes) -> None:
        """Make a part outlive this process and a power cut."""
        told = {"size": len(part), "tally": tally.as_dict()}
        header = json.dumps({**told, "checksum": _checksum(told, part + answers)}).encode() + b"\n"
        self._write(self._part(number).name, lambda stream: stream.writelines((header, part, answers)))

    def publish(self, count: int, join: Callable[[Iterator[bytes], BinaryIO], None]) -> None:
        """Join parts 0 to `count` - 1 and put the result in the output's place in one step."""
        self._write("joined", lambda stream: join(self._parts(count), stream))
        if self.output.exists():
            shutil.copymode(self.output, self.folder / "joined")
        (self.folder / "joined").replace(self.output)
        _sync(self.output.parent)
        self.clear()

    def clear(self) -> None:
        """Remove the folder and what a job has put there; raises NautileError if it holds anything else."""
        if self.folder.exists():
            self._empty()
            self.folder.rmdir()

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            if path.suffix not in (".part", ".half") and path.name not in ("manifest.json", "joined"):
                raise NautileError(f"{path} was not written by a job of ours; move it, then go on")
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == "manifest.json"):
            path.unlink()

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:08d}.part"

    def _parts(self, count: int) -> Iterator[bytes]:
        for number in range(count):
            with self._part(number).open("rb") as stream:
                yield stream.read(json.loads(stream.readline())["size"])

    def _write(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        half = self.folder / f"{name}.{os.getpid()}.half"
        try:
            with half.open("wb") as stream:
                fill(stream)
                stream.flush()
                os.fsync(stream.fileno())
            half.replace(self.folder / name)
        finally:
            half.unlink(missing_ok=True)  # after a full disk or Ctrl-C: half a file helps nobody
        _sync(self.folder)


def _checksum(told: object, content: bytes) -> int:
    return crc32(json.dumps(told).encode() + content)


def _check_place(output: Path) -> None:
    folder = output.parent
    if not folder.is_dir():
        raise NautileError(f"{output}: there is no folder {folder} to write to; make it first")
    if output.exists() and not output.is_file():
        raise NautileError(f"{output} is not a regular file; name one as the output")
    if not os.access(folder, os.W_OK):
        raise NautileError(f"{output}: the folder {folder} can't be written to")


def _sync(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
