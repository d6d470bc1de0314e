"""Labelled rows: every source gives the same, what is left out is counted, what is wrong is named."""

import gzip
import json
import lzma
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nautile.errors import NautileError
from nautile.tasks.labelled import Layout, read_labelled

ROWS = [("warm soup", "good"), ("cold soup", "bad"), ("soup", "fair"), ("more, please", "good")]
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])


class Dataset:
    """What a Hugging Face dataset looks like from here."""

    def __init__(self, frame: pd.DataFrame, features: dict[str, Any]) -> None:
        self.frame, self.features = frame, features

    def to_pandas(self) -> pd.DataFrame:
        return self.frame


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"rows{suffix}"
    lines = "".join(json.dumps(dict(zip(("text", "label"), row, strict=True))) + "\n" for row in ROWS)
    match suffix:
        case ".csv":
            FRAME.to_csv(path, index=False)
        case ".tsv":
            path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS))
        case ".parquet":
            FRAME.to_parquet(path)
        case ".jsonl":
            path.write_text(lines)
        case ".jsonl.gz":
            path.write_bytes(gzip.compress(lines.encode()))
        case ".jsonl.xz":
            path.write_bytes(lzma.compress(lines.encode()))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl", ".jsonl.gz", ".jsonl.xz"])
def test_every_format_gives_the_same(tmp_path: Path, suffix: str) -> None:
    found = read_labelled(written(tmp_path, suffix))
    assert found.texts == [text for text, _ in ROWS]
    assert found.labels == ("bad", "fair", "good")
    assert found.truth.tolist() == [2, 0, 1, 2]
    assert (found.kind, found.notes) == ("single", [])
    assert read_labelled(str(tmp_path / f"rows{suffix}")).texts == found.texts


def test_ordinal_keeps_the_order_given() -> None:
    found = read_labelled(FRAME, kind="ordinal", labels=["bad", "fair", "good", "superb"])
    assert found.labels == ("bad", "fair", "good", "superb")
    assert found.truth.tolist() == [2, 0, 1, 2]
    assert found.notes == ["no row has the label superb"]


def test_lists_are_multi_and_a_text_is_parted() -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "labels": [["joy"], [], np.array(["anger", "joy"])]})
    found = read_labelled(frame)
    assert (found.kind, found.labels) == ("multi", ("anger", "joy"))
    assert found.truth.tolist() == [[False, True], [False, False], [True, True]]
    cells = pd.DataFrame({"text": ["a", "b", "c"], "label": ["joy", "anger| joy", "joy|"]})
    parted = read_labelled(cells, kind="multi", separator="|")
    assert parted.truth.tolist() == [[False, True], [True, True], [False, True]]


def test_rows_without_text_or_label_are_left_out_and_counted() -> None:
    frame = pd.DataFrame({"text": ["a", None, " ", "d", "e", "f"], "label": ["x", "x", "y", None, "", "y"]})
    found = read_labelled(frame)
    assert found.texts == ["a", "f"]
    assert found.notes == ["2 rows without a text left out", "2 rows without a label left out"]


@pytest.mark.parametrize(
    ("column", "labels", "truth"),
    [
        ([10, 2, 2], ("2", "10"), [1, 0, 0]),
        ([1.0, 2.0, 1.0], ("1", "2"), [0, 1, 0]),
        ([1.5, 2.0, 1.5], ("1.5", "2"), [0, 1, 0]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        ([2**60, 2**60 + 1, 2**60], (str(2**60), str(2**60 + 1)), [0, 1, 0]),
    ],
)
def test_numbers_become_their_text(column: list[Any], labels: tuple[str, ...], truth: list[int]) -> None:
    found = read_labelled(pd.DataFrame({"text": ["a", "b", "c"], "label": column}))
    assert found.labels == labels
    assert found.truth.tolist() == truth


def test_a_hugging_face_dataset_brings_its_class_names() -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": [1, 0]})
    found = read_labelled(Dataset(frame, {"label": SimpleNamespace(names=["neg", "pos"])}))
    assert found.labels == ("neg", "pos")
    assert found.truth.tolist() == [1, 0]
    several = pd.DataFrame({"text": ["a", "b"], "labels": [[0, 1], [1]]})
    inner = SimpleNamespace(feature=SimpleNamespace(names=["joy", "anger"]))
    assert read_labelled(Dataset(several, {"labels": inner})).truth.tolist() == [[True, True], [False, True]]


@given(st.lists(st.sampled_from("abcd"), min_size=2).filter(lambda labels: len(set(labels)) > 1))
def test_truth_is_the_label(labels: list[str]) -> None:
    found = read_labelled(pd.DataFrame({"text": ["word"] * len(labels), "label": labels}))
    assert [found.labels[n] for n in found.truth] == labels
    assert list(found.labels) == sorted(set(labels))


def test_a_list_of_one_label_is_that_label() -> None:
    assert read_labelled(frame(["a"], "b", ("a",)), kind="single").truth.tolist() == [0, 1, 0]


def frame(*labels: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"text {n}" for n in range(len(labels))], "label": list(labels)})


BAD = [
    (7, {}, "must be a DataFrame, the path of a file or a Hugging Face dataset, not int"),
    ("no/such.csv", {}, "no/such.csv: there is no such file"),
    ("rows.docx", {}, "no format has this suffix"),
    ("rows.xlsx", {}, "rows.xlsx: this looks like an Excel file; save it as comma-separated UTF-8, .csv"),
    ("", {}, "has an empty name"),
    (FRAME, {"text": "body"}, "has no column 'body'; there are: text, label"),
    (FRAME, {"label": "topic"}, "has no column 'topic'; there are: text, label"),
    (FRAME, {"kind": "many"}, "unknown kind 'many'"),
    (FRAME, {"kind": "ordinal"}, "give labels, lowest first; bad, fair, good"),
    (FRAME, {"labels": "good"}, "must be a list of texts, not 'good'"),
    (FRAME, {"labels": ["good", "good"]}, "labels must be distinct"),
    (FRAME, {"labels": ["good", "bad"]}, r"'fair' \(row 3\); add or correct them"),
    (frame("a", "a"), {}, "all rows have the label 'a'"),
    (frame(None, ""), {}, "no row has both a text and a label"),
    (frame(["a"], ["b", "c"]), {"kind": "single"}, "row 2: 2 labels in a list, but kind is single"),
    (frame("a", ["b", "c"]), {}, "row 2: 2 labels in a list, but kind is single, .* or the kind to multi$"),
    (frame("a", ["b", "c"]), {"of_results": False}, "but kind is single, one label a row; change the row$"),
    (frame("a", "b"), {"labels": ["a"]}, r"not among those given: 'b' \(row 2\)"),
    (frame("a", {"b": 1}), {}, "row 2: a label must be text or a number, not dict"),
    (FRAME, {"labels": 3}, "labels must be a list of texts, not 3"),
    (FRAME, {"labels": [["good"]]}, r"labels must be texts or numbers, not \['good'\]"),
    (FRAME, {"separator": ""}, "separator must be a text such as ';', not ''"),
    (FRAME, {"separator": 3}, "separator must be a text such as ';', not 3"),
    (frame("a", "set"), {}, "the label 'set' is also a column of every result; rename that label in the data"),
    ({"train": Dataset(FRAME, {}), "test": Dataset(FRAME, {})}, {}, r"give one of them, such as data\['train'\]"),
    (pd.concat([FRAME, FRAME["text"]], axis=1), {}, "2 columns are named 'text'"),
]


@pytest.mark.parametrize(("source", "options", "message"), BAD)
def test_what_is_wrong_is_said_in_one_line(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(NautileError, match=message) as caught:
        read_labelled(source, **options)
    assert "\n" not in str(caught.value)


def test_unknown_labels_name_their_rows() -> None:
    many = frame(*["ok"] * 3, *["odd"] * 7, "strange", "ok")
    with pytest.raises(NautileError, match=r"'odd' \(row 4, 5, 6, 7, 8 and 2 more\), 'strange' \(row 11\)"):
        read_labelled(many, labels=["ok", "fine"])


def test_halves_of_surrogate_pairs_are_mended(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "so \\ud83d", "label": "\\ud800"}\n{"text": "b", "label": "fine"}\n')
    for source in (path, pd.DataFrame({"text": ["so \ud83d", "b"], "label": ["\ud800", "fine"]}, dtype=object)):
        found = read_labelled(source)
        assert found.texts == ["so \ufffd", "b"]
        assert found.labels == ("fine", "\ufffd")
        assert read_labelled(source, labels=["fine", "\ud800"]).truth.tolist() == [1, 0]


def test_given_labels_may_be_numbers() -> None:
    rows = frame(1, 2, 10)
    assert read_labelled(rows, kind="ordinal", labels=[1, 2, 10]).truth.tolist() == [0, 1, 2]
    assert read_labelled(rows, labels=np.array([10.0, 2, 1])).labels == ("10", "2", "1")


def test_a_single_label_is_read_where_it_may_be() -> None:
    found = read_labelled(frame("a", "a"), fewest_labels=1)
    assert (found.labels, found.truth.tolist()) == (("a",), [0, 0])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", b"text;label\na;b\n"),
        ("rows.csv", "text,label\ncaf\xe9,b\n".encode("latin-1")),
        ("rows.csv", "text,label\na,b\n".encode("utf-16-le")),
        ("rows.csv", b'text,label\n"a" b,c\n'),
        ("rows.txt", b"text,label\na,b\n"),
    ],
)
def test_no_flag_is_named_that_is_not_there(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NautileError) as caught:
        read_labelled(tmp_path / name)
    assert "--" not in str(caught.value)
    assert str(caught.value).endswith("save it as comma-separated UTF-8, or read it with pandas and pass the DataFrame")


@pytest.mark.parametrize(
    ("content", "layout", "hint"),
    [
        (b"text;label\na;b\nc;d\n", Layout(delimiter=";"), "pass --delimiter ';'"),
        ("text,label\na,b\ncaf\xe9,d\n".encode("cp1252"), Layout("cp1252"), "pass --encoding cp1252"),
        ("text;label\na;b\ncaf\xe9;d\n".encode("utf-16-le"), Layout("utf-16-le", ";"), "pass --encoding utf-16-le"),
    ],
)
def test_other_encodings_and_delimiters_are_told_and_taken(
    tmp_path: Path, content: bytes, layout: Layout, hint: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(NautileError, match=hint):
        read_labelled(path, layout=Layout())
    assert read_labelled(path, layout=layout).labels == ("b", "d")


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (Layout("utf-9"), "utf-9"),
        (Layout("utf\0"), "no such text encoding"),
        (Layout(""), "encoding must be"),
        (Layout(None), "encoding must be"),
        (Layout(delimiter="::"), "one character"),
        (Layout(delimiter=5), "one character"),
    ],
)
def test_an_odd_layout_is_told(tmp_path: Path, layout: Layout, said: str) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,b\nc,d\n")
    with pytest.raises(NautileError, match=said):
        read_labelled(tmp_path / "rows.csv", layout=layout)
