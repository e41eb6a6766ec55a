"""Batches for training from a corpus, against memory-mapped arrays (the limit), pandas and ``datasets``, in one run.

    python -m benchmarks.loader [--rows 60000] [--dim 1024] [--rounds 3] [--max-len 128] [--folder FOLDER]

Each reader gives batches of 8 rows x ``max-len`` half floats, documents in random order, until every document came
once. The limit copies the same documents out of one array on disk and does nothing else. The readers take turns; each
figure is the median of the rounds in concepts per CPU-second of this process, with one thread. Traps: files are warm in
the page cache; pandas and ``datasets`` give each document a padded row and shuffle documents only as far as they do by
themselves (a file; a permutation of indices); ``datasets`` has converted the files to its own cache before the clock
starts; it is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.shards import make_table
from lcm_data import schema
from lcm_data.store.files import open_files
from lcm_data.store.manifest import Manifest, save_manifest
from lcm_data.store.shard import ShardInfo, shard_path, write_shard
from lcm_models.data import ConceptLoader, DataConfig

ROWS_A_BATCH = 8
NESTED = "text_sentences_sonar_emb"


def make_lengths(rows: int) -> np.ndarray:
    """Long-tailed lengths of documents, 20 sentences in the middle, that add up to ``rows``."""
    lengths = np.maximum(1, np.random.default_rng(0).lognormal(np.log(20), 0.9, rows)).astype(int)
    lengths = lengths[np.cumsum(lengths) < rows]
    return np.append(lengths, rows - lengths.sum())


def write_corpus(folder: Path, table: pa.Table, num_shards: int) -> None:
    """The embeddings stage of a corpus, as ``encode`` writes it."""
    files, shards = open_files(folder / "embeddings"), []
    for part in range(num_shards):
        size = -(-len(table) // num_shards)
        own, path = table.slice(part * size, size), shard_path("train", "eng_Latn", part)
        file = Path(files.root, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_shard(file, own, {})
        shards.append(ShardInfo(path, len(own), file.stat().st_size, ""))
    num = len(table)
    files.write("_lcm/plan.json", b"{}")
    partitions = {"train/eng_Latn": num}
    save_manifest(files, Manifest("embeddings", "", "", num, num, num, {}, partitions, {}, {}, tuple(shards)))


def write_nested(folder: Path, x_ND: np.ndarray, ends: np.ndarray, num_files: int) -> None:
    folder.mkdir()
    for part, index in enumerate(np.array_split(np.arange(len(ends)), num_files)):
        start = int(ends[index[0] - 1]) if index[0] else 0
        flat = x_ND[start : ends[index[-1]]]
        vectors = schema.vector_array(flat, pa.list_(pa.field("element", pa.float16(), nullable=False), flat.shape[1]))
        offsets = pa.array(np.concatenate([[0], ends[index] - start]), pa.int32())
        table = pa.table({NESTED: pa.ListArray.from_arrays(offsets, vectors)})
        pq.write_table(
            table, folder / f"{part:04}.parquet", row_group_size=64, use_dictionary=False, compression="none"
        )


def padded(documents: Iterator[np.ndarray], max_len: int) -> int:
    """Documents a row each, cut at ``max_len``; how many concepts that were."""
    num, held = 0, []
    for document in documents:
        held += [torch.from_numpy(document[start : start + max_len]) for start in range(0, len(document), max_len)]
        num += len(document)
        while len(held) >= ROWS_A_BATCH:
            torch.nn.utils.rnn.pad_sequence(held[:ROWS_A_BATCH], batch_first=True)
            held = held[ROWS_A_BATCH:]
    return num


def mapped(file: Path, ends: np.ndarray, max_len: int, dim: int) -> int:
    """The limit: documents of one array into packed rows."""
    x_ND = np.load(file, mmap_mode="r")
    batch_ND, column = np.empty((ROWS_A_BATCH * max_len, dim), np.float16), 0
    for index in np.random.default_rng(0).permutation(len(ends)):
        start, stop = int(ends[index - 1]) if index else 0, int(ends[index])
        while start < stop:
            if column == len(batch_ND):
                torch.from_numpy(batch_ND)
                batch_ND, column = np.empty_like(batch_ND), 0
            size = min(stop - start, len(batch_ND) - column)
            batch_ND[column : column + size] = x_ND[start : start + size]
            start, column = start + size, column + size
    return len(x_ND)


def ours(folder: Path, kind: str, max_len: int, **settings: object) -> int:
    source = {"path": str(folder), "kind": kind}
    given = {"max_len": max_len, "batch_rows": ROWS_A_BATCH, "min_len": 1, "end_of_text": None, **settings}
    config = DataConfig.model_validate({"sources": [source], "endless": False, "prefetch": 0, **given})
    return sum(int((batch.doc_BS >= 0).sum()) for batch in ConceptLoader(config))


def pandas_rows(folder: Path) -> Iterator[np.ndarray]:
    import pandas as pd

    for file in sorted(folder.rglob("*.parquet")):
        frame = pd.read_parquet(file, columns=["doc_id", "emb"])
        for _, group in frame.groupby("doc_id"):
            yield np.stack(group["emb"].tolist())


def datasets_rows(folder: Path, cache: Path) -> Callable[[], Iterator[np.ndarray]]:
    from datasets import load_dataset

    files = [str(file) for file in sorted(folder.glob("*.parquet"))]
    data = load_dataset("parquet", data_files=files, split="train", cache_dir=str(cache)).with_format("numpy")

    def rows() -> Iterator[np.ndarray]:
        for index in np.random.default_rng(0).permutation(len(data)):
            yield np.stack(list(data[int(index)][NESTED])).astype(np.float16)

    return rows


def readers(folder: Path, args: argparse.Namespace) -> dict[str, Callable[[], int]]:
    """Write the data, and what reads them."""
    table, lengths = make_table(args.rows, args.dim), make_lengths(args.rows)
    ends, place = np.cumsum(lengths), table.schema.get_field_index("doc_id")
    names = pa.array(np.repeat([f"document-{number:07d}" for number in range(len(ends))], lengths))
    table = table.set_column(place, table.schema.field(place), names)
    x_ND = schema.vectors(table["emb"])
    np.save(folder / "all.npy", x_ND)
    write_corpus(folder / "corpus", table, args.shards)
    write_nested(folder / "nested", x_ND, ends, args.shards)
    print(f"{args.rows:,} concepts x {args.dim} half floats, {len(ends):,} documents, {args.shards} shards")
    max_len = args.max_len
    found: dict[str, Callable[[], int]] = {
        "memory-mapped array": lambda: mapped(folder / "all.npy", ends, max_len, args.dim),
        "ours, corpus": lambda: ours(folder / "corpus", "corpus", max_len),
        "ours, corpus, unpacked": lambda: ours(folder / "corpus", "corpus", max_len, pack=False),
        "ours, corpus, float32": lambda: ours(folder / "corpus", "corpus", max_len, dtype="float32"),
        "ours, nested": lambda: ours(folder / "nested", "nested", max_len),
        "pandas": lambda: padded(pandas_rows(folder / "corpus"), max_len),
    }
    if importlib.util.find_spec("datasets"):
        rows = datasets_rows(folder / "nested", folder / "cache")
        found["datasets, nested"] = lambda: padded(rows(), max_len)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-len", type=int, default=128)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--folder", help="where to write the data (a temporary folder)")
    args = parser.parse_args()
    pa.set_cpu_count(1)
    torch.set_num_threads(1)
    os.environ["HF_DATASETS_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        found = readers(Path(name), args)
        rates: dict[str, list[float]] = {reader: [] for reader in found}
        for number in range(args.rounds + 1):
            for reader, read in found.items():
                begun = time.process_time()
                concepts = read()
                seconds = time.process_time() - begun
                assert concepts == args.rows, (reader, concepts)
                if number:  # the first round warms up
                    rates[reader].append(concepts / seconds)
    limit = rates["memory-mapped array"]
    print(f"{'':24} {'concepts/CPU-s':>15} {'of the limit':>13}")
    for reader, own in rates.items():
        share = statistics.median(a / b for a, b in zip(own, limit, strict=True))
        print(f"{reader:24} {statistics.median(own):15,.0f} {share:12.1%}")


if __name__ == "__main__":
    main()
