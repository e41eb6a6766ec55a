"""The main job on recordings: nothing lost, whoever does the work, whatever is killed, whatever is broken."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from jobs import check_whole, children, cli, commits_of, error_line, kill, rejects_of, start, tables, wait_for
from recordings import cut_off, speech, stereo, write_recording

from lcm_data.corpus import open_corpus
from lcm_data.schema import SEGMENTS
from pipelines import segment
from pipelines.segment import SegmentConfig

for module in ("av", "onnxruntime"):
    pytest.importorskip(module, reason="needs the extra 'audio'")

ODD = ("--segmenter", "oddlistener:OddListener")
SPLITS = ("--validation", "0.2", "--test", "0.2")


def run(corpus: Path, *inputs: Path, **settings: Any) -> list[dict[str, Any]]:
    """Segment and give the rejects."""
    given: dict[str, Any] = {"executor": "local", "lang": "en", "max_reject_rate": 1.0, **settings}
    segment.run(SegmentConfig(inputs=[str(path) for path in inputs], corpus=str(corpus), **given))
    check_whole(corpus, ["segments"])
    return rejects_of(corpus, "segments")


def table(corpus: Path) -> pa.Table:
    return open_corpus(corpus).segments.table()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten recordings of six formats, two of them stereo. Read only."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, suffix in enumerate(("wav", "flac", "mp3", "m4a", "opus", "webm", "flac", "flac", "opus", "mp3")):
        x_CN = stereo() if number in (1, 2) else np.roll(speech(), number * 1600)
        write_recording(folder / f"talk-{number}-SLOW.{suffix}", x_CN, rate=None if number < 6 else 16_000)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recordings: Path) -> Path:
    corpus = tmp_path_factory.mktemp("finished") / "corpus"
    assert run(corpus, recordings, validation=0.2, test=0.2, unit_audio_bytes=1, segmenter=ODD[1]) == []
    return corpus


def test_rows_of_recordings(finished: Path, recordings: Path) -> None:
    assert len(commits_of(finished, "segments")) == 10
    found = table(finished)
    assert found.schema.remove_metadata().names[: len(SEGMENTS)] == SEGMENTS.names
    by_doc: dict[str, list[dict[str, Any]]] = {}
    for row in found.to_pylist():
        by_doc.setdefault(row["doc_id"], []).append(row)
    assert set(by_doc) == {path.name for path in recordings.iterdir()}
    for name, rows in by_doc.items():
        assert [row["sent_idx"] for row in rows] == list(range(len(rows)))
        assert {row["n_sents"] for row in rows} == {len(rows)}
        assert len(rows) >= (1 if name[5] in "12" else 3)  # two voices at once leave no pause
        for row in rows:
            assert (row["modality"], row["text"], row["source"], row["n_chars"]) == ("speech", "", name, 0)
            assert row["audio_uri"] == str(recordings / name)
            assert row["channel"] == (None if name[5] in "12" else 0)
            assert 1 <= row["t_end"] - row["t_start"] <= 30
            assert (row["t_start"] * 16_000).is_integer()
        assert all(left["t_end"] <= right["t_start"] for left, right in itertools.pairwise(rows))
    assert open_corpus(finished).segments.metadata["vad"].startswith("silero-vad")
    stats = [commit.stats for commit in commits_of(finished, "segments").values()]
    assert sum(each["audio_seconds"] for each in stats) == pytest.approx(111.4, abs=0.5)


def test_inspect_counts_hours(finished: Path) -> None:
    rows = table(finished).to_pylist()
    (found,) = cli("inspect", finished, "--json").json["rows"]
    assert found["speech"] == found["sentences"] == len(rows)
    assert found["hours"] == pytest.approx(sum(row["t_end"] - row["t_start"] for row in rows) / 3600, abs=1e-4)
    assert 1 <= found["seconds mean"] <= found["seconds max"] <= 30
    assert "t_start" in cli("inspect", finished, "--head", "2").out


def test_three_workers_make_the_same(tmp_path: Path, recordings: Path, finished: Path) -> None:
    settings = {"validation": 0.2, "test": 0.2, "unit_audio_bytes": 1, "segmenter": ODD[1], "workers": 3}
    assert run(tmp_path / "corpus", recordings, **settings) == []
    assert check_whole(tmp_path / "corpus", ["segments"]) == check_whole(finished, ["segments"])


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_kills(tmp_path: Path, recordings: Path, finished: Path, seed: int) -> None:
    """Drivers and workers die at random moments; a rerun gives what an undisturbed run gives."""
    rng, corpus, killed = random.Random(seed), tmp_path / "corpus", 0
    command = ["segment", recordings, corpus, "--lang", "en", "--unit-audio-bytes", "1", *ODD, *SPLITS]
    while killed < 3:
        again = ["--overwrite"] if (corpus / "segments/_lcm/manifest.json").exists() else []
        how = ["--executor", "local", "--workers", str(rng.choice([1, 2]))]
        driver = start(*command, *how, *again, env={"ODD_PAUSE": "0.3"})
        seen = len(list(corpus.glob("segments/_lcm/commits/*.json")))

        def changed(driver: Any = driver, seen: int = seen) -> bool:
            return len(list(corpus.glob("segments/_lcm/commits/*.json"))) != seen or driver.poll() is not None

        wait_for(changed, 60)
        time.sleep(rng.uniform(0, 0.2))
        workers = children(driver.pid)
        if workers and rng.random() < 0.5:
            killed += kill(rng.choice(workers))
            time.sleep(rng.uniform(0.1, 0.3))
        killed += driver.poll() is None and kill(driver.pid)
        driver.communicate()
        wait_for(lambda pids=workers: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    cli(*command, "--executor", "local")
    assert check_whole(corpus, ["segments"]) == check_whole(finished, ["segments"])


@pytest.mark.parametrize("unit_audio_bytes", [1, 1 << 30])
def test_poison(tmp_path: Path, finished: Path, recordings: Path, unit_audio_bytes: int) -> None:
    folder = tmp_path / "in"
    shutil.copytree(recordings, folder)
    (folder / "b-empty.wav").write_bytes(b"")
    (folder / "b-text.mp3").write_text("no sound\n" * 1000)
    cut_off(write_recording(folder / "b-cut.flac", rate=16_000))
    write_recording(folder / "t-short.wav", speech()[:8000])
    write_recording(folder / "t-silent.flac", np.zeros(50_000), rate=16_000)
    write_recording(folder / "u-KILL.opus")
    rejects = run(
        tmp_path / "corpus", folder, unit_audio_bytes=unit_audio_bytes, segmenter=ODD[1], validation=0.2, test=0.2
    )
    assert {row["doc_id"]: row["reason"] for row in rejects} == {
        "b-empty.wav": "empty_audio",
        "b-text.mp3": "broken_audio",
        "b-cut.flac": "truncated_audio",
        "t-short.wav": "too_short",
        "t-silent.flac": "silent_audio",
        "u-KILL.opus": "crashed_worker",
    }
    assert all(row["error"] for row in rejects)
    kept, expected = (table(corpus).sort_by("sid") for corpus in (tmp_path / "corpus", finished))
    different = {"audio_uri"}
    assert kept.drop_columns([*different]).equals(expected.drop_columns([*different]))


def test_texts_and_recordings_in_one_corpus(tmp_path: Path) -> None:
    write_recording(tmp_path / "in" / "a.flac", rate=16_000)
    write_recording(tmp_path / "in" / "b.flac", speech()[: 4 * 16_000], rate=16_000)
    rows: list[dict[str, Any]] = [
        {"id": "text", "lang": "en", "body": "It is only text. There is no sound to it."},
        {"id": "a", "lang": "en", "audio": "a.flac"},
        {"id": "whole", "lang": "en", "audio": "a.flac", "body": " All three of the sentences. "},
        {"id": "told", "audio": "b.flac", "body": "The ferry leaves at nine, so we should have breakfast early."},
        {"id": "untold", "audio": "b.flac"},
        {"id": "gone", "lang": "en", "audio": "gone.flac"},
        {"id": "a", "lang": "en", "audio": "b.flac"},
        {"id": "a", "lang": "de", "audio": "b.flac"},
    ]
    (tmp_path / "in" / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"audio_column": "audio", "text_column": "body", "lang": None, "validation": 0, "test": 0}
    rejects = run(tmp_path / "corpus", tmp_path / "in" / "all.jsonl", **settings)
    assert {(row["doc_id"], row["reason"]) for row in rejects} == {
        ("untold", "uncertain_language"), ("gone", "missing_audio"), ("a", "duplicate_id"),
    }  # fmt: skip
    found = table(tmp_path / "corpus").to_pylist()
    texts = {(row["lang"], row["doc_id"]): (row["modality"], row["text"], row["n_sents"]) for row in found}
    assert texts == {
        ("eng_Latn", "text"): ("text", "There is no sound to it.", 2),
        ("eng_Latn", "a"): ("speech", "", 3),
        ("eng_Latn", "whole"): ("speech", "All three of the sentences.", 1),
        ("eng_Latn", "told"): ("speech", rows[3]["body"], 1),
        ("deu_Latn", "a"): ("speech", "", 1),
    }
    for row in found:
        assert (row["audio_uri"] is None) == (row["modality"] == "text")
        given = next(each for each in rows if each["id"] == row["doc_id"]).get("body", "")
        if row["doc_id"] != "a":
            assert given[row["char_start"] : row["char_end"]] == row["text"]


def test_transcripts_left_out_are_counted(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.flac", np.tile(speech(), 3), rate=16_000)
    write_recording(tmp_path / "b.flac", rate=16_000)
    rows = [{"id": name, "lang": "en", "path": f"{name}.flac", "text": "What is said."} for name in ("a", "b")]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = cli("segment", tmp_path / "m.jsonl", tmp_path / "corpus", "--audio-column", "path").out
    assert "transcripts left out" in out
    assert "1, of recordings with several segments" in out
    texts = {row["doc_id"]: row["text"] for row in table(tmp_path / "corpus").to_pylist()}
    assert texts == {"a": "", "b": "What is said."}


def test_every_channel(tmp_path: Path) -> None:
    write_recording(tmp_path / "in" / "a.flac", stereo(), rate=16_000)
    run(tmp_path / "corpus", tmp_path / "in", channels="each")
    rows = table(tmp_path / "corpus").to_pylist()
    assert {row["channel"] for row in rows} == {0, 1}
    assert [row["t_start"] for row in rows] == sorted(row["t_start"] for row in rows)


def test_clips(tmp_path: Path, recordings: Path) -> None:
    from lcm_data.audio.read import read_clip

    run(tmp_path / "corpus", recordings / "talk-1-SLOW.flac", recordings / "talk-4-SLOW.opus", clips=True)
    rows = table(tmp_path / "corpus").to_pylist()
    folder = tmp_path / "corpus/segments/clips"
    assert len(list(folder.rglob("*.flac"))) == len(rows) == 4
    (part,) = folder.iterdir()
    for row in rows:
        seconds = row["t_end"] - row["t_start"]
        clip = read_clip(str(part / f"{row['sid'] & (1 << 64) - 1:016x}.flac"), 0, 0, seconds)
        original = read_clip(row["audio_uri"], row["channel"], row["t_start"], row["t_end"])
        np.testing.assert_allclose(clip, original, atol=1e-4)


def test_refusals(tmp_path: Path, recordings: Path, finished: Path) -> None:
    message = error_line("segment", recordings, tmp_path / "corpus")
    assert "10 recordings such as" in message
    assert "do not say their language, and it is not detected from sound. Add --lang" in message
    assert not (tmp_path / "corpus").exists()
    settings = ("--lang", "en", "--unit-audio-bytes", "1", *ODD, *SPLITS)
    message = error_line("segment", recordings, finished, *settings, "--min-pause", "0.5", code=4)
    assert "audio.min_pause: 0.25 -> 0.5" in message
    message = error_line("segment", recordings, finished, *settings, "--channels", "left")
    assert "channels" in message


def test_a_dry_run_says_how_long_it_takes(tmp_path: Path, recordings: Path) -> None:
    out = cli("segment", recordings, tmp_path / "corpus", "--lang", "en", "--dry-run", "--json").json
    assert out["rows_open"] == 10
    assert out["seconds"] > 0
    assert not (tmp_path / "corpus").exists()


def test_urls_that_cannot_be_opened(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.flac", rate=16_000)
    rows = [{"path": path, "lang": "en"} for path in ("nosuch://x/a.wav", "memory://gone.wav", "a.flac")]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rejects = run(tmp_path / "corpus", tmp_path / "m.jsonl", audio_column="path")
    assert [row["reason"] for row in rejects] == ["missing_audio"] * 2


def test_a_changed_recording_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    """Like a changed input file: refused with its name, also when the first run was stopped half-way."""
    for name in ("a", "b"):
        write_recording(tmp_path / f"{name}.flac", rate=16_000)
    rows = [{"path": f"{name}.flac", "lang": "en"} for name in ("a", "b", "gone")]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = ("segment", tmp_path / "m.jsonl", tmp_path / "corpus", "--audio-column", "path", "--max-reject-rate", "1")
    assert cli(*how, "--json").json["manifest"]["rejects"] == {"missing_audio": 1}
    assert cli(*how, "--json").json["units_done"] == 0
    before = check_whole(tmp_path / "corpus", ["segments"])
    write_recording(tmp_path / "b.flac", speech()[:80_000], rate=16_000)
    write_recording(tmp_path / "gone.flac", speech()[:80_000], rate=16_000)
    (tmp_path / "corpus/segments/_lcm/commits/000000.json").rename(tmp_path / "commit.json")
    message = error_line(*how, code=4)
    assert "input  m.jsonl: b.flac: '" in message
    assert "input  m.jsonl: gone.flac: 'missing' -> '" in message
    assert "a.flac" not in message
    (tmp_path / "commit.json").rename(tmp_path / "corpus/segments/_lcm/commits/000000.json")
    assert check_whole(tmp_path / "corpus", ["segments"]) == before
    assert cli(*how, "--overwrite", "--json").json["manifest"]["rejects"] == {}


def test_an_older_silero_is_noticed(finished: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "vad_fingerprint", lambda: "silero-vad 5")
    from lcm_data.errors import PlanMismatchError

    with pytest.raises(PlanMismatchError, match=r"audio.vad: 'silero-vad 6.* -> 'silero-vad 5'"):
        run(finished, recordings, validation=0.2, test=0.2, unit_audio_bytes=1, segmenter=ODD[1])


def test_the_tables_of_a_unit_agree_with_the_schema(finished: Path) -> None:
    for shard in tables(finished, "segments").values():
        assert shard.schema.remove_metadata().equals(SEGMENTS)
