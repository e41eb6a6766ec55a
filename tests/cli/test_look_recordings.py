"""What ``inspect`` says of recordings: totals against a plain count, in every stage, and pictures of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import write_jsonl
from recordings import cut_off, speech, stereo, write_recording
from speechcorpus import Spoken, write_segments

from lcm_data.cli import render
from lcm_data.corpus import open_corpus
from lcm_data.store.commits import RejectRow, read_commits
from lcm_data.store.files import open_files
from lcm_data.store.manifest import build_manifest, save_manifest
from lcm_data.store.plan import Plan, Unit, save_plan
from lcm_data.workers.output import UnitOutput, commit_output
from pipelines import segment
from pipelines.segment import SegmentConfig

for module in ("av", "onnxruntime", "matplotlib"):
    pytest.importorskip(module, reason="needs the extras 'audio' and 'quality'")

PNG = b"\x89PNG\r\n\x1a\n"

Call = Callable[..., Any]


def refused(call: Call, *args: object) -> str:
    message: str = call(*args, code=2).err
    return message


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two languages of recordings, one of text, a recording without speech and a broken one. Read only."""
    folder = tmp_path_factory.mktemp("look")
    write_recording(folder / "a.flac", speech(), rate=16_000)
    write_recording(folder / "b.flac", np.roll(speech(), 8000), rate=16_000)
    write_recording(folder / "both.opus", stereo())
    write_recording(folder / "hum.flac", np.full(50_000, 0.01), rate=16_000)
    cut_off(write_recording(folder / "cut.flac", rate=16_000))
    rows: list[dict[str, Any]] = [
        {"id": "a", "lang": "en", "path": "a.flac"},
        {"id": "b", "lang": "de", "path": "b.flac"},
        {"id": "both", "lang": "de", "path": "both.opus"},
        {"id": "hum", "lang": "de", "path": "hum.flac"},
        {"id": "cut", "lang": "de", "path": "cut.flac"},
        {"id": "text", "lang": "fr", "text": "Il fait beau. Nous sortons."},
    ]
    write_jsonl(folder / "m.jsonl", rows)
    segment.run(
        SegmentConfig(
            inputs=[str(folder / "m.jsonl")], corpus=str(folder / "corpus"), audio_column="path", executor="local",
            max_reject_rate=1, validation=0.3, test=0.3, unit_recordings=2,
        )
    )  # fmt: skip
    return folder / "corpus"


def test_totals(call: Call, corpus: Path) -> None:
    rows = [row for row in open_corpus(corpus).segments.table().to_pylist() if row["modality"] == "speech"]
    result = call("inspect", corpus, "--json").json
    assert [row["lang"] for row in result["recordings"]] == ["deu_Latn", "eng_Latn"]
    assert {row["lang"]: row["sentences"] for row in result["rows"]}["fra_Latn"] == 2
    seconds = {"eng_Latn": 11.1356875, "deu_Latn": 2 * 11.1356875}
    for found in result["recordings"]:
        mine = [row for row in rows if row["lang"] == found["lang"]]
        lengths = np.array([row["t_end"] - row["t_start"] for row in mine])
        assert (found["recordings"], found["segments"]) == (len({row["doc_id"] for row in mine}), len(mine))
        assert found["hours"] == pytest.approx(seconds[found["lang"]] / 3600, abs=1e-4)
        assert found["speech hours"] == pytest.approx(lengths.sum() / 3600, abs=1e-4)
        assert found["speech share"] == pytest.approx(found["speech hours"] / found["hours"], abs=0.02)
        assert found["seconds mean"] == pytest.approx(lengths.mean(), abs=0.01)
        assert found["seconds max"] == pytest.approx(lengths.max(), abs=0.01)
        assert np.sort(lengths)[(len(lengths) - 1) // 2] == pytest.approx(found["seconds median"], abs=0.01)
        assert found["loudness dB"] == pytest.approx(np.median([row["loudness_db"] for row in mine]), abs=3)
        edges, counts = result["durations"]["edges"], result["durations"]["segments"][found["lang"]]
        assert counts == np.histogram(lengths.round(2), edges)[0].tolist()
    out = call("inspect", corpus).out
    assert "lengths of segments: a bar is" in out
    assert "recordings" in out


def test_only_some_splits(call: Call, corpus: Path) -> None:
    rows = open_corpus(corpus).segments.table().to_pylist()
    splits = {row["split"] for row in rows if row["modality"] == "speech"}
    counted = 0
    for split in splits:
        result = call("inspect", corpus, "--split", split, "--json").json
        for found in result["recordings"]:
            docs = {row["doc_id"] for row in rows if (row["split"], row["lang"]) == (split, found["lang"])}
            assert found["recordings"] == len(docs - {"text"})
            assert found["hours"] == pytest.approx(found["recordings"] * 11.1356875 / 3600, abs=1e-4)
            counted += found["recordings"]
    assert counted == 3


def later_stage(corpus: Path, rejected: int) -> None:
    """A stage ``embeddings`` without one row of the only shard."""
    files = open_files(str(corpus))
    (commit,) = read_commits(files.child("segments")).values()
    (shard,) = commit.shards
    table = open_corpus(corpus).segments.table().select(["sid", "doc_id", "sent_idx"])
    kept = table.filter(np.arange(len(table)) != rejected)
    output = UnitOutput(0, rows_in=len(table), rows_done=len(kept))
    output.tables[shard.path] = kept.replace_schema_metadata(None)
    output.rejects.append(RejectRow(rejected, "unusable_clip", "why", sid=table["sid"][rejected].as_py()))
    plan = Plan("embeddings", {}, {}, (Unit(0, len(table)),))
    save_plan(files.child("embeddings"), plan)
    done = commit_output(files.child("embeddings"), output, plan.hash, lambda path: {"stage": "embeddings"})
    save_manifest(files.child("embeddings"), build_manifest(plan, {0: done}))


def test_of_a_later_stage_those_it_still_has(call: Call, tmp_path: Path) -> None:
    uri = str(write_recording(tmp_path / "a.flac", rate=16_000))
    rows = [Spoken(uri, start, start + 1 + start / 10) for start in range(6)]
    corpus = write_segments(tmp_path / "corpus", {"eng_Latn": [*rows, "and a text"]})
    later_stage(corpus, rejected=2)
    result = call("inspect", corpus, "--json").json
    assert result["title"].startswith("embeddings of ")
    (found,) = result["recordings"]
    assert (found["segments"], found["recordings"], found["hours"]) == (5, 2, None)
    (found,) = call("inspect", corpus, "--stage", "segments", "--json").json["recordings"]
    assert found["segments"] == 6
    result = call("inspect", corpus, "--doc", "doc0", "--picture", tmp_path / "a.png", "--json").json
    assert result["notes"][-1] == "red, 1 rejected: unusable_clip (embeddings): 2"
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(("doc", "num_channels"), [("a", 1), ("both", 2)])
def test_pictures(call: Call, corpus: Path, tmp_path: Path, doc: str, num_channels: int) -> None:
    result = call("inspect", corpus, "--doc", doc, "--picture", tmp_path / "x.svg", "--json").json
    segments = [row for row in open_corpus(corpus).segments.table().to_pylist() if row["doc_id"] == doc]
    assert (result["doc_id"], result["segments"], result["seconds"]) == (
        doc,
        len(segments),
        pytest.approx(11.136, abs=0.1),
    )
    assert f"{num_channels} channel" in result["notes"][0]
    assert "<svg" in (tmp_path / "x.svg").read_text("utf-8")


def test_without_a_document_the_first_recording(call: Call, corpus: Path, tmp_path: Path) -> None:
    out = call("inspect", corpus, "--picture", tmp_path / "x.png", "--lang", "eng_Latn").out
    assert "x.png: a, 0:11 with 3 segments" in out
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(("doc", "reason"), [("hum", "rejected, no_speech: "), ("cut", "rejected, truncated_audio: ")])
def test_a_rejected_recording_can_be_seen(call: Call, corpus: Path, tmp_path: Path, doc: str, reason: str) -> None:
    result = call("inspect", corpus, "--doc", doc, "--picture", tmp_path / "x.png", "--json").json
    assert result["segments"] == 0
    assert any(note.startswith(reason) for note in result["notes"])


def test_what_cannot_be_drawn(call: Call, corpus: Path, tmp_path: Path) -> None:
    png = tmp_path / "x.png"
    assert "the document 'text' is text" in refused(call, "inspect", corpus, "--doc", "text", "--picture", png)
    message = refused(call, "inspect", corpus, "--doc", "nosuch", "--picture", png)
    assert "no document 'nosuch'" in message
    assert "It has recordings such as 'b'" in message
    assert ".png" in refused(call, "inspect", corpus, "--picture", tmp_path / "x.bmp")
    assert "existing folder" in refused(call, "inspect", corpus, "--picture", tmp_path / "no" / "x.png")
    write_jsonl(tmp_path / "t.jsonl", [{"id": "t", "lang": "en", "text": "Only a text."}])
    texts = SegmentConfig(
        inputs=[str(tmp_path / "t.jsonl")], corpus=str(tmp_path / "texts"), executor="local", lang="en"
    )
    segment.run(texts)
    message = refused(call, "inspect", tmp_path / "texts", "--picture", png)
    assert "the corpus is text, and a picture shows a recording" in message
    assert not png.exists()
    assert "recordings" not in json.loads(call("inspect", tmp_path / "texts", "--json").out)


def test_a_recording_that_is_gone(call: Call, tmp_path: Path) -> None:
    corpus = write_segments(tmp_path / "corpus", {"eng_Latn": [Spoken(str(tmp_path / "gone.wav"), 0, 1)]})
    message = refused(call, "inspect", corpus, "--picture", tmp_path / "x.png")
    assert "gone.wav' cannot be drawn" in message


def test_bars() -> None:
    assert render.bars([0, 1, 50, 100]) == " ▁▄█"
    assert render.bars([]) == render.bars([0])[:0] == ""
