"""The Arrow schemas of the three stages and how each column is stored in Parquet: the only place a column is spelled.

One row is one sentence (one "concept"). Language and split are partition directories and file metadata, never
columns inside a file: a partition column that is also stored breaks ``pyarrow.parquet.read_table`` on the folder.
Nothing here reads or writes files; that is ``lcm_data.store``.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash

SCHEMA_VERSION = 3
"""Part of every plan hash: output of an older layout is never mixed with a newer one."""

Stage = Literal["segments", "embeddings", "codes"]
STAGES: tuple[Stage, ...] = ("segments", "embeddings", "codes")

StoreDtype = Literal["float16", "float32"]

ID_COLUMNS = ("sid", "doc_id", "sent_idx")
TOKEN_COLUMNS = ("n_tokens", "n_unk")
"""Of embeddings: the tokens of a sentence, and those among them that stand for unknown characters."""
_ID_FIELDS = [
    pa.field("sid", pa.int64(), nullable=False),
    pa.field("doc_id", pa.string(), nullable=False),
    pa.field("sent_idx", pa.int32(), nullable=False),
]
_LEVELS = {"zstd": 1, "gzip": 6}
_DICTIONARY_COLUMNS = {"doc_id", "modality", "source", "source_lang", "stop", "audio_uri"}

TEXT, SPEECH = "text", "speech"
"""Values of ``modality``."""
_SPEECH_FIELDS = [
    pa.field("audio_uri", pa.string()),
    pa.field("channel", pa.int32()),
    pa.field("t_start", pa.float64()),
    pa.field("t_end", pa.float64()),
    pa.field("sample_rate", pa.int32()),
    pa.field("speech_ratio", pa.float32()),
    pa.field("loudness_db", pa.float32()),
]
SPEECH_COLUMNS = tuple(field.name for field in _SPEECH_FIELDS)
"""Null for text. Times are seconds, multiples of 1/16000; ``channel`` is null for the mean of several."""

SEGMENTS = pa.schema(
    [
        *_ID_FIELDS,
        pa.field("n_sents", pa.int32(), nullable=False),
        pa.field("para_idx", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("char_start", pa.int32(), nullable=False),
        pa.field("char_end", pa.int32(), nullable=False),
        pa.field("n_chars", pa.int32(), nullable=False),
        pa.field("lid_score", pa.float32()),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        *_SPEECH_FIELDS,
    ]
)
"""Sentences of texts, segments of recordings. Of these, ``text`` is the transcript, if it is known for the segment."""

DECODED = pa.schema(
    [
        *_ID_FIELDS,
        pa.field("text", pa.string(), nullable=False),
        pa.field("n_chars", pa.int32(), nullable=False),
        pa.field("source_lang", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)
"""Schema of a ``segments`` stage whose sentences a decoder said. The ids are those of the rows they were made from."""


def embeddings_schema(dim: int, store_dtype: StoreDtype = "float16", with_text: bool = True) -> pa.Schema:
    """Schema of ``embeddings``: ids, the sentence itself if wanted, token facts and ``emb`` of ``dim`` floats."""
    item = pa.float16() if store_dtype == "float16" else pa.float32()
    text = [pa.field("text", pa.string(), nullable=False)] if with_text else []
    return pa.schema(
        [
            *_ID_FIELDS,
            *text,
            pa.field("n_tokens", pa.int32(), nullable=False),
            pa.field("n_unk", pa.int32(), nullable=False),
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("norm", pa.float32(), nullable=False),
            pa.field("emb", vector_type(item, dim), nullable=False),
        ]
    )


def generated_schema(dim: int, store_dtype: StoreDtype = "float16") -> pa.Schema:
    """Schema of an ``embeddings`` stage that a model wrote on: what was generated, and why each document ended.

    ``generated`` is false for rows of the prefix; ``stop`` is empty but for the last row of a document. Token facts of
    generated rows are 0. The id of a row is that of the sentence it stands for, where there was one.
    """
    added = [pa.field("generated", pa.bool_(), nullable=False), pa.field("stop", pa.string(), nullable=False)]
    *facts, emb = embeddings_schema(dim, store_dtype, with_text=False)
    return pa.schema([*facts, *added, emb])


def codes_schema(num_levels: int) -> pa.Schema:
    """Schema of ``codes``: ids, one unit number per RVQ level, and the length of what the codes leave unexplained."""
    return pa.schema(
        [
            *_ID_FIELDS,
            pa.field("codes", vector_type(pa.uint16(), num_levels), nullable=False),
            pa.field("resid_norm", pa.float32(), nullable=False),
        ]
    )


def vector_type(item: pa.DataType, size: int) -> pa.DataType:
    """A fixed-size list whose elements cannot be null: a quarter faster to read than a nullable one."""
    return pa.list_(pa.field("element", item, nullable=False), size)


def vector_array(values: np.ndarray[Any, Any], field_type: pa.DataType) -> pa.Array:
    """Wrap ``values`` [N, D] as an Arrow array of ``field_type`` without copying (the dtype must agree)."""
    assert values.ndim == 2
    assert values.shape[1] == field_type.list_size
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), type=field_type.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, type=field_type)


def vectors(column: pa.ChunkedArray | pa.Array) -> np.ndarray[Any, Any]:
    """View a fixed-size-list column as a numpy array [N, D]; copies only when the column has several chunks."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # combine_chunks of an empty column
        return np.zeros((0, column.type.list_size), dtype=column.type.value_type.to_pandas_dtype())
    flat = array.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(-1, array.type.list_size)  # type: ignore[no-any-return]


def sentence_id(lang: str, doc_id: str, sent_idx: int) -> int:
    """The 64-bit id of a sentence: a hash of language, document and position, so it survives re-sharding.

    The language takes part because parallel corpora give the translations of a document the same id.
    """
    digest = xxhash.xxh64_intdigest(f"{lang}\x1f{doc_id}\x1f{sent_idx}".encode())
    return digest - (1 << 64) if digest >= 1 << 63 else digest


def writer_settings(schema: pa.Schema) -> dict[str, Any]:
    """Keyword arguments for ``pyarrow.parquet.ParquetWriter``.

    Vectors are stored plain, without dictionary or statistics (pyarrow's defaults cost 4x on writing and 8x on
    reading half floats); codes are byte-split and compressed, which reaches their entropy; everything else is
    compressed, and page index and checksums are on.
    """
    compression: dict[str, str] = {}
    statistics: list[str] = []
    byte_split: dict[str, bool] = {}
    for field in schema:
        if not pa.types.is_fixed_size_list(field.type):
            compression[field.name] = "zstd"
            statistics.append(field.name)
        elif pa.types.is_floating(field.type.value_type):
            compression[f"{field.name}.list.element"] = "none"
        else:
            # The low bytes lie before the high ones, and only these have less than 8 bits. In a row group of 1,024 rows
            # both are one block of zstd, under one code for both (116 bytes a row of 64 x 13 bits; deflate: 106).
            compression[f"{field.name}.list.element"] = "gzip"
            byte_split[f"{field.name}.list.element"] = True
    return {
        "compression": compression,
        "compression_level": {name: _LEVELS[codec] for name, codec in compression.items() if codec in _LEVELS},
        "use_dictionary": [name for name in schema.names if name in _DICTIONARY_COLUMNS],
        "write_statistics": statistics,
        "use_byte_stream_split": byte_split or False,
        "write_page_index": True,
        "write_page_checksum": True,
        "store_schema": True,
    }
