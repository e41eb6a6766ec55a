from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcm_data.documents import Document
from lcm_data.errors import InputError


def rows_of(corpus, tmp_path, data, name="a.csv", **kwargs):
    path = tmp_path / name
    path.write_bytes(data)
    return corpus(**kwargs).rows(path)


@pytest.mark.parametrize("slice_bytes", [1, 30, 1000])
def test_quoted_fields(corpus, tmp_path, slice_bytes):
    data = b'\xef\xbb\xbf"id",text,lang\r\n1,"a, ""b""\r\nc",en\r\n\r\n2,d,fr\n3,"e\n\n",""'
    rows = rows_of(corpus, tmp_path, data, slice_bytes=slice_bytes)
    assert rows[0].text == 'a, "b"\r\nc'
    assert [(row.doc_id, row.lang) for row in rows] == [("1", "eng_Latn"), ("2", "fra_Latn"), ("3", None)]
    assert rows[2].text == "e\n\n"


def test_field_above_the_default_limit_of_csv(corpus, tmp_path):
    (row,) = rows_of(corpus, tmp_path, b"text\n" + b"x" * 1_000_000)
    assert len(row.text) == 1_000_000


def test_bad_records_spoil_only_themselves(corpus, tmp_path, as_texts):
    data = b'id,text\n1,a\n2,b,c\n3\n4,"x"y\n5,\xff\n6,\n7,nul\0\n8,d\n'
    for slice_bytes in (1, 12, 1000):
        rows = rows_of(corpus, tmp_path, data, slice_bytes=slice_bytes)
        reasons = ["<wrong_fields>", "<wrong_fields>", "<invalid_csv>", "<invalid_utf8>", "<empty_text>"]
        assert as_texts(rows)[:6] == ["a", *reasons]
        assert as_texts(rows)[-1] == "d"
    assert rows[1].error == "3 fields, the header has 2"
    assert rows[1].text.strip() == "2,b,c"
    assert rows[4].doc_id == "5"


def test_unclosed_quote_is_a_reject(corpus, tmp_path, as_texts):
    rows = rows_of(corpus, tmp_path, b'id,text\n1,a\n2,"b\n3,c\n')
    assert as_texts(rows) == ["a", "<invalid_csv>"]
    assert "unexpected end of data, after 2 lines" in rows[1].error


def test_quote_that_swallows_too_much(corpus, tmp_path, as_texts):
    data = b'id,text\n1,a\n2,"b\n' + b"3,c\n" * 100
    rows = rows_of(corpus, tmp_path, data, max_row_bytes=40)
    assert rows[1].reason == "too_long"
    assert "is a quote missing?" in rows[1].error
    assert as_texts(rows[2:]) == ["c"] * (len(rows) - 2)
    assert len(rows) > 80


def test_tsv_has_no_quoting(corpus, tmp_path, as_texts):
    data = 'id\ttext\n1\t"a\n2\tb "c" d\n3\t5" \t\n4\té\n'.encode()
    rows = rows_of(corpus, tmp_path, data, "a.tsv")
    assert as_texts(rows) == ['"a', 'b "c" d', "<wrong_fields>", "é"]
    assert "quoted data belongs in a .csv" in rows[2].error


@pytest.mark.parametrize(
    ("header", "kwargs", "message"),
    [
        (b"id;text", {}, "no column 'text'. Columns, separated by ',': id;text. .*--text-column"),
        (b"text,text", {}, "more than one column 'text'"),
        (b"text", {"id": "key"}, "no column 'key'.*--id-column"),
        (b"text", {"lang": "l"}, "no column 'l'.*--lang-column"),
        (b'"te"xt', {}, "header line cannot be read"),
    ],
)
def test_wrong_header_is_refused(corpus, tmp_path, header, kwargs, message):
    with pytest.raises(InputError, match=message):
        rows_of(corpus, tmp_path, header + b"\n1,a\n", **kwargs)


def test_no_rows(corpus, tmp_path):
    assert rows_of(corpus, tmp_path, b"") == []
    assert rows_of(corpus, tmp_path, b"text\n") == []


def test_duplicate_keys(corpus, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,text\n1,a\n2,b\n1,c\n,d\nx\n")
    (found,) = corpus().scanned(path)
    assert (found.keys[0] == found.keys[2]).all()
    assert (found.keys[0] != found.keys[1]).any()
    assert not found.keys[3:].any()


plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.tuples(plain, plain), max_size=20),
    slice_bytes=st.integers(1, 200),
    suffix=st.sampled_from(["", ".gz", ".zst"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_slices_add_up_to_the_file(corpus, pack, records, slice_bytes, suffix, line_end):
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator=line_end)
    writer.writerows([("id", "text"), *records])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a.csv{suffix}")
        path.write_bytes(pack(out.getvalue().encode(), suffix))
        rows = corpus(slice_bytes=slice_bytes).rows(path)
    assert len(rows) == len(records)
    for number, (row, (doc_id, text)) in enumerate(zip(rows, records, strict=True)):
        assert row.doc_id == (doc_id or f"a.csv{suffix}#{number}")
        assert isinstance(row, Document) == bool(text.strip())
        if isinstance(row, Document):
            assert row.text == text


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"\xff", b" "]), max_size=40), size=st.integers(1, 9)
)
def test_any_bytes_are_cut_the_same(corpus, body, size):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.csv")
        path.write_bytes(b"id,text\n" + b"".join(body))
        whole = corpus(slice_bytes=1 << 20).rows(path)
        cut = corpus(slice_bytes=size).rows(path)
    assert [(row.doc_id, row.text) for row in cut] == [(row.doc_id, row.text) for row in whole]
