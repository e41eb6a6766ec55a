"""Moving rows through workers: our runner on local processes and on Ray, against Ray Data, with the same fake encoder.

    python -m benchmarks.units [--rows 120000] [--unit-rows 4000] [--workers 2]

All three read the same Parquet shards of sentences, compute the same vectors in the same number of worker processes and
write Parquet; ours also hashes, syncs and commits every shard. Seconds are wall time of the whole job with Ray already
running, so neither side pays for starting a cluster; ours starts its workers inside the measured time. Traps: Ray Data
merges small inputs into one block, so it is told the number of blocks; its files carry random names and no commits.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.fake_encoder import DIM, fake_vectors
from lcm_data.corpus import open_corpus
from pipelines import encode, segment


def make_corpus(folder: Path, rows: int, unit_rows: int) -> Path:
    """A corpus of ``rows`` short sentences in units of about ``unit_rows``."""
    lines = folder / "documents.jsonl"
    with open(lines, "w") as file:
        for document in range(rows // 20):
            text = " ".join(f"This is sentence {number} of document {document}." for number in range(20))
            file.write(json.dumps({"id": f"d{document}", "text": text}) + "\n")
    unit_bytes = lines.stat().st_size * unit_rows // rows
    segment.run(
        segment.SegmentConfig(
            inputs=[str(lines)],
            corpus=str(folder / "corpus"),
            lang="eng_Latn",
            validation=0,
            test=0,
            unit_bytes=unit_bytes,
        )
    )
    return folder / "corpus"


def ours(corpus: Path, executor: str, workers: int) -> float:
    begun = time.perf_counter()
    encode.run(
        encode.EncodeConfig(
            corpus=str(corpus), model="fake", backend="benchmarks.fake_encoder:FakeEncoder", executor=executor,
            workers=workers, threads=1, overwrite=True,
        )
    )  # fmt: skip
    return time.perf_counter() - begun


class RayDataEncoder:
    """The same work as a Ray Data batch function."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["emb"] = fake_vectors(batch["text"]).astype("float16")
        return batch


def ray_data(corpus: Path, target: Path, workers: int) -> float:
    import ray

    shards = sorted(str(path) for path in (corpus / "segments/data").rglob("*.parquet"))
    begun = time.perf_counter()
    dataset = ray.data.read_parquet(
        shards, columns=["sid", "doc_id", "sent_idx", "text"], override_num_blocks=len(shards)
    )
    dataset = dataset.map_batches(RayDataEncoder, compute=ray.data.ActorPoolStrategy(size=workers), batch_size=1024)
    dataset.write_parquet(str(target))
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=120_000)
    parser.add_argument("--unit-rows", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    import logging

    import ray

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = make_corpus(folder, args.rows, args.unit_rows)
        segments = open_corpus(corpus).segments
        units = len(segments.manifest.shards)
        ray.init(num_cpus=args.workers + 2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        seconds = {
            "ours, local": ours(corpus, "local", args.workers),
            "ours, Ray": ours(corpus, "ray", args.workers),
            "Ray Data": ray_data(corpus, folder / "ray-data", args.workers),
        }
        ray.shutdown()
        rows = len(open_corpus(corpus).embeddings)
    print(f"{rows:,} sentences, {units} units, {DIM} half floats, {args.workers} workers, {os.cpu_count()} cores")
    for label, value in seconds.items():
        ratio = seconds["Ray Data"] / value
        print(
            f"{label:12} {value:6.1f} s  {units / value:6.1f} units/s  {rows / value:9,.0f} sentences/s  {ratio:5.2f}x"
        )


if __name__ == "__main__":
    main()
