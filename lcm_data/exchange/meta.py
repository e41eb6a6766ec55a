"""The layout of the official LCM trainer: a row is a document, its sentences and their vectors are two lists.

``data/`` holds nothing but Parquet, partitioned by ``split=``, as that trainer's datasets want it; ``datacard.yaml`` is
the card its ``datacards`` folder takes. Documents keep their ids, languages and positions in columns of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lcm_data import schema
from lcm_data.corpus import CorpusDocument, StageData
from lcm_data.exchange.layouts import Export, OutFile, file_facts, in_dtype
from lcm_data.store.shard import METADATA_PREFIX, parse_shard_path, read_shard

SENTENCES, VECTORS = "text_sentences", "text_sentences_sonar_emb"
DATACARD = "datacard.yaml"

_GROUP_DOCUMENTS, _GROUP_VECTORS = 200, 8192
"""A row group is what one process of that trainer takes at once; it writes 200 documents itself."""


class MetaLayout:
    """``data/split=SPLIT/LANG-PART.parquet`` and ``datacard.yaml``."""

    stages = ("embeddings",)
    default = ("embeddings",)

    def files(self, export: Export) -> Iterator[OutFile]:
        for path, rows in export.shards("embeddings"):
            split, lang, part = parse_shard_path(path)
            name = f"data/split={split}/{lang}-{part:06d}.parquet"
            yield OutFile(name, rows, partial(_write, export, path))

    def extras(self, export: Export, files: Sequence[OutFile]) -> Mapping[str, bytes]:
        import yaml

        card = {
            "name": export.options.get("name") or export.place.rstrip("/").rpartition("/")[2],
            "parquet_path": {"s3": f"{export.place.rstrip('/')}/data"},  # the key is "s3" for local paths, too
            "source_column": VECTORS,
            "source_text_column": SENTENCES,
        }
        return {DATACARD: ("---\n" + yaml.safe_dump(card, sort_keys=False, allow_unicode=True)).encode()}


def nested_schema(dim: int, dtype: schema.StoreDtype) -> pa.Schema:
    """The columns of the official layout, and behind them those of ours that a way back needs."""
    item = pa.float16() if dtype == "float16" else pa.float32()
    return pa.schema(
        [
            pa.field(SENTENCES, pa.list_(pa.string())),
            pa.field(VECTORS, pa.list_(pa.list_(item, dim))),
            pa.field("doc_id", pa.string()),
            pa.field("lang", pa.string()),
            pa.field("sent_idx", pa.list_(pa.int32())),
        ]
    )


def _write(export: Export, path: str, file: Path) -> None:
    data = export.data("embeddings")
    target = nested_schema(data.dim, export.dtype or "float32")
    leaf = f"{VECTORS}.list.element.list.element"
    text = ("doc_id", "lang", f"{SENTENCES}.list.element")
    facts = file_facts(data, path)
    if export.dtype is not None:
        facts[f"{METADATA_PREFIX}store_dtype"] = export.dtype
    with pq.ParquetWriter(
        file,
        target.with_metadata(facts),
        compression={leaf: "none", "sent_idx.list.element": "zstd", **dict.fromkeys(text, "zstd")},
        use_dictionary=["lang"],
        write_statistics=["doc_id", "lang"],
        write_page_checksum=True,
    ) as writer:
        for documents in _groups(export, data, path):
            writer.write_table(_table(documents, target, path), row_group_size=len(documents))


def _groups(export: Export, data: StageData, path: str) -> Iterator[list[tuple[CorpusDocument, list[str]]]]:
    """Documents of a shard with their sentences, as many as a row group takes."""
    has_text = "text" in data.schema.names
    texts = {} if has_text else _texts(export, path)
    group: list[tuple[CorpusDocument, list[str]]] = []
    num_vectors = 0
    columns = ["sid", "sent_idx", "emb", *(["text"] if has_text else [])]
    for document in data.documents_of(path, columns):
        if group and (len(group) == _GROUP_DOCUMENTS or num_vectors + len(document) > _GROUP_VECTORS):
            yield group
            group, num_vectors = [], 0
        own = document["text"] if has_text else [texts.get(sid, "") for sid in document["sid"]]
        group.append((document, own))
        num_vectors += len(document)
    if group:
        yield group


def _texts(export: Export, path: str) -> dict[int, str]:
    """Sentences of a shard whose embeddings were made without text, by id; those of generated vectors are unknown."""
    if "segments" not in export.corpus.stages or path not in export.data("segments").shards():
        return {}
    table = read_shard(export.data("segments").files, path, ["sid", "text"])
    return dict(zip(table["sid"].to_pylist(), table["text"].to_pylist(), strict=True))


def _table(documents: Sequence[tuple[CorpusDocument, list[str]]], target: pa.Schema, path: str) -> pa.Table:
    inner = target.field(VECTORS).type.value_type
    x_ND = np.concatenate([document.vectors("emb") for document, _ in documents])
    ends = np.cumsum([len(document) for document, _ in documents], dtype=np.int32)
    offsets = pa.array(np.concatenate([np.zeros(1, np.int32), ends]))
    flat = pa.array(in_dtype(x_ND, inner.value_type.to_pandas_dtype(), path).reshape(-1), inner.value_type)
    columns: dict[str, Any] = {
        SENTENCES: pa.array([texts for _, texts in documents], target.field(SENTENCES).type),
        VECTORS: pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(flat, type=inner)),
        "doc_id": pa.array([document.doc_id for document, _ in documents], pa.string()),
        "lang": pa.array([parse_shard_path(path)[1]] * len(documents), pa.string()),
        "sent_idx": pa.array([document["sent_idx"] for document, _ in documents], target.field("sent_idx").type),
    }
    return pa.Table.from_arrays([columns[name] for name in target.names], schema=target)
