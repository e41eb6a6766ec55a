"""Corpora of an older layout: read and built upon as they are, continued by nobody; advice names the right folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobs import ODD, check_whole, cli, copy, embedded, error_line, snapshot, write_jsonl
from oldlayout import make_version_1

from lcm_data.corpus import open_corpus
from lcm_data.errors import PlanMismatchError, UsageError
from pipelines import encode, quantize, segment
from pipelines.encode import EncodeConfig
from pipelines.look import corpus_status, statistics, verify_corpus
from pipelines.quantize import QuantizeConfig
from pipelines.segment import SegmentConfig

ODD_DECODER = ("--backend", "odddecoder:OddDecoder", "--model", "one", "--lang", "fr")


def how(corpus: Path) -> dict[str, str]:
    return {"corpus": str(corpus), "executor": "local"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of layout 1 with all its stages. Read only: copy it to change it."""
    folder = tmp_path_factory.mktemp("old")
    write_jsonl(folder / "in.jsonl", embedded(["eng_Latn"]))
    corpus = folder / "corpus"
    segment.run(SegmentConfig(inputs=[str(folder / "in.jsonl")], unit_bytes=2000, **how(corpus)))
    encode.run(EncodeConfig(model="one", backend="oddencoder:OddEncoder", **how(corpus)))
    quantize.run(QuantizeConfig(levels=2, units=8, iterations=2, **how(corpus)))
    return make_version_1(corpus)


def test_it_can_be_looked_at(made: Path) -> None:
    before = snapshot(made)
    assert {stage["state"] for stage in corpus_status(str(made))} == {"complete"}
    assert verify_corpus(str(made), "hash")["problems"] == 0
    (row,) = statistics(str(made), "embeddings", None, None)["rows"]
    assert "unk mean" not in row
    assert row["sentences"] == len(open_corpus(made).embeddings)
    data = open_corpus(made).embeddings
    assert sum(len(document.vectors()) for document in data.documents()) == len(data)
    assert snapshot(made) == before


def test_a_column_it_lacks_is_asked_for(made: Path) -> None:
    with pytest.raises(UsageError, match=r"no column 'n_unk' in .*/embeddings\..*version 1.*'lcm-data encode --overwr"):
        open_corpus(made).embeddings.table(columns=["n_unk"])
    with pytest.raises(UsageError, match=r"no column 'x' in .*/segments\..*'lcm-data segment --overwrite'"):
        open_corpus(made).segments.table(columns=["x"])


def test_it_is_decoded(made: Path, tmp_path: Path) -> None:
    cli("decode", made, tmp_path / "out", *ODD_DECODER)
    check_whole(tmp_path / "out", ["segments"])
    assert len(open_corpus(tmp_path / "out").segments) == len(open_corpus(made).embeddings)


def test_the_next_stage_is_made_of_it(made: Path, tmp_path: Path) -> None:
    corpus = copy(made, tmp_path / "corpus")
    cli("encode", corpus, *ODD, "--overwrite")
    assert open_corpus(corpus).embeddings.table(columns=["n_unk"]).num_rows
    assert [stage["state"] for stage in corpus_status(str(corpus))] == [
        *("complete", "complete"), "outdated, rerun with --overwrite",
    ]  # fmt: skip


def test_nobody_continues_it(made: Path, tmp_path: Path) -> None:
    before = snapshot(made)
    message = error_line("encode", made, *ODD, code=4)
    assert f"{made}/embeddings has layout version 1, this version of lcm-data writes 3" in message
    assert "Add --overwrite to make this stage anew" in message
    error_line("encode", made, *ODD, "--dry-run", code=4)
    assert snapshot(made) == before


def test_a_newer_one_is_not_read(made: Path, tmp_path: Path) -> None:
    corpus = copy(made, tmp_path / "corpus")
    manifest = corpus / "embeddings/_lcm/manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 4'))
    with pytest.raises(PlanMismatchError, match=r"/embeddings has layout version 4, .* reads 1 to 3. Use the lcm-data"):
        _ = open_corpus(corpus).embeddings
