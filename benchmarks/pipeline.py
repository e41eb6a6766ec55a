"""The three commands on real documents: documents/s, sentences/s and MB/s of each stage, busy share, peak memory.

    python -m benchmarks.pipeline [DOCUMENTS] [--workers 1] [--model-dim 64] [--layers 2] [--levels 8] [--units 256]

DOCUMENTS is any input of ``lcm-data segment`` (by default the embedded demo documents, 50 times over). It runs
once and at four times the size (every document four times under new ids); the memory of the largest worker should stay.
The encoder has random weights and is small, so ``encode`` shows the pipeline more than the net; MB/s are of text for
``segment`` and of vectors for the others. Workers are local processes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from lcm_data.corpus import open_corpus
from lcm_data.documents import Columns, Document, list_inputs, pieces, read, scan
from lcm_data.sonar.random_model import write_random_checkpoint
from pipelines import encode, quantize, segment
from pipelines.stage import Report


def write_copies(documents: str, target: Path, copies: int) -> None:
    """All documents of the input ``copies`` times under different ids."""
    parts = [part.slice for piece in pieces(list_inputs([documents]).files) for part in scan(piece, Columns())]
    with open(target, "w", encoding="utf-8") as out:
        for copy in range(copies):  # one after the other, so that no unit sees a document twice
            for item in (item for part in parts for item in read(part, Columns())):
                if isinstance(item, Document):
                    row = {"id": f"{copy}/{item.doc_id}", "lang": item.lang, "text": item.text}
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")


def run(lines: Path, folder: Path, model: Path, args: argparse.Namespace) -> list[tuple[Report, float]]:
    """The three stages with the MB each moved."""
    common: dict[str, Any] = {"corpus": str(folder), "executor": "local", "workers": args.workers}
    reports = [segment.run(segment.SegmentConfig(inputs=[str(lines)], **common))]
    if not model.exists():
        texts = [
            text for batch in open_corpus(folder).segments.batches(columns=["text"]) for text in batch["text"][::40]
        ]
        write_random_checkpoint(
            model, texts, model_dim=args.model_dim, num_layers=args.layers, num_heads=4, vocab_size=16000
        )
    reports.append(encode.run(encode.EncodeConfig(model=str(model), **common)))
    reports.append(
        quantize.run(quantize.QuantizeConfig(levels=args.levels, units=args.units, sample_rows=50_000, **common))
    )
    vectors = len(open_corpus(folder).embeddings) * args.model_dim * 2 / 1e6
    return list(zip(reports, (lines.stat().st_size / 1e6, vectors, vectors), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="?")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--model-dim", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--levels", type=int, default=8)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1, 4], help="How many times over the documents are run."
    )
    args = parser.parse_args()
    documents = args.documents or str(files("lcm_data") / "assets" / "demo")
    repeat = 1 if args.documents else 50
    print(f"{args.workers} workers, encoder of width {args.model_dim} with {args.layers} layers")
    widths = {"size": 6, "in": 10, "sentences": 11, "rejects": 9, "s": 8, "in/s": 9, "sent/s": 10, "MB/s": 8}
    widths |= {"busy": 7, "peak MB": 9}
    print(" " * 12 + "".join(f"{name:>{width}}" for name, width in widths.items()))
    with tempfile.TemporaryDirectory() as name:
        model = Path(name, "model")
        for size in args.sizes:
            lines = Path(name, f"{size}.jsonl")
            write_copies(documents, lines, size * repeat)
            for report, megabytes in run(lines, Path(name, f"corpus-{size}"), model, args):
                manifest = report.manifest
                assert manifest.rows_in == manifest.rows_done + sum(manifest.rejects.values())
                print(
                    f"{report.stage:12}{size:>5}x{manifest.rows_in:>10,}{manifest.rows:>11,}"
                    f"{sum(manifest.rejects.values()):>9,}{report.seconds:>8.1f}{report.rows_per_second:>9,.0f}"
                    f"{manifest.rows / report.seconds:>10,.0f}{megabytes / report.seconds:>8.1f}"
                    f"{report.busy_share:>7.0%}{report.peak_rss / 1e6:>9.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
