"""The rows of documents that a model wrote on: their prefixes, if wanted, and what was generated, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lcm_data import schema

COLUMNS = (*schema.ID_COLUMNS, *schema.TOKEN_COLUMNS, "truncated", "norm", "emb")
"""What is read of the embeddings that are continued."""


@dataclass(frozen=True)
class GeneratedDocument:
    """A document of a corpus and its continuation: rows of the source that were the prefix, new vectors [N, D]."""

    doc_id: str
    prefix: pa.Table
    first: int
    """``sent_idx`` of the first new row."""
    x_ND: np.ndarray[Any, np.dtype[np.float32]]
    stop: str


def generated_table(
    lang: str, documents: Sequence[GeneratedDocument], dim: int, dtype: schema.StoreDtype, with_prefix: bool
) -> pa.Table:
    """The rows of the generated schema, documents in order."""
    target = schema.generated_schema(dim, dtype)
    empty = target.empty_table()
    parts = [_rows(lang, document, target, dtype, with_prefix) for document in documents]
    return pa.concat_tables([empty, *parts]).combine_chunks()


def _rows(
    lang: str, document: GeneratedDocument, target: pa.Schema, dtype: schema.StoreDtype, with_prefix: bool
) -> pa.Table:
    kept = document.prefix if with_prefix else document.prefix.slice(0, 0)
    num_old, num_new = kept.num_rows, len(document.x_ND)
    index_N = np.arange(document.first, document.first + num_new, dtype=np.int32)
    norm_N = np.sqrt(np.square(document.x_ND, dtype=np.float64).sum(axis=1)).astype(np.float32)
    new: dict[str, Any] = {
        "sid": [schema.sentence_id(lang, document.doc_id, int(index)) for index in index_N],
        "doc_id": [document.doc_id] * num_new,
        "sent_idx": index_N,
        "n_tokens": np.zeros(num_new, np.int32),
        "n_unk": np.zeros(num_new, np.int32),
        "truncated": np.zeros(num_new, bool),
        "norm": norm_N,
        "emb": document.x_ND.astype(dtype),
    }
    columns = []
    for field in target:
        if field.name == "generated":
            columns.append(pa.array(np.arange(num_old + num_new) >= num_old))
        elif field.name == "stop":
            columns.append(pa.array([""] * (num_old + num_new - 1) + [document.stop] * min(1, num_old + num_new)))
        elif field.name == "emb":
            vectors_ND = np.concatenate([schema.vectors(kept["emb"]).astype(dtype), new["emb"]])
            columns.append(schema.vector_array(vectors_ND, field.type))
        else:
            old = kept[field.name].combine_chunks().cast(field.type)
            columns.append(pa.concat_arrays([old, pa.array(new[field.name], field.type)]))
    return pa.Table.from_arrays(columns, schema=target)
