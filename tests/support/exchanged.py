"""Small sources of vectors, imports without worker processes, what a corpus holds: for tests of import and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lcm_data import open_corpus, schema
from lcm_data.store.commits import read_commits
from lcm_data.store.files import open_files
from lcm_data.store.manifest import Manifest, build_manifest, load_manifest, save_manifest
from lcm_data.store.plan import save_plan
from lcm_data.workers.base import Task
from pipelines.export import ExportConfig, ExportReport
from pipelines.export import run as run_export
from pipelines.import_vectors import ImportConfig, embeddings_stage, look, segments_stage
from pipelines.stage import Stage

HOW: dict[str, Any] = {"lang": "eng_Latn", "space": "s", "validation": 0, "test": 0}
"""Settings of an import of rows that say nothing themselves."""
LANGS = ("eng_Latn", "fra_Latn", "ase_Zxxx")


def vectors(num: int, dim: int = 12, seed: int = 0) -> np.ndarray[Any, Any]:
    """Half floats of the size SONAR's have."""
    return (np.random.default_rng(seed).standard_normal((num, dim)) * 0.2).astype(np.float16)


def vector_column(x_ND: np.ndarray[Any, Any]) -> pa.Array:
    item = pa.from_numpy_dtype(x_ND.dtype)
    return pa.FixedSizeListArray.from_arrays(pa.array(x_ND.reshape(-1)), type=pa.list_(item, x_ND.shape[1]))


def write(path: Path, **columns: Any) -> Path:
    """A Parquet file of these columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def embeddings(corpus: Path) -> pa.Table:
    """All rows of the embeddings of a corpus."""
    return open_corpus(corpus).embeddings.table()


def write_flat(folder: Path, num: int = 240, dim: int = 12) -> Path:
    """Two Parquet files of documents of 1 to 7 sentences, in three languages and splits, two of them with gaps."""
    rng = np.random.default_rng(1)
    ids, places, langs, splits = [], [], [], []
    while len(ids) < num:
        size, gap = int(rng.integers(1, 8)), int(rng.integers(0, 3))
        number = len(set(ids))
        ids += [f"doc-{number:03d}"] * size
        places += [at + (gap if at > 2 else 0) for at in range(size)]
        langs += [LANGS[number % 3]] * size
        splits += [("train", "train", "validation", "test")[number % 4]] * size
    rows = {"doc_id": ids, "sent_idx": places, "lang": langs, "split": splits}
    table = pa.table({**rows, "text": [f"Sentence {n} of them. 好" for n in range(len(ids))]})
    table = table.append_column("emb", vector_column(vectors(len(ids), dim)))
    half = next(n for n in range(len(ids) // 2, len(ids)) if ids[n] != ids[n - 1])
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.slice(0, half), folder / "a.parquet", row_group_size=37)
    pq.write_table(table.slice(half), folder / "b.parquet")
    return folder


def import_here(source: Path | str, corpus: Path | str, **settings: Any) -> tuple[Manifest, Manifest]:
    """Import in this process, unit after unit; gives the manifests of both stages."""
    config = ImportConfig(source=str(source), corpus=str(corpus), **settings)
    found = look(config)
    make_here(segments_stage(config, found))
    segments = load_manifest(open_files(str(corpus)).child("segments"))
    make_here(embeddings_stage(config, found, segments))
    return segments, load_manifest(open_files(str(corpus)).child("embeddings"))


def make_here(stage: Stage) -> None:
    """All units of a stage, without a pool."""
    plan = stage.make_plan()
    save_plan(stage.files, plan)
    worker = stage.make_worker(plan)
    worker.setup()
    for unit in plan.units:
        commit = worker.write(worker.work(worker.read(Task(unit))))
        assert commit.rows_in == unit.rows == commit.rows_done + sum(commit.rejects.values())
    save_manifest(stage.files, build_manifest(plan, read_commits(stage.files)))


def export_to(corpus: Path | str, out: Path | str, layout: str, **settings: Any) -> ExportReport:
    return run_export(ExportConfig(corpus=str(corpus), out=str(out), layout=layout, **settings))


Content = dict[tuple[str, str], list[tuple[Any, ...]]]


def content_of(corpus: Path | str, bits: bool = True) -> Content:
    """By split and language, in order: id, document, position, text and the bits of the vector of every row."""
    data, found = open_corpus(corpus).embeddings, {}
    for split in data.splits:
        for lang in data.langs:
            rows: list[tuple[Any, ...]] = []
            for batch in data.batches(langs=[lang], splits=[split]):
                emb = batch.vectors("emb")
                text = batch["text"] if "text" in batch.table.column_names else [""] * len(batch)
                rows += zip(batch["sid"], batch["doc_id"], batch["sent_idx"], text, map(bytes, emb), strict=True)
            if rows:
                found[split, lang] = rows
    return found


def table_content(table: pa.Table, emb: str = "emb") -> list[tuple[Any, ...]]:
    """Document, position, text and bits of the vectors of a table."""
    x_ND = schema.vectors(table[emb])
    return list(zip(*(table[n].to_pylist() for n in ("doc_id", "sent_idx", "text")), map(bytes, x_ND), strict=True))
