"""Reading rows: nothing is lost, a fault is named by its line, and a chunk is always the same chunk."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from copying import copied, read, source_of
from hypothesis import given
from hypothesis import strategies as st

from nautile.errors import NautileError
from nautile.tasks.files.chunks import CHUNK_CHARACTERS, CHUNK_ROWS
from nautile.tasks.files.delimited import Dialect
from nautile.tasks.files.formats import Format, format_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def read_text(folder: Path, text: str | bytes, name: str = "in.csv", **reading: Any) -> list[list[object]]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, **reading)[1]


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
    for encoding in ("utf-16-le", "utf-16-be", "U8"):
        (folder / "mark.csv").write_bytes("\ufefftext,b\ncafé,2\n".encode(encoding))
        assert read(folder / "mark.csv", encoding=encoding) == (["text", "b"], [["café", "2"]])


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
