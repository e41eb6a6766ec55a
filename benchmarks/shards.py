"""Shards of embeddings written and read with our settings, against pyarrow's defaults, on the same rows in one run.

    python -m benchmarks.shards [--rows 50000] [--dim 1024] [--rounds 3]

The two take turns, round by round; each figure is the median of the rounds in MB of raw vectors per CPU-second of this
process, with one thread (``pyarrow.set_cpu_count(1)``). Traps: files are warm in the page cache; pyarrow's defaults
are what ``pq.write_table(table)`` does today (dictionary and Snappy); random values of SONAR's scale (sigma 0.007)
compress as little as real ones.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lcm_data import schema
from lcm_data.store.files import open_files
from lcm_data.store.shard import iter_row_groups, write_shard


def make_table(rows: int, dim: int) -> pa.Table:
    rng = np.random.default_rng(0)
    spec = schema.embeddings_schema(dim)
    columns = {
        "sid": rng.integers(0, 2**62, rows),
        "doc_id": [f"document-{row // 20:07d}" for row in range(rows)],
        "sent_idx": np.arange(rows) % 20,
        "text": [f"Sentence number {row} of a document about nothing in particular." for row in range(rows)],
        "n_tokens": rng.integers(5, 60, rows),
        "n_unk": np.zeros(rows, np.int32),
        "truncated": np.zeros(rows, bool),
        "norm": rng.random(rows, np.float32),
        "emb": schema.vector_array(
            (rng.standard_normal((rows, dim)) * 0.007).astype(np.float16), spec.field("emb").type
        ),
    }
    return pa.Table.from_arrays([pa.array(columns[field.name], type=field.type) for field in spec], schema=spec)


def cpu(function: Callable[[], object]) -> float:
    begun = time.process_time()
    function()
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    pa.set_cpu_count(1)
    table = make_table(args.rows, args.dim)
    megabytes = args.rows * args.dim * 2 / 1e6
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = Path(folder, "theirs.parquet"), Path(folder, "ours.parquet")
        files = open_files(folder)

        def read_all(path: Path) -> None:
            for group in iter_row_groups(files, path.name, ["emb"]):
                schema.vectors(group["emb"])

        def read_row(path: Path) -> None:
            rng = np.random.default_rng(1)
            with pq.ParquetFile(path, memory_map=True) as file:
                size = file.metadata.row_group(0).num_rows
                for row in rng.integers(0, args.rows, 8):
                    group = min(int(row) // size, file.num_row_groups - 1)
                    file.read_row_group(group, columns=["emb"])

        work = {
            "write": (lambda: pq.write_table(table, theirs), lambda: write_shard(ours, table, {})),
            "read all vectors": (lambda: read_all(theirs), lambda: read_all(ours)),
            "8 random rows": (lambda: read_row(theirs), lambda: read_row(ours)),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
        for _ in range(args.rounds):
            for name, (peer, own) in work.items():
                times[name].append((cpu(peer), cpu(own)))
        sizes = theirs.stat().st_size / megabytes / 1e6, ours.stat().st_size / megabytes / 1e6
    print(f"{args.rows:,} rows x {args.dim} half floats, median of {args.rounds} rounds, one thread")
    print(f"{'':18} {'pyarrow defaults':>18} {'ours':>18} {'ratio':>8}")
    for name, pairs in times.items():
        peer, own = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
        if name.startswith("8"):
            print(f"{name:18} {peer / 8 * 1e3:13.1f} ms/r {own / 8 * 1e3:13.1f} ms/r {ratio:7.1f}x")
        else:
            print(f"{name:18} {megabytes / peer:13.0f} MB/s {megabytes / own:13.0f} MB/s {ratio:7.1f}x")
    print(f"{'size / raw':18} {sizes[0]:18.3f} {sizes[1]:18.3f}")


if __name__ == "__main__":
    main()
