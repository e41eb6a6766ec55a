"""The main job on an object store: the same result as on a disk, also after a driver is killed in the middle."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from jobs import ODD, SMALL_BOOK, check_whole, cli, commits_of, error_line, kill, start, tables, wait_for, write_jsonl

from pipelines import encode, quantize, segment
from pipelines.encode import EncodeConfig
from pipelines.look import corpus_status, verify_corpus
from pipelines.quantize import QuantizeConfig
from pipelines.segment import SegmentConfig

ROWS = [{"id": f"d{n:02d}", "lang": "eng_Latn", "text": f"Document {n}. It has two sentences."} for n in range(60)]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input and a finished corpus on a disk. Read only."""
    folder = tmp_path_factory.mktemp("local")
    write_jsonl(folder / "in" / "a.jsonl", ROWS[:30])
    write_jsonl(folder / "in" / "b.jsonl", ROWS[30:])
    how = {"corpus": str(folder / "corpus"), "executor": "local"}
    segment.run(SegmentConfig(inputs=[str(folder / "in")], unit_bytes=1000, **how))
    encode.run(EncodeConfig(backend="oddencoder:OddEncoder", model="one", **how))
    quantize.run(QuantizeConfig(levels=2, units=8, **how))
    return folder


def test_input_and_corpus_on_s3(local: Path, bucket: str) -> None:
    fsspec.filesystem("s3").put(f"{local}/in", f"{bucket}/in", recursive=True)
    corpus = f"{bucket}/deep/corpus"
    cli("segment", f"{bucket}/in", corpus, "--unit-bytes", 1000)
    cli("encode", corpus, *ODD)
    check_whole(corpus, ["segments", "embeddings"])
    for stage in ("segments", "embeddings"):  # the inputs have other versions there, so the plans differ, not the rows
        ours, theirs = tables(corpus, stage), tables(local / "corpus", stage)
        assert {path: table.replace_schema_metadata(None) for path, table in ours.items()} == {
            path: table.replace_schema_metadata(None) for path, table in theirs.items()
        }
    assert "d00" in cli("inspect", corpus, "--head", 3).out


@pytest.mark.slow
def test_a_killed_driver_on_s3(local: Path, bucket: str) -> None:
    corpus = f"{bucket}/corpus"
    cli("segment", local / "in", corpus, "--unit-bytes", 1000)
    driver = start("encode", corpus, *ODD, env={"ODD_PAUSE": "0.3"})
    wait_for(lambda: commits_of(corpus, "embeddings"))
    kill(driver.pid)
    driver.communicate()
    done, units = len(commits_of(corpus, "embeddings")), len(commits_of(local / "corpus", "embeddings"))
    assert 0 < done < units
    stage = corpus_status(corpus)[1]
    assert (stage["units_done"], stage["state"]) == (done, "stopped, rerun to resume")
    assert cli("encode", corpus, *ODD, "--json").json["units_done"] == units - done  # no lock is in the way
    cli("quantize", corpus, *SMALL_BOOK)
    assert check_whole(corpus) == check_whole(local / "corpus")
    assert verify_corpus(corpus, "hash")["problems"] == 0


def test_a_bucket_that_does_not_exist(local: Path, s3_server: str) -> None:
    message = error_line("segment", local / "in", "s3://no-such-bucket/corpus", code=3)
    assert "no-such-bucket" in message
    assert "no-such-bucket" in error_line("segment", "s3://no-such-bucket/in", local / "other", code=2)
    assert not (local / "other").exists()
