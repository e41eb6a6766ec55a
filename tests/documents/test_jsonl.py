from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcm_data.documents import Columns, Document, Reject, list_inputs, pieces, scan
from lcm_data.errors import InputError


def one(corpus, tmp_path, line, **kwargs):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line)
    (row,) = corpus(**kwargs).rows(path)
    return row


def test_row_becomes_document(corpus, tmp_path):
    row = one(corpus, tmp_path, b'{"id": "x", "text": "Bonjour.\\u0000", "lang": "fr", "more": NaN}')
    assert row == Document("x", "Bonjour.\0", "fra_Latn", None, 0, "a.jsonl")


@pytest.mark.parametrize(
    ("line", "reason", "error"),
    [
        (b'{"id": 1}', "missing_text", "no field 'text'"),
        (b'{"text": null}', "null_text", "null"),
        (b'{"text": ""}', "empty_text", "empty"),
        (b'{"text": " \\n\\u3000\\t"}', "empty_text", "whitespace"),
        (b'{"text": 3}', "wrong_type", "type int"),
        (b'{"text": ["a"]}', "wrong_type", "type list"),
        (b'{"text": {"a": 1}}', "wrong_type", "type dict"),
        (b'"text"', "wrong_type", "JSON str"),
        (b"[1, 2]", "wrong_type", "JSON list"),
        (b'{"text": "a", "id": {}}', "wrong_type", "the id"),
        (b'{"text": "a", "id": true}', "wrong_type", "type bool"),
        (b'{"text": "a", "lang": 3}', "wrong_type", "the language"),
        (b'{"text": "a"', "invalid_json", "not JSON"),
        (b"no", "invalid_json", "not JSON"),
        (b"[" * 100_000, "invalid_json", "not JSON"),
        (b'{"text": "\xff"}', "invalid_utf8", "byte 10"),
        (b'{"text": "\xed\xa0\x80"}', "invalid_utf8", "byte 10"),
        (b'{"text": "ab\\ud800"}', "lone_surrogate", "U+D800, in the text at 2"),
        (b'{"text": "a", "id": "\\udfff"}', "lone_surrogate", "the id"),
        (b'{"text": "a", "lang": "\\udfff"}', "lone_surrogate", "the language"),
        (b'{"text": "123456"}', "too_long", "6 characters, 5 are allowed (max_doc_chars)"),
        (b'{"text": "a", "lang": "klingon"}', "unknown_language", "unknown language 'klingon'."),
        (b'{"text": "a", "lang": "sr-Latn"}', "unknown_language", "srp_Cyrl"),
        (b'{"text": "a", "id": "' + b"i" * 5000 + b'"}', "too_long", "the id"),
    ],
)
def test_bad_row_becomes_reject(corpus, tmp_path, line, reason, error):
    row = one(corpus, tmp_path, line, max_doc_chars=5)
    assert isinstance(row, Reject)
    assert (row.reason, row.row) == (reason, 0)
    assert error in row.error
    assert len(row.error) < 250
    assert len(row.text) <= 200
    json.dumps([row.text, row.error, row.doc_id], ensure_ascii=False).encode("utf-8")


def test_row_of_a_bad_line_is_shown(corpus, tmp_path):
    row = one(corpus, tmp_path, b'{"text": "a' + b"b" * 500)
    assert row.text == ('{"text": "a' + "b" * 500)[:200]


@pytest.mark.parametrize(
    ("line", "doc_id"),
    [
        (b'{"text": "a", "id": 12}', "12"),
        (b'{"text": "a", "id": 12345678901234567890123}', "12345678901234567890123"),
        (b'{"text": "a", "id": 1.10}', "1.10"),
        (b'{"text": "a", "id": null}', "a.jsonl#0"),
        (b'{"text": "a", "id": ""}', "a.jsonl#0"),
        (b'{"text": "a", "id": NaN}', "a.jsonl#0"),
        (b'{"text": "a"}', "a.jsonl#0"),
        (b'{"text": "a", "meta": "\\ud800", "id": "k"}', "k"),
    ],
)
def test_id(corpus, tmp_path, line, doc_id):
    row = one(corpus, tmp_path, line)
    assert isinstance(row, Document)
    assert row.doc_id == doc_id


@pytest.mark.parametrize("lang", ["null", '""', '"und"', '" "'])
def test_language_not_given(corpus, tmp_path, lang):
    row = one(corpus, tmp_path, f'{{"text": "a", "lang": {lang}}}'.encode())
    assert isinstance(row, Document)
    assert row.lang is None


def test_named_columns(corpus, tmp_path):
    line = b'{"id": 1, "lang": "xx", "body": "b", "key": "k", "language": "de"}'
    row = one(corpus, tmp_path, line, text="body", id="key", lang="language")
    assert row == Document("k", "b", "deu_Latn", None, 0, "a.jsonl")


def test_blank_lines_mark_and_line_ends(corpus, tmp_path, as_texts):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n{"text": "b"}\n\n{"text": "c"}')
    for slice_bytes in (1, 20, 1000):
        rows = corpus(slice_bytes=slice_bytes).rows(tmp_path)
        assert as_texts(rows) == ["a", "b", "c"]
        assert [row.doc_id for row in rows] == ["a.jsonl#0", "a.jsonl#1", "a.jsonl#2"]


def test_line_over_the_limit_is_one_reject(corpus, tmp_path, as_texts, pack):
    long = b'{"text": "' + b"x" * 3_000_000 + b'"}'
    data = b"\n".join([b'{"text": "a"}', long, b'{"text": "b"}', long])
    for suffix in ("", ".gz", ".zst"):
        path = tmp_path / f"a.jsonl{suffix}"
        path.write_bytes(pack(data, suffix))
        rows = corpus(max_row_bytes=1000).rows(path)
        assert as_texts(rows) == ["a", "<too_long>", "b", "<too_long>"]
        assert "3,000,013 bytes, 1,000 are allowed" in rows[1].error
        assert rows[1].text == long[:200].decode()


def test_line_at_the_limit_is_kept(corpus, tmp_path, as_texts):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 3)
    assert as_texts(corpus(max_row_bytes=13).rows(path)) == ["a"] * 3
    assert as_texts(corpus(max_row_bytes=12).rows(path)) == ["<too_long>"] * 3


def test_keys_tell_same_documents(corpus, tmp_path):
    path = tmp_path / "a.jsonl"
    lines = ['{"id": "1", "lang": "en"}', '{"id": 1, "lang": "eng_Latn"}', '{"id": "1", "lang": "fr"}', "{}", "x"]
    path.write_text("\n".join(lines))
    (found,) = corpus().scanned(path)
    keys = found.keys
    assert keys.shape == (5, 2)
    assert keys.dtype == np.uint64
    assert (keys[0] == keys[1]).all()
    assert keys[0, 0] == keys[2, 0]
    assert keys[0, 1] != keys[2, 1]
    assert not keys[3:].any()
    assert keys[:3].all(axis=1).all()


def test_default_language_enters_keys(corpus, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": 1, "lang": "fr"}')
    (piece,) = pieces(list_inputs([path]).files)
    (found,) = scan(piece, Columns(), default_lang="fra_Latn")
    assert (found.keys[0] == found.keys[1]).all()
    (found,) = scan(piece, Columns())
    assert found.keys[0, 0] == found.keys[1, 0]
    assert found.keys[0, 1] == 0
    assert found.keys[1, 1] != 0


@pytest.mark.parametrize("data", [b"[\n  {", b'[{"text": "a"}, {"text": "b"}]', b'{\n  "text": "a"\n}'])
def test_other_json_is_refused(corpus, tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"not one object a line.*jq"):
        corpus().slices(path)


def test_utf16_is_refused(corpus, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"text": "a"}\n'.encode("utf-16"))
    with pytest.raises(InputError, match="iconv"):
        corpus().slices(path)


def test_wrong_text_column_is_refused(corpus, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": "a", "url": "u"}\n' * 10)
    with pytest.raises(InputError, match=r"They have: content, url\. Name the one of the text with --text-column"):
        corpus().slices(path)
    path.write_text('{"content": "a"}\n' * 9 + '{"text": "a"}\n' + '{"content": "a"}\n' * 9)
    assert len(corpus().rows(path)) == 19


lines_of_bytes = st.lists(
    st.one_of(
        st.builds(lambda text: json.dumps({"text": text}).encode(), st.text(max_size=30)),
        st.builds(lambda text: json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "replace"), st.text()),
        st.binary(max_size=40),
        st.sampled_from([b"", b" ", b"\r", b'{"text": "long' + b"g" * 300 + b'"}']),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=lines_of_bytes,
    ending=st.sampled_from([b"", b"\n", b"\n\n"]),
    slice_bytes=st.integers(1, 400),
    piece_bytes=st.integers(1, 400),
    suffix=st.sampled_from([".jsonl", ".jsonl.gz", ".jsonl.zst"]),
)
def test_slices_add_up_to_the_file(corpus, pack, lines, ending, slice_bytes, piece_bytes, suffix):
    data = b"\n".join(lines) + ending
    # Refused as a whole, which is another test.
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"[{")) or data.split(b"\n")[0].strip() in (b"[", b"{"):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        path.write_bytes(pack(data, suffix))
        way = corpus(slice_bytes=slice_bytes, piece_bytes=piece_bytes, max_row_bytes=200)
        scanned, rows = way.scanned(path), way.rows(path)
        whole = corpus(slice_bytes=1 << 20, max_row_bytes=200).rows(path)
    expected = [line.strip() for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    assert len(rows) == len(whole) == len(expected)
    for row, other, line in zip(rows, whole, expected, strict=True):
        same = (row.text, row.doc_id, getattr(row, "reason", None))
        assert same == (other.text, other.doc_id, getattr(other, "reason", None))
        if isinstance(row, Document):
            assert row.text == json.loads(line)["text"]
    for found in scanned:
        assert found.slice.num_rows == len(found.keys)
    for one, two in itertools.pairwise(scanned):
        assert one.slice.stop <= two.slice.start
