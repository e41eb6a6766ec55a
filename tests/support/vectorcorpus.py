"""An ``embeddings`` stage with given vectors and texts, without an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lcm_data import schema
from lcm_data.store.files import open_files
from lcm_data.store.manifest import build_manifest, save_manifest
from lcm_data.store.plan import Plan, Unit, save_plan
from lcm_data.store.shard import shard_path
from lcm_data.workers.output import UnitOutput, commit_output

PROVENANCE = {"encoder": "sonar-mini", "encoder_backend": "native", "encoder_revision": "0" * 64, "space": "given"}


def write_vectors(corpus: Path, parts: Mapping[tuple[str, str], Any], with_text: bool = True) -> Path:
    """Vectors [N, D] by (split, language), one shard each; documents have three sentences."""
    files = open_files(str(corpus)).child("embeddings")
    files.remove_tree()  # an earlier commit of the same plan would stand
    units = tuple(Unit(number, len(emb)) for number, emb in enumerate(parts.values()))
    save_plan(files, plan := Plan("embeddings", {}, {}, units, {"provenance": PROVENANCE}))
    commits = {}
    for number, ((split, lang), emb_ND) in enumerate(parts.items()):
        output = UnitOutput(number, rows_in=len(emb_ND), rows_done=len(emb_ND))
        output.tables[shard_path(split, lang, number)] = _table(lang, number, np.asarray(emb_ND), with_text)
        commits[number] = commit_output(files, output, plan.hash, lambda path: {"stage": "embeddings", **PROVENANCE})
    save_manifest(files, build_manifest(plan, commits))
    return corpus


def _table(lang: str, part: int, emb_ND: Any, with_text: bool) -> pa.Table:
    target = schema.embeddings_schema(emb_ND.shape[1], "float32", with_text)
    num = len(emb_ND)
    places = [(f"d{part}-{row // 3}", row % 3) for row in range(num)]
    values: dict[str, Any] = {
        "sid": [schema.sentence_id(lang, *place) for place in places],
        "doc_id": [doc for doc, _ in places],
        "sent_idx": pa.array([idx for _, idx in places], pa.int32()),
        "text": [f"{lang} {'x' * (row % 7)}" for row in range(num)],
        "n_tokens": pa.array([row % 5 for row in range(num)], pa.int32()),
        "n_unk": pa.array([0] * num, pa.int32()),
        "truncated": [False] * num,
        "norm": pa.array(np.linalg.norm(emb_ND, axis=1).astype(np.float32)),
        "emb": schema.vector_array(emb_ND.astype(np.float32), target.field("emb").type),
    }
    return pa.Table.from_arrays([pa.array(values[n]) if isinstance(values[n], list) else values[n] for n in target.names], schema=target)  # fmt: skip  # noqa: E501
