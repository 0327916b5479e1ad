"""Rows come from every accepted form of file, and what cannot be read is named by file, row and field."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import InvalidInput
from peft_tuning.data.datasets.rows import DataRow, parse_json, read_rows

ROWS = [{"a": "ü", "n": 1}, {"a": "x\u2028y\r\n", "n": 2}]


def values(path: Path) -> list[object]:
    return [row.values for row in read_rows(path)]


def test_a_list_and_lines_give_the_same_rows_packed_or_not(tmp_path: Path) -> None:
    as_list = json.dumps(ROWS, ensure_ascii=False).encode()
    as_lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()
    for name, data in (("list", as_list), ("lines", as_lines), ("marked", b"\xef\xbb\xbf" + as_lines + b"\n\n")):
        plain, packed = tmp_path / f"{name}.json", tmp_path / f"{name}.json.gz"
        plain.write_bytes(data)
        packed.write_bytes(gzip.compress(data, mtime=0))
        assert values(plain) == values(packed) == ROWS


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    assert values(tmp_path / "rows.parquet") == ROWS
    (tmp_path / "other.parquet").write_bytes(b"no parquet")
    with pytest.raises(InvalidInput, match=r"other\.parquet is not parquet"):
        values(tmp_path / "other.parquet")


def test_rows_are_numbered_as_an_editor_numbers_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": "1"}\n\n{"a": 2}\n')
    rows = list(read_rows(path))
    assert [row.number for row in rows] == [1, 3]
    with pytest.raises(InvalidInput, match=r"x\.jsonl, row 3, field 'a': should be text and is a number"):
        rows[1].text("a")
    with pytest.raises(InvalidInput, match="field 'b': is missing; the row has 'a'"):
        rows[0].text("b")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.jsonl", b'{"a": "1"}\n{"a": ', "row 2, is not JSON"),
        ("x.jsonl", b'{"a": "1"}\n"text"\n', "row 2, is text"),
        ("x.json", b'["text"]', "row 1, is text"),
        ("x.json", b"[1", "the list, is not JSON"),
        ("x.jsonl", b'{"a": "\xff"}', "is not UTF-8"),
        ("x.jsonl", b'{"a": ' + b"[" * 200_000, "nested too deeply"),
        ("x.json.gz", gzip.compress(b'[{"a": 1}]', mtime=0)[:-9], "cannot read"),
        ("x.json.gz", b"plain text", "cannot read"),
    ],
)
def test_a_damaged_file_is_an_error_with_a_next_step(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInput, match=message) as caught:
        values(tmp_path / name)
    assert caught.value.fix
    assert name in caught.value.line


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(r'{"a": "\ud800"}')
    (row,) = read_rows(tmp_path / "x.jsonl")
    with pytest.raises(InvalidInput, match="surrogate"):
        row.text("a")


@given(st.integers(1, 9000), st.sampled_from(["", "-"]), st.integers(1, 9))
def test_whole_numbers_of_any_length_are_exact(length: int, sign: str, digit: int) -> None:
    value = parse_json(sign + str(digit) * length)
    assert value == int(f"{sign}1") * digit * (10**length - 1) // 9


def test_a_number_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="digits"):
        parse_json("9" * 1_000_000)


@pytest.mark.parametrize(("value", "expected"), [(7, "7"), ("7-1", "7-1")])
def test_an_identifier_may_be_a_number(value: object, expected: str) -> None:
    assert DataRow(Path("x"), 1, {"id": value}).number_or_text("id") == expected


def test_true_is_no_identifier() -> None:
    with pytest.raises(InvalidInput, match="true or false"):
        DataRow(Path("x"), 1, {"id": True}).number_or_text("id")
