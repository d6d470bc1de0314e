"""Writing rows: every cell of any input is in every output, with its type where the output has types."""

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from copying import RESULTS, SHARE, copied, read, source_of
from hypothesis import given
from hypothesis import strategies as st

from nautile.tasks.files.chunks import CHUNK_ROWS
from nautile.tasks.files.parquet import read_parquet
from nautile.tasks.files.values import as_json, as_text, has_halves, mended

writable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8).filter(lambda n: n not in RESULTS)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    """Column names, and rows of strings."""
    columns = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    row = st.lists(writable, min_size=len(columns), max_size=len(columns))
    return columns, draw(st.lists(row, min_size=1, max_size=12))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "csv.gz", "tsv.bz2", "jsonl.xz"])
@given(table=tables())
def test_every_cell_of_any_csv_is_in_every_format(folder: Path, suffix: str, table: Any) -> None:
    columns, rows = table
    source, target = folder / "any.csv", folder / f"any.{suffix}"
    with source.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([columns, *rows])
    copied(source, target)
    share = SHARE if suffix.startswith(("jsonl", "parquet")) else repr(SHARE)
    assert read(target) == ([*columns, *RESULTS], [[*row, "yes", share] for row in rows])


@given(rows=st.lists(st.tuples(json_values, json_values), min_size=1, max_size=9))
def test_json_lines_come_back_as_they_were(folder: Path, rows: list[tuple[object, object]]) -> None:
    source, target = folder / "values.jsonl", folder / "copy.jsonl"
    source.write_text("\n".join(json.dumps({"a": a, "text": b}) for a, b in rows))
    copied(source, target)
    back = [json.loads(line) for line in target.read_text("utf-8").split("\n")[:-1]]
    assert [(row["a"], row["text"]) for row in back] == rows
    assert {tuple(row) for row in back} == {("a", "text", "pred", "share")}


def test_half_a_surrogate_pair_stays_an_escape_in_json_and_is_replaced_elsewhere(folder: Path) -> None:
    source = folder / "half.jsonl"
    source.write_text('{"text": "a\\ud83d!", "whole": "\\ud83d\\ude00"}\n{"text": "b", "whole": null}\n')
    with source_of(source).open() as rows:
        assert [chunk.broken for chunk in rows.chunks] == [1]
    for suffix in ("jsonl", "csv", "parquet"):
        copied(source, folder / f"half_out.{suffix}")
    assert read(folder / "half_out.jsonl")[1][0][:2] == ["a\ud83d!", "\U0001f600"]
    assert read(folder / "half_out.csv")[1][0][:2] == ["a\ufffd!", "\U0001f600"]
    assert read(folder / "half_out.parquet")[1][0][:2] == ["a\ufffd!", "\U0001f600"]


@given(st.text(st.characters()))
def test_mended_text_can_be_encoded_and_differs_only_where_it_could_not(text: str) -> None:
    assert len(mended(text).encode().decode()) == len(text)
    assert all(new in (old, "\ufffd") for old, new in zip(text, mended(text), strict=True))
    assert (mended(text) != text) == has_halves(text)


def test_parquet_keeps_its_types_its_index_and_its_metadata(folder: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": pd.Categorical(["a", "b", "a"]),
            "when": pd.to_datetime(["2024-01-02T03:04:05", None, "1999-01-01T00:00:00"]).tz_localize("UTC"),
            "list": [[1, 2], [], None],
            "money": [decimal.Decimal("1.10"), None, decimal.Decimal("2.00")],
            "raw": [b"\xff", b"", None],
            "share": [1.5, float("nan"), None],
        },
        index=pd.Index([7, 8, 9], name="key"),
    ).rename(columns={"share": "part"})
    frame.to_parquet(folder / "types.parquet")
    copied(folder / "types.parquet", folder / "types_out.parquet")
    before, after = pq.read_table(folder / "types.parquet"), pq.read_table(folder / "types_out.parquet")
    assert after.select(before.column_names).equals(before)
    assert after.schema.remove(len(after.schema) - 1).remove(len(before.schema)).equals(before.schema)
    assert after.schema.metadata == before.schema.metadata
    assert list(pd.read_parquet(folder / "types_out.parquet").index) == [7, 8, 9]


def test_parquet_values_have_a_text_in_csv_and_json(folder: Path) -> None:
    table = pa.table(
        {
            "text": ["a", None],
            "when": pa.array([datetime.datetime(2024, 1, 2, 3, 4, 5), None]),
            "raw": [b"\xff", None],
            "nested": [{"x": [1, None]}, None],
            "number": [float("nan"), 2.5],
            "flag": [True, False],
        }
    )
    pq.write_table(table, folder / "mixed.parquet")
    for suffix in ("csv", "jsonl"):
        copied(folder / "mixed.parquet", folder / f"mixed.{suffix}")
    assert [row[:6] for row in read(folder / "mixed.csv")[1]] == [
        ["a", "2024-01-02T03:04:05", "/w==", '{"x": [1, null]}', "nan", "true"],
        ["", "", "", "", "2.5", "false"],
    ]
    assert [row[:6] for row in read(folder / "mixed.jsonl")[1]] == [
        ["a", "2024-01-02T03:04:05", "/w==", {"x": [1, None]}, None, True],
        [None, None, None, None, 2.5, False],
    ]


def test_json_values_become_json_text_in_parquet_and_null_stays_null(folder: Path) -> None:
    source, target = folder / "kinds.jsonl", folder / "kinds.parquet"
    source.write_text('{"text": "a", "n": 1.50}\n{"text": null, "n": [true, "é"]}\n{"text": 5}\n')
    copied(source, target)
    assert pq.read_table(target).select(["text", "n"]).to_pylist() == [
        {"text": "a", "n": "1.5"},
        {"text": None, "n": '[true, "é"]'},
        {"text": "5", "n": None},
    ]


@pytest.mark.parametrize(("suffix", "opener"), [("gz", gzip.open), ("bz2", bz2.open), ("xz", lzma.open)])
def test_compressed_files_are_ordinary_ones_and_always_the_same_bytes(folder: Path, suffix: str, opener: Any) -> None:
    packed = folder / f"packed.csv.{suffix}"
    with opener(packed, "wt", encoding="utf-8") as stream:
        stream.write("text\nhé\n")
    copied(packed, folder / f"one.csv.{suffix}")
    copied(packed, folder / f"two.csv.{suffix}")
    with opener(folder / f"one.csv.{suffix}", "rt", encoding="utf-8") as stream:
        assert stream.read() == f"text,pred,share\nhé,yes,{SHARE!r}\n"
    assert (folder / f"one.csv.{suffix}").read_bytes() == (folder / f"two.csv.{suffix}").read_bytes()


def test_parquet_parts_are_joined_to_few_row_groups(folder: Path) -> None:
    pd.DataFrame({"text": ["x"] * 70_000}).to_csv(folder / "many.csv", index=False)
    copied(folder / "many.csv", folder / "many.parquet")
    metadata = pq.read_metadata(folder / "many.parquet")
    assert (metadata.num_rows, metadata.num_row_groups) == (70_000, 2)


def test_json_text_is_strict_whatever_the_value() -> None:
    assert as_json({"a": float("inf"), "b": [float("nan")], "c": datetime.date(2024, 1, 2)}) == (
        '{"a": null, "b": [null], "c": "2024-01-02"}'
    )
    assert as_text(decimal.Decimal("1.10")) == "1.10"
    assert as_text(datetime.timedelta(seconds=1)) == "0:00:01"
    assert io.StringIO(as_json("a\u2028b")).readlines() == ['"a\u2028b"']


def test_a_categorical_column_keeps_its_categories_and_parts_hold_only_theirs(folder: Path) -> None:
    names = [f"user {n:06} {'x' * 40}" for n in range(200_000)]
    column = pd.Categorical([names[n * 17 % len(names)] for n in range(9_000)], categories=names, ordered=True)
    pd.DataFrame({"text": "good", "user": column}).to_parquet(folder / "in.parquet")
    copied(folder / "in.parquet", folder / "out.parquet")
    before, after = (pq.read_table(folder / f"{name}.parquet") for name in ("in", "out"))
    assert after["user"].to_pylist() == before["user"].to_pylist()
    assert after.schema.field("user").type == before.schema.field("user").type
    with read_parquet(folder / "in.parquet", None) as (_, chunks):
        sizes = [(len(chunk), chunk.table().nbytes) for chunk in chunks]
    assert [rows for rows, _ in sizes] == [CHUNK_ROWS] * (9_000 // CHUNK_ROWS) + [9_000 % CHUNK_ROWS]
    assert max(size for _, size in sizes) < 1 << 20


def test_times_of_day_keep_their_nanoseconds_as_text(folder: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "at": pa.array([1_000_000_123], pa.time64("ns"))}), folder / "time.parquet")
    copied(folder / "time.parquet", folder / "time.csv")
    assert (folder / "time.csv").read_text().splitlines()[1].startswith("a,00:00:01.000000123")


def test_dates_beyond_those_of_python_are_written_as_text(folder: Path) -> None:
    far = pa.array([253402300800 * 10**6, 0], pa.timestamp("us"))
    pq.write_table(pa.table({"text": ["a", "b"], "when": far}), folder / "far.parquet")
    copied(folder / "far.parquet", folder / "far.csv")
    assert (folder / "far.csv").read_text().splitlines()[1].startswith("a,10000-01-01 00:00:00")


def test_times_of_an_unknown_zone_are_written_as_those_of_utc(folder: Path) -> None:
    far = 253402300800 * 10**6
    when = pa.array([0, None, far], pa.timestamp("us", "Mars/Olympus"))
    pq.write_table(pa.table({"text": ["a", "b", "c"], "when": when}), folder / "mars.parquet")
    pq.write_table(pa.table({"text": ["a"], "when": when[:1]}), folder / "near.parquet")
    for name, first in (("mars", "1970-01-01 00:00:00.000000Z"), ("near", "1970-01-01T00:00:00+00:00")):
        for suffix in ("csv", "jsonl"):
            copied(folder / f"{name}.parquet", folder / f"{name}.{suffix}")
            assert read(folder / f"{name}.{suffix}")[1][0][1] == first


def test_times_of_an_unknown_zone_inside_other_values_are_written_as_those_of_utc(folder: Path) -> None:
    zone = pa.timestamp("us", "Mars/Olympus")
    inner = pa.array([{"at": [0, None]}, None], pa.struct([("at", pa.list_(zone))]))
    pq.write_table(pa.table({"text": ["a", "b"], "when": inner}), folder / "inner.parquet")
    copied(folder / "inner.parquet", folder / "inner.jsonl")
    assert read(folder / "inner.jsonl")[1][0][1] == {"at": ["1970-01-01T00:00:00+00:00", None]}
