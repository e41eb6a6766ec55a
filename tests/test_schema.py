from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcm_data import schema

SPEECH_COLUMNS = {"audio_uri", "channel", "t_start", "t_end", "sample_rate", "speech_ratio", "loudness_db"}


def test_the_columns_are_these() -> None:
    """Changing one breaks every corpus on disk: raise SCHEMA_VERSION with it."""
    assert schema.SCHEMA_VERSION == 3
    assert [f"{field.name}: {field.type}" for field in schema.SEGMENTS] == [
        *("sid: int64", "doc_id: string", "sent_idx: int32", "n_sents: int32", "para_idx: int32", "text: string"),
        *("char_start: int32", "char_end: int32", "n_chars: int32", "lid_score: float", "modality: string"),
        *("source: string", "audio_uri: string", "channel: int32", "t_start: double", "t_end: double"),
        *("sample_rate: int32", "speech_ratio: float", "loudness_db: float"),
    ]
    assert [f"{field.name}: {field.type}" for field in schema.embeddings_schema(1024)] == [
        *("sid: int64", "doc_id: string", "sent_idx: int32", "text: string", "n_tokens: int32", "n_unk: int32"),
        *("truncated: bool", "norm: float", "emb: fixed_size_list<element: halffloat not null>[1024]"),
    ]
    assert [f"{field.name}: {field.type}" for field in schema.codes_schema(8)][3:] == [
        *("codes: fixed_size_list<element: uint16 not null>[8]", "resid_norm: float")
    ]
    assert [f"{field.name}: {field.type}" for field in schema.DECODED][3:] == [
        *("text: string", "n_chars: int32", "source_lang: string", "score: float", "n_tokens: int32"),
        *("truncated: bool", "modality: string", "source: string"),
    ]
    assert "text" not in schema.embeddings_schema(4, with_text=False).names
    assert schema.embeddings_schema(4, "float32").field("emb").type.value_type == pa.float32()
    for table in (schema.SEGMENTS, schema.DECODED, schema.embeddings_schema(4), schema.codes_schema(4)):
        assert table.names[:3] == list(schema.ID_COLUMNS)
        assert {field.name for field in table if field.nullable} <= {"lid_score", *SPEECH_COLUMNS}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint16])
def test_vectors_make_the_round_trip_without_a_copy(dtype: type) -> None:
    values = np.arange(60).reshape(12, 5).astype(dtype)
    array = schema.vector_array(values, schema.vector_type(pa.from_numpy_dtype(dtype), 5))
    back = schema.vectors(array)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, values)
    assert np.shares_memory(back, values)
    np.testing.assert_array_equal(schema.vectors(array.slice(3, 4)), values[3:7])
    chunked = pa.chunked_array([array.slice(8), array.slice(0, 8)])
    np.testing.assert_array_equal(schema.vectors(chunked), np.roll(values, 4, 0))


@pytest.mark.parametrize("chunks", [[], [[]]])
def test_no_vectors_have_a_shape_too(chunks: list[list[object]]) -> None:
    column = pa.chunked_array(chunks, type=schema.vector_type(pa.float16(), 7))
    assert schema.vectors(column).shape == (0, 7)
    assert schema.vectors(column).dtype == np.float16


@given(st.text(), st.integers(0, 2**31 - 1))
def test_sentence_ids_fit_int64_and_depend_on_every_part(doc_id: str, index: int) -> None:
    sid = schema.sentence_id("eng_Latn", doc_id, index)
    assert -(2**63) <= sid < 2**63
    assert sid != schema.sentence_id("deu_Latn", doc_id, index)
    assert sid != schema.sentence_id("eng_Latn", doc_id + "x", index)
    assert sid != schema.sentence_id("eng_Latn", doc_id, index + 1)


def test_sentence_ids_are_stable() -> None:
    assert schema.sentence_id("eng_Latn", "doc-1", 0) == -6284973387816827927
