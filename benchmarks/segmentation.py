"""Sentence boundaries, ours against spaCy's rule-based sentencizer: F1 per language and speed, on the same texts.

    python benchmarks/segmentation.py GOLD [--split dev] [--langs en,de] [--others naive,pysbd,icu]

GOLD is a file or folder of JSON lines with ``lang`` (en or eng_Latn), ``split``, ``text`` and ``sentences`` (in order;
they make up the text but for whitespace), or a .tar.zst of such files. F1 is of sentence boundaries inside paragraphs:
a boundary is the number of non-space characters before it, the end of a paragraph is not counted, and counts are summed
over a language before F1 is taken.

Traps: (1) spaCy has no tokenizer here for some languages (ja, ko, th without extra packages; ka and others not at
all); the multi-language ``xx`` stands in, as in ``lcm_data.segment.spacy_adapter``, and its poor figures are the
package's as installed. (2) Gold groups of unrelated sentences ("synthetic10") hold real boundaries, but no context.
(3) Speed is of one process on the paragraphs in memory, best of three, which lets spaCy find its words
in its tokenizer's cache; run nothing else on the core.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import re
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lcm_data.segment import Segmenter, Span, load_segmenter
from lcm_data.segment.codes import iso1

Record = dict[str, Any]
Cutter = Callable[[Sequence[str], str], list[list[Span]]]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gold", type=Path, help="JSON lines: a file, a folder of files, or a .tar.zst of files")
    parser.add_argument("--split", help="only this split (train, dev, test); default: all")
    parser.add_argument("--langs", help="only these languages, comma-separated, as they are spelled in GOLD")
    parser.add_argument("--others", default="", help="more to compare: naive, pysbd, icu (comma-separated)")
    args = parser.parse_args(argv)
    by_lang: dict[str, list[Record]] = defaultdict(list)
    for record in read_gold(args.gold):
        if args.split in (None, record["split"]) and (not args.langs or record["lang"] in args.langs.split(",")):
            by_lang[record["lang"]].append(record)
    if not by_lang:
        raise SystemExit(f"no records in {args.gold} match --split {args.split} --langs {args.langs}")
    cutters: dict[str, Cutter] = {"rules": _ours("rules"), "spacy": _ours("spacy")}
    cutters |= {name: _OTHERS[name]() for name in args.others.split(",") if name}
    print("lang   sents  " + "  ".join(f"{name:>7} F1   MB/s" for name in cutters) + "   rules/spacy speed")
    totals: dict[str, list[float]] = defaultdict(list)
    for lang in sorted(by_lang):
        _print_row(lang, by_lang[lang], cutters, totals)
    means = "  ".join(f"{sum(f1 for f1 in totals[name]) / len(totals[name]):10.1f}       " for name in cutters)
    print(f"macro         {means}")


def _print_row(lang: str, records: list[Record], cutters: dict[str, Cutter], totals: dict[str, list[float]]) -> None:
    paragraphs = [unit for record in records for unit in units(record)]
    texts = [text for text, _ in paragraphs]
    row, speeds = "", {}
    for name, cut in cutters.items():
        try:
            spans, seconds = timed(cut, texts, lang)
        except LookupError as error:
            row += f"  {error!s:>17}"
            continue
        f1 = boundary_f1(paragraphs, spans)
        speeds[name] = sum(len(text.encode()) for text in texts) / 1e6 / seconds
        totals[name].append(f1)
        row += f"  {f1:10.1f} {speeds[name]:6.2f}"
    ratio = speeds["rules"] / speeds["spacy"]
    print(f"{lang:6} {sum(len(record['sentences']) for record in records):6}{row}   {ratio:6.1f}x", flush=True)


def read_gold(path: Path) -> Iterator[Record]:
    """Yield the records of a file, of the files of a folder, or of a .tar.zst archive of files.

    Raises:
        SystemExit: no such path.
    """
    if path.is_dir():
        for file in sorted(path.rglob("*.jsonl")):
            yield from read_gold(file)
    elif path.name.endswith(".tar.zst"):
        import zstandard

        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            unpacked = io.BytesIO(stream.read())
        with tarfile.open(fileobj=unpacked) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None and member.name.endswith(".jsonl"):
                    yield from (json.loads(line) for line in content)
    elif path.is_file():
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines)
    else:
        raise SystemExit(f"no gold file or folder {path}")


def num_visible(text: str) -> int:
    """Count the characters of ``text`` that are not whitespace."""
    return len(re.sub(r"\s+", "", text))


def boundaries(pieces: Iterable[str]) -> set[int]:
    """Return the inner boundaries of consecutive sentences, each as the number of non-space characters before it."""
    found, position = set(), 0
    for piece in pieces:
        position += num_visible(piece)
        found.add(position)
    return found - {position, 0}


def units(record: Record) -> Iterator[tuple[str, set[int]]]:
    """Yield each paragraph of a record (blank lines separate them) with the gold boundaries inside it."""
    gold, position = boundaries(record["sentences"]), 0
    for paragraph in re.split(r"\n\s*\n", record["text"]):
        length = num_visible(paragraph)
        yield paragraph, {cut - position for cut in gold if position < cut < position + length}
        position += length


def boundary_f1(paragraphs: Sequence[tuple[str, set[int]]], spans: Sequence[Sequence[Span]]) -> float:
    """Return the micro F1 of the boundaries, in percent (100 where there are none and none was found)."""
    hits = num_gold = num_found = 0
    for (text, gold), cuts in zip(paragraphs, spans, strict=True):
        found = boundaries(text[start:end] for start, end in cuts)
        hits += len(gold & found)
        num_gold += len(gold)
        num_found += len(found)
    return 200 * hits / (num_gold + num_found) if num_gold + num_found else 100.0


def timed(cut: Cutter, texts: Sequence[str], lang: str) -> tuple[list[list[Span]], float]:
    """Return the spans and the seconds of the fastest of three runs, after one short run that loads what is needed."""
    cut(texts[:1], lang)
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        spans = cut(texts, lang)
        best = min(best, time.perf_counter() - begin)
    return spans, best


def _ours(name: str) -> Cutter:
    segmenter: Segmenter = load_segmenter(name)
    return segmenter.segment


def _naive() -> Cutter:
    pattern = re.compile(r"[.!?…。！？।۔؟։።။]+[\"'”’»)\]]*\s+|[。！？]+[」』”]*")

    def cut(texts: Sequence[str], lang: str) -> list[list[Span]]:
        ends = [[*(match.end() for match in pattern.finditer(text)), len(text)] for text in texts]
        return [list(zip([0, *cuts], cuts, strict=False)) for cuts in ends]

    return cut


def _pysbd() -> Cutter:
    pysbd = importlib.import_module("pysbd")

    def cut(texts: Sequence[str], lang: str) -> list[list[Span]]:
        try:
            segmenter = pysbd.Segmenter(language=iso1(lang), clean=False, char_span=True)
        except ValueError:
            raise LookupError("no rules") from None
        return [[(span.start, span.end) for span in segmenter.segment(text)] for text in texts]

    return cut


def _icu() -> Cutter:
    icu = importlib.import_module("icu")

    def cut(texts: Sequence[str], lang: str) -> list[list[Span]]:
        breaker = icu.BreakIterator.createSentenceInstance(icu.Locale(iso1(lang)))
        spans = []
        for text in texts:
            breaker.setText(text)  # its offsets count UTF-16 units
            units, ends = text.encode("utf-16-le"), list(breaker)
            points = [len(units[: 2 * end].decode("utf-16-le")) for end in ends]
            spans.append(list(zip([0, *points], points, strict=False)))
        return spans

    return cut


_OTHERS: dict[str, Callable[[], Cutter]] = {"icu": _icu, "naive": _naive, "pysbd": _pysbd}

if __name__ == "__main__":
    main()
