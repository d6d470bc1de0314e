"""Reading and writing rows: nothing is lost, nothing is changed, and a chunk is always the same chunk."""

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
from hypothesis import given
from hypothesis import strategies as st

from nautile.errors import NautileError
from nautile.tasks.files.chunks import CHUNK_CHARACTERS, CHUNK_ROWS
from nautile.tasks.files.delimited import Dialect
from nautile.tasks.files.formats import Format, format_of
from nautile.tasks.files.readers import FileSource
from nautile.tasks.files.values import as_json, as_text, has_halves, mended
from nautile.tasks.files.writers import writer_for

RESULTS = {"pred": pa.string(), "share": pa.float64()}
SHARE = 0.1 + 0.2

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


def source_of(path: Path, **reading: Any) -> FileSource:
    dialect = Dialect("\t" if ".tsv" in path.name else ",")
    return FileSource(path, format_of(path), **{"dialect": dialect, **reading})


def read(path: Path, **reading: Any) -> tuple[list[str], list[list[object]]]:
    """The columns and the rows of a file."""
    with source_of(path, **reading).open() as rows:
        return rows.columns, [list(record) for chunk in rows.chunks for record in chunk.records()]


def read_text(folder: Path, text: str | bytes, name: str = "in.csv", **reading: Any) -> list[list[object]]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, **reading)[1]


def copied(source: Path, target: Path, **reading: Any) -> None:
    """Write `target` with the rows of `source` and two result columns."""
    opened = source_of(source, **reading)
    with opened.open() as rows, target.open("wb") as stream:
        writer = writer_for(format_of(target), Dialect(), rows.schema, RESULTS)
        results = {"pred": "yes", "share": SHARE}
        parts = (
            writer.part(chunk, {name: [value] * len(chunk) for name, value in results.items()}) for chunk in rows.chunks
        )
        writer.join(parts, stream)


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


def test_a_quoted_cell_holds_newlines_delimiters_and_a_bare_carriage_return(folder: Path) -> None:
    text = 'id,text\r\n1,"two\r\nlines, ""quoted"""\r\n2,"bare\rreturn"\r\n'
    rows = [["1", 'two\r\nlines, "quoted"'], ["2", "bare\rreturn"]]
    assert read_text(folder, text) == rows
    copied(folder / "in.csv", folder / "again.csv")
    assert [row[:2] for row in read(folder / "again.csv")[1]] == rows


def test_a_byte_order_mark_is_not_part_of_the_first_column(folder: Path) -> None:
    for encoding, reading in (("utf-8-sig", "utf-8"), ("utf-16", "utf-16"), ("cp1252", "cp1252")):
        (folder / "mark.csv").write_bytes("text,b\ncafé,2\n".encode(encoding))
        assert read(folder / "mark.csv", encoding=reading) == (["text", "b"], [["café", "2"]])


def test_blank_lines_are_rows_only_in_a_file_of_one_column(folder: Path) -> None:
    assert read_text(folder, "\na,b\n\n1,2\n\n") == [["1", "2"]]
    assert read_text(folder, "a\n\n1\n") == [[""], ["1"]]
    assert read_text(folder, '{"a": 1}\n\n \n{"a": 2}\n', "in.jsonl") == [[1], [2]]


def test_quote_marks_can_be_ordinary_characters(folder: Path) -> None:
    text = 'id\ttext\n1\t"Great," he said\n2\tan open " quote\n'
    assert read_text(folder, text, "in.tsv", dialect=Dialect("\t", quotes=False)) == [
        ["1", '"Great," he said'],
        ["2", 'an open " quote'],
    ]
    with pytest.raises(NautileError, match=r"line 2: a quoted cell goes on.*--no-quotes"):
        read_text(folder, text, "in.tsv")


def test_missing_keys_are_null_and_a_new_key_later_is_an_error(folder: Path) -> None:
    assert read_text(folder, '{"a": 1, "b": 2}\n{"c": 3}\n', "in.jsonl") == [[1, 2, None], [None, None, 3]]
    many = '{"a": 1}\n' * CHUNK_ROWS + '{"a": 1, "new": 2}\n'
    with pytest.raises(NautileError, match=rf"line {CHUNK_ROWS + 1}: the key 'new'"):
        read_text(folder, many, "in.jsonl")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1e999}', "beyond float64"),
        ('{"a": 1, "a": 2}', "a key stands twice"),
        ('{"a": {"b": 1, "b": 2}}', "a key stands twice"),
        ('{"a": 1', "broken JSON"),
        ("[" * 100_000, "line 2: "),
        ('{"a": ' + "9" * 5000 + "}", "line 2: "),
        ("[1, 2]", "no JSON object"),
        ('{"\\ud800": 1}', "half of a surrogate pair"),
    ],
)
def test_json_that_could_not_be_given_back_is_refused(folder: Path, line: str, reason: str) -> None:
    with pytest.raises(NautileError, match=reason):
        read_text(folder, f'{{"a": 0}}\n{line}\n', "in.jsonl")


@given(
    before=st.lists(st.text("aé \t", max_size=3000), max_size=12),
    left=st.text("aé", max_size=9),
    bad=st.sampled_from([b"\xff", b"\xe9", b"\xc3", b"\xed\xa0\x80"]),
)
def test_an_undecodable_byte_is_named_by_line_and_offset(
    folder: Path, before: list[str], left: str, bad: bytes
) -> None:
    head = "".join(f"{line}\n" for line in ["text", *before]).encode() + left.encode()
    with pytest.raises(NautileError) as caught:
        read_text(folder, head + bad + b" z\nlast\n")
    where = f"line {len(before) + 2}: byte 0x{bad[0]:02x} at offset {len(head)} is not utf-8"
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "encoding", "advice"),
    [
        ("text\ncafé au lait très bon\n", "cp1252", "cp1252"),
        ("text\nit’s “nice” – ok\n", "cp1252", "cp1252"),
        ("текст\nпривет мир как дела сегодня\n", "cp1251", "cp1251"),
        ("text\nhello\n", "utf-16", "utf-16"),
        ("text\nhello\n", "utf-16-le", "utf-16-le"),
        ("text\nhello\n", "utf-16-be", "utf-16-be"),
    ],
)
def test_the_likely_encoding_is_named_and_works(folder: Path, text: str, encoding: str, advice: str) -> None:
    with pytest.raises(NautileError, match=f"pass --encoding {advice}$"):
        read_text(folder, text.encode(encoding))
    assert "�" not in str(read_text(folder, text.encode(encoding), encoding=advice))


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30), st.sampled_from(["csv", "jsonl", "parquet"]))
def test_chunks_are_bounded_deterministic_and_leave_no_row_out(folder: Path, sizes: list[int], suffix: str) -> None:
    path = folder / f"sizes.{suffix}"
    frame = pd.DataFrame({"text": ["x" * (size * 1000) for size in sizes]})
    write = {"csv": frame.to_csv, "parquet": frame.to_parquet}
    if suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        write[suffix](path, index=False)
    shapes = []
    for _ in range(2):
        with source_of(path).open() as rows:
            shapes.append([[len(text) for text in chunk.values("text")] for chunk in rows.chunks])  # type: ignore[arg-type]
    assert shapes[0] == shapes[1]
    assert [size for chunk in shapes[0] for size in chunk] == [size * 1000 for size in sizes]
    assert all(len(chunk) == 1 or sum(chunk) <= CHUNK_CHARACTERS for chunk in shapes[0])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("limit", [None, 1, CHUNK_ROWS, CHUNK_ROWS + 1, 10_000])
def test_a_limit_cuts_rows_and_leaves_the_chunks_before_it_alone(folder: Path, suffix: str, limit: int | None) -> None:
    path = folder / f"rows.{suffix}"
    frame = pd.DataFrame({"text": [str(n) for n in range(5000)]})
    if suffix == "parquet":
        frame.to_parquet(path, row_group_size=700)
    else:
        frame.to_csv(path, index=False) if suffix == "csv" else frame.to_json(path, orient="records", lines=True)
    with source_of(path, limit=limit).open() as rows:
        texts = [chunk.values("text") for chunk in rows.chunks]
    assert [text for chunk in texts for text in chunk] == [str(n) for n in range(5000)][:limit]
    assert max(map(len, texts)) <= CHUNK_ROWS


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


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("a.csv", None, Format("csv")),
        ("a.CSV", None, Format("csv")),
        ("a.b.tsv.gz", None, Format("tsv", ".gz")),
        ("a.ndjson.xz", None, Format("jsonl", ".xz")),
        ("a.pq", None, Format("parquet")),
        ("a.txt", "TSV", Format("tsv")),
        ("a.gz", "jsonl", Format("jsonl", ".gz")),
        ("a.csv", "jsonl", Format("csv")),
        ("noname", "csv", Format("csv")),
    ],
)
def test_a_name_tells_the_format(name: str, given: str | None, expected: Format) -> None:
    assert format_of(Path(name), given) == expected


@pytest.mark.parametrize(("name", "given"), [("a", None), ("a.txt", None), ("a.txt", "xml"), ("a.parquet.gz", None)])
def test_a_name_that_tells_no_format_is_refused(name: str, given: str | None) -> None:
    with pytest.raises(NautileError):
        format_of(Path(name), given)


def test_json_text_is_strict_whatever_the_value() -> None:
    assert as_json({"a": float("inf"), "b": [float("nan")], "c": datetime.date(2024, 1, 2)}) == (
        '{"a": null, "b": [null], "c": "2024-01-02"}'
    )
    assert as_text(decimal.Decimal("1.10")) == "1.10"
    assert as_text(datetime.timedelta(seconds=1)) == "0:00:01"
    assert io.StringIO(as_json("a\u2028b")).readlines() == ['"a\u2028b"']
