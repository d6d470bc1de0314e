"""Parquet, read a chunk at a time with the schema it has."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nautile.errors import NautileError
from nautile.tasks.files.chunks import CHUNK_CHARACTERS, CHUNK_ROWS, TableChunk


@contextmanager
def read_parquet(path: Path, limit: int | None) -> Iterator[tuple[pa.Schema, Iterator[TableChunk]]]:
    """The schema and the chunks of a Parquet file; raises NautileError where it is damaged."""
    try:
        file = pq.ParquetFile(path, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise NautileError(f"{path} is not a whole Parquet file ({error})") from error
    with file:
        schema = file.schema_arrow
        twice = [name for name in schema.names if schema.names.count(name) > 1]
        if twice:
            raise NautileError(f"{path}: the column {twice[0]!r} is there more than once; rename one of them")
        yield schema, _limited(_batches(file, path), limit)


def _batches(file: pq.ParquetFile, path: Path) -> Iterator[pa.RecordBatch]:
    try:
        for batch in file.iter_batches(_batch_rows(file.metadata), use_threads=False):
            batch.validate(full=True)
            yield from _halved(_trimmed(batch))
    except (pa.ArrowException, OSError) as error:
        raise NautileError(f"{path} is damaged ({error})") from error


def _batch_rows(metadata: pq.FileMetaData) -> int:
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1.0)
    return int(min(CHUNK_ROWS, max(1, CHUNK_CHARACTERS // max(widest, 1))))


def _trimmed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows; a categorical column holds only the categories that they use, in their order.

    Each batch comes with the whole list, which may be millions of times as long as the batch.
    """
    for place, column in enumerate(batch.columns):
        if isinstance(column, pa.DictionaryArray) and len(column.dictionary) > len(column):
            used = pc.unique(column.indices).drop_null().sort()
            indices = pc.index_in(column.indices, used).cast(column.type.index_type)
            column = pa.DictionaryArray.from_arrays(indices, column.dictionary.take(used), ordered=column.type.ordered)
            batch = batch.set_column(place, batch.schema.field(place), column)
    return batch


def _halved(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.num_rows < 2 or batch.nbytes <= CHUNK_CHARACTERS:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _halved(batch.slice(0, half))
    yield from _halved(batch.slice(half))


def _limited(batches: Iterator[pa.RecordBatch], limit: int | None) -> Iterator[TableChunk]:
    left = limit
    for batch in batches:
        if left is not None:
            batch = batch.slice(0, left)
            left -= batch.num_rows
        if batch.num_rows:
            yield TableChunk(pa.Table.from_batches([batch]))
        if left == 0:
            return
