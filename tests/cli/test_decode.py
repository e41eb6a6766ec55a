"""``lcm-data decode`` as its users see it: what it prints, what it makes, and what can be done with that."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import ODD, check_whole, cli, copy, embedded, error_line, snapshot, tables

from lcm_data.corpus import open_corpus

ODD_DECODER = ("--backend", "odddecoder:OddDecoder", "--model", "one")


@pytest.fixture(scope="module")
def said(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished decoded corpus. Read only: copy it to change it."""
    out = tmp_path_factory.mktemp("said") / "out"
    report = cli("decode", finished, out, "--lang", "fr", *ODD_DECODER, "--json").json
    assert report["verb"] == "decode"
    assert report["manifest"]["rows_in"] == report["manifest"]["rows"] == len(open_corpus(finished).embeddings)
    assert report["units_done"] > 1
    return out


def test_a_report_for_people(finished: Path, said: Path) -> None:
    text = cli("decode", finished, said, "--lang", "fra_Latn", *ODD_DECODER).out
    assert text.startswith(f"decode: {said}/segments")
    assert re.search(r"^truncated +\d+ *$", text, flags=re.M)
    assert re.search(r"^mean score +-\d\.\d{3} \(log probability a token\)", text, flags=re.M)
    assert "nothing left to do" in text


def test_a_dry_run_creates_nothing(finished: Path, tmp_path: Path) -> None:
    planned = cli("decode", finished, tmp_path / "out", "--lang", "fr", *ODD_DECODER, "--dry-run", "--json").json
    assert planned["units"] == planned["units_open"] > 1
    assert planned["bytes_out"] > 0
    assert planned["seconds"] > 0
    assert snapshot(tmp_path) == {}


def test_the_looking_verbs_know_it(said: Path, call: Callable[..., Any]) -> None:
    assert call("verify", said, "--json").json["problems"] == 0
    (stage,) = call("status", said, "--json").json["stages"]
    assert (stage["stage"], stage["state"]) == ("segments", "complete")
    (row,) = call("inspect", said, "--json").json["rows"]
    assert row["lang"] == "fra_Latn"
    assert row["score mean"] < row["score max"] < 0
    head = call("inspect", said, "--head", 2, "--json").json["rows"]
    assert {"sid", "source_lang", "score", "text", "truncated"} <= set(head[0])
    assert "source_lang" in call("inspect", said, "--head", 2).out


def test_the_sentences_are_a_corpus_to_encode_and_decode(finished: Path, said: Path, tmp_path: Path) -> None:
    """Back-translation: what was said is encoded and said again, still under the ids of the first sentences."""
    corpus = copy(said, tmp_path / "corpus")
    cli("encode", corpus, *ODD)
    check_whole(corpus, ["segments", "embeddings"])
    assert "decoder_revision" in open_corpus(corpus).embeddings.metadata
    back = tmp_path / "back"
    cli("decode", corpus, back, "--lang", "eng_Latn", *ODD_DECODER)
    check_whole(back, ["segments"])
    first = open_corpus(finished).segments.table(columns=["sid"])["sid"].to_pylist()
    again = open_corpus(back).segments.table(columns=["sid", "source_lang"])
    assert sorted(first) == sorted(again["sid"].to_pylist())
    assert set(again["source_lang"].to_pylist()) == {"fra_Latn"}


def test_duckdb_joins_it_with_the_first_sentences(finished: Path, said: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    parts = [
        f"read_parquet('{corpus}/segments/data/**/*.parquet', hive_partitioning = true)" for corpus in (finished, said)
    ]
    query = f"SELECT count(*), bool_and(a.lang = b.source_lang) FROM {parts[0]} a JOIN {parts[1]} b USING (sid, doc_id)"
    assert duckdb.sql(query).fetchall() == [(len(open_corpus(finished).segments), True)]


def test_errors_say_what_to_do(finished: Path, said: Path, tmp_path: Path) -> None:
    where = (finished, tmp_path / "out")
    assert "lang: is required" in error_line("decode", *where, *ODD_DECODER)
    message = error_line("decode", *where, "--lang", "fraa_Latn", *ODD_DECODER)
    assert "lang: unknown language 'fraa_Latn'. Did you mean 'fra_Latn'?" in message
    assert not (tmp_path / "out").exists()
    assert "Give another folder" in error_line("decode", finished, finished, "--lang", "fr", *ODD_DECODER)
    message = error_line("decode", finished, said, "--lang", "fr", *ODD_DECODER, "--beam-size", 3, code=4)
    assert "config decoder.beam_size: '5' -> '3'" in message


@pytest.mark.slow
def test_a_round_trip_through_networks(finished: Path, tmp_path: Path) -> None:
    """encode, decode, encode with a network of SONAR's architecture (whose random sentences mean nothing)."""
    from lcm_data.sonar.random_model import write_random_checkpoint

    model = write_random_checkpoint(
        tmp_path / "model", [doc["text"] for doc in embedded()], model_dim=32, num_layers=1, vocab_size=800,
        decoder_layers=1, max_target_tokens=20,
    )  # fmt: skip
    corpus, out = copy(finished, tmp_path / "corpus"), tmp_path / "out"
    cli("encode", corpus, "--model", model, "--overwrite")
    cli("decode", corpus, out, "--model", model, "--lang", "deu_Latn", "--mode", "greedy")
    cli("encode", out, "--model", model)
    check_whole(out, ["segments", "embeddings"])
    assert sum(table.num_rows for table in tables(out, "embeddings").values()) == len(open_corpus(finished).segments)
    assert (
        open_corpus(out).embeddings.metadata["source_encoder_revision"]
        == (open_corpus(out).embeddings.metadata["encoder_revision"])
    )
