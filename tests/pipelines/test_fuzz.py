"""Hostile texts through ``lcm-data segment`` and ``encode``: a row arrives, saying what it lost, or is a reject."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fuzzing import normalized
from jobs import check_whole, cli, commits_of, rejects_of, tables
from manyscripts import ODDITIES, SENTENCES, noise, strings

from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.languages import FLORES_200
from lcm_data.sonar.tokenizer import UNK, SonarTokenizer

MODEL = Path(__file__).parent.parent / "parity" / "golden"
"""Weights and a vocabulary without bytes to fall back to."""

HALVES = ("\ud800", "broken \udfff half", "\ud83d \ude00")


def documents(count: int, seed: int) -> list[dict[str, Any]]:
    """Strings as they are, several in one, lines of 100,000 characters, and halves of characters."""
    rng = random.Random(seed)
    texts = strings(count, seed)
    texts += ["\n".join(rng.choices(texts, k=rng.randint(2, 30))) for _ in range(count // 20)]
    texts += ["a" * 100_000, "\u0e01" * 100_000, "\u0301" * 100_000, noise(rng, 20_000), "x y " * 25_000]
    texts += ["\ufdfa" * 200]  # each becomes 18 characters: too long for the network, though not for the cap
    texts += HALVES
    rng.shuffle(texts)
    langs = [lang for lang in SENTENCES if lang in FLORES_200][::5]
    return [{"id": f"d{n:05d}", "lang": rng.choice(langs), "text": text} for n, text in enumerate(texts)]


def check_segments(corpus: Path, docs: list[dict[str, Any]]) -> None:
    """Each document is there but for blanks between its sentences, or a reject with a reason."""
    rejects = {row["doc_id"]: row["reason"] for row in rejects_of(corpus, "segments")}
    spans: dict[str, list[dict[str, Any]]] = {}
    for table in tables(corpus, "segments").values():
        for row in table.to_pylist():
            spans.setdefault(row["doc_id"], []).append(row)
    assert spans.keys().isdisjoint(rejects)
    assert len(spans) + len(rejects) == len(docs)
    for doc in docs:
        text, rest, end = doc["text"], "", 0
        if doc["id"] in rejects:
            expected = "lone_surrogate" if text in HALVES else "empty_text"
            assert rejects[doc["id"]] == expected, (text, rejects[doc["id"]])
            assert expected != "empty_text" or not text.strip()
            continue
        for number, row in enumerate(spans[doc["id"]]):
            assert row["sent_idx"] == number
            assert row["text"] == text[row["char_start"] : row["char_end"]]
            rest += text[end : row["char_start"]]
            end = row["char_end"]
        assert not (rest + text[end:]).strip(), repr(text)


def check_embeddings(table: pa.Table, segments: pa.Table, lang: str) -> None:
    """Rows are those of the segments; counts are those of the ids; vectors are those of the encoder."""
    assert table["sid"].to_pylist() == segments["sid"].to_pylist()
    texts = table["text"].to_pylist()
    assert texts == segments["text"].to_pylist()
    whole = SonarTokenizer(MODEL / "sentencepiece.model", max_tokens=1 << 30)
    rows = whole.encode(texts, lang).rows()
    assert table["n_tokens"].to_pylist() == [min(514, len(row)) for row in rows]
    assert table["truncated"].to_pylist() == [len(row) > 514 for row in rows]
    assert table["n_unk"].to_pylist() == [int((row[:514] == UNK).sum()) for row in rows]
    for text, row, num_unknown in zip(texts, rows, table["n_unk"].to_pylist(), strict=True):
        if num_unknown == 0 and len(row) <= 514:
            assert whole.decode(row) == normalized(whole, text)
    emb = np.array(table["emb"].to_pylist(), np.float32)
    assert np.isfinite(emb).all()
    np.testing.assert_allclose(table["norm"].to_numpy(), np.linalg.norm(emb, axis=1), rtol=1e-3)
    encoder = load_encoder(EncoderOptions(model=str(MODEL), device="cpu", threads=1))
    some = list({text: row for row, text in enumerate(texts)}.values())[-20:]
    wanted = encoder.embed(encoder.prepare([texts[row] for row in some], lang))
    np.testing.assert_allclose(emb[some], wanted, atol=1e-3, rtol=0)


def run(tmp_path: Path, docs: list[dict[str, Any]], max_chars: int) -> Path:
    """Segment and encode through the command line, with checks of both."""
    corpus, source = tmp_path / "corpus", tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(doc) + "\n" for doc in docs))  # halves as escapes: UTF-8 cannot hold them
    size = ("--unit-bytes", 300_000, "--max-chars", max_chars)
    cli("segment", source, corpus, *size, "--max-reject-rate", 0.5, "--workers", 1)
    check_segments(corpus, docs)
    report = cli("encode", corpus, "--model", MODEL, "--workers", 1, "--threads", 1).out
    check_whole(corpus, ["segments", "embeddings"])
    assert rejects_of(corpus, "embeddings") == []
    segments = tables(corpus, "segments")
    for path, table in tables(corpus, "embeddings").items():
        check_embeddings(table, segments.pop(path), path.split("lang=")[1].split("/")[0])
    assert segments == {}
    found = pa.concat_tables(tables(corpus, "embeddings").values())
    counted = {
        "truncated": sum(found["truncated"].to_pylist()),
        "unknown": sum(n > 0 for n in found["n_unk"].to_pylist()),
        "blank": sum(n == 2 for n in found["n_tokens"].to_pylist()),
    }
    commits = commits_of(corpus, "embeddings").values()
    assert counted == {name: sum(commit.stats[name] for commit in commits) for name in counted}
    labels = {"truncated": "truncated", "unknown": "with unknown characters", "blank": "without content"}
    for name, label in labels.items():
        assert (f"{label}" in report) == (counted[name] > 0), report
    return corpus


@pytest.mark.parametrize("max_chars", [250, pytest.param(0, marks=pytest.mark.slow)])
def test_hostile_documents_through_the_command_line(tmp_path: Path, max_chars: int) -> None:
    docs = documents(len(SENTENCES) + len(ODDITIES) + 20, seed=4)
    corpus = run(tmp_path, docs, max_chars)
    found = pa.concat_tables(tables(corpus, "embeddings").values())
    assert sum(found["truncated"].to_pylist()) >= (1 if max_chars else 6)
    assert sum(n > 0 for n in found["n_unk"].to_pylist()) > 50
    assert sum(n == 2 for n in found["n_tokens"].to_pylist()) >= 5


@pytest.mark.slow
def test_many_hostile_documents_through_the_command_line(tmp_path: Path) -> None:
    run(tmp_path, documents(4000, seed=5), 250)
