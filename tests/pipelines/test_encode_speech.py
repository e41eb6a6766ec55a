"""A corpus of text and speech through ``encode``."""

from __future__ import annotations

import json
import logging
import shutil
import wave
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from jobs import check_whole, children, cli, commits_of, kill, rejects_of, start, wait_for
from speechcorpus import Spoken, write_recording, write_segments
from speechlike import clip

from lcm_data.encode import EncoderOptions, load_encoder, load_speech_encoder
from lcm_data.errors import InputError, PlanMismatchError, SpaceError, UnknownNameError
from lcm_data.schema import vectors
from lcm_data.sonar.random_model import write_random_checkpoint
from lcm_data.sonar.random_speech import write_random_speech
from lcm_data.sonar.speech_config import SpeechEncoderConfig
from lcm_data.store.files import open_files
from lcm_data.store.manifest import load_manifest
from lcm_data.store.shard import open_shard, read_shard, shard_metadata, shard_path
from lcm_data.workers import speech as speech_worker
from lcm_data.workers.base import Task
from lcm_data.workers.encode import EncodeWorker
from lcm_data.workers.output import UnitOutput
from pipelines import segment
from pipelines.encode import EncodeConfig, make_stage, run

pytest.importorskip("av")

SIZES = SpeechEncoderConfig(
    model_dim=32, num_layers=1, num_heads=4, ffn_dim=48, kernel_size=7, pooler_layers=1, pooler_heads=2,
    pooler_ffn_dim=40, pooler_vocab=32, embedding_dim=32, max_positions=100,
)  # fmt: skip
SENTENCES = ["Hello Paul.", "I have three apples.", "Hello Paul.", "The sea is blue."]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of text and two of speech, in one space."""
    folder = tmp_path_factory.mktemp("models")
    texts = [f"Hello, my name is Paul and I have {i} apples." for i in range(200)]
    write_random_checkpoint(folder / "text", texts, model_dim=32, num_heads=4, vocab_size=320)
    space = load_encoder(EncoderOptions(model=str(folder / "text"), device="cpu")).provenance["space"]
    for seed, lang in enumerate(("eng_Latn", "fra_Latn")):
        write_random_speech(folder / "speech" / lang, SIZES, space=space, seed=seed)
    return folder


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    write_recording(tmp_path / "sounds" / "a.wav", 6.0, seed=1)
    write_recording(tmp_path / "sounds" / "b.wav", 4.0, seed=5, channels=2)
    return tmp_path / "sounds"


def spoken(sounds: Path) -> list[Spoken]:
    a, b = str(sounds / "a.wav"), str(sounds / "b.wav")
    return [
        Spoken(a, 0.5, 1.5), Spoken(a, 2.0, 5.0, text="what it says"), Spoken(b, 0.0, 2.25, 1), Spoken(b, 0.0, 2.25, 0),
        Spoken(b, 1.0, 2.0), Spoken(a, 0.5, 1.5),
    ]  # fmt: skip


def config(corpus: Path, models: Path, **settings: Any) -> EncodeConfig:
    given = {"model": str(models / "text"), "speech_model": str(models / "speech" / "{lang}"), "device": "cpu"}
    return EncodeConfig(corpus=str(corpus), store_dtype="float32", max_reject_rate=1.0, **{**given, **settings})


def encode_here(corpus: Path, models: Path, **settings: Any) -> tuple[list[UnitOutput], EncodeWorker]:
    """The work of every unit in this process, with nothing written."""
    stage = make_stage(config(corpus, models, **settings))
    plan = stage.make_plan()
    worker = stage.make_worker(plan)
    assert isinstance(worker, EncodeWorker)
    worker.setup()
    return [worker.work(worker.read(Task(unit))) for unit in sorted(plan.units, key=lambda unit: unit.id)], worker


def table_of(output: UnitOutput) -> pa.Table:
    (table,) = output.tables.values()
    return table


def test_text_and_speech_in_one_shard(tmp_path: Path, models: Path, sounds: Path) -> None:
    rows = [row for pair in zip(SENTENCES, spoken(sounds)[:4], strict=True) for row in pair] + spoken(sounds)[4:]
    corpus = write_segments(tmp_path / "corpus", {"eng_Latn": rows})
    (output,), _ = encode_here(corpus, models)
    assert output.rows_done == output.rows_in == len(rows)
    text = load_encoder(EncoderOptions(model=str(models / "text"), device="cpu"))
    speaker = load_speech_encoder(EncoderOptions(model=str(models / "speech" / "eng_Latn"), device="cpu"))
    b = [clip(64000, 5), clip(64000, 6)]
    waves = [
        clip(96000, 1)[8000:24000], clip(96000, 1)[32000:80000], b[1][:36000], b[0][:36000],
        ((b[0] + b[1]) / 2)[16000:32000], clip(96000, 1)[8000:24000],
    ]  # fmt: skip
    prepared = speaker.prepare(waves)
    wanted_text, wanted_speech = text.embed(text.prepare(SENTENCES, "eng_Latn")), speaker.embed(prepared)
    table = table_of(output)
    found = vectors(table["emb"])
    is_speech = [isinstance(row, Spoken) for row in rows]
    np.testing.assert_allclose(found[is_speech], wanted_speech, atol=1e-6, rtol=0)
    np.testing.assert_allclose(found[~np.array(is_speech)], wanted_text, atol=1e-6, rtol=0)
    assert np.array(table["n_tokens"])[is_speech].tolist() == prepared.num_tokens.tolist()
    assert np.array(table["truncated"])[is_speech].tolist() == prepared.truncated.tolist()
    assert prepared.truncated.tolist() == [False, True, True, True, False, False]
    assert table["text"].to_pylist()[3] == "what it says"
    stats = output.stats
    assert (stats["clips"], stats["distinct"]) == (6, 3 + 5)
    assert stats["positions"] == prepared.num_tokens.sum()
    assert stats["tokens"] == text.prepare(SENTENCES, "eng_Latn").num_tokens.sum()


def test_each_language_has_its_encoder_on_record(tmp_path: Path, models: Path, sounds: Path) -> None:
    rows = {"eng_Latn": spoken(sounds), "fra_Latn": spoken(sounds), "deu_Latn": SENTENCES}
    corpus = write_segments(tmp_path / "corpus", rows)
    run(config(corpus, models))
    files = open_files(str(corpus)).child("embeddings")
    english, french = (
        vectors(read_shard(files, shard_path("train", lang, part))["emb"]) for part, lang in enumerate([*rows][:2])
    )
    assert np.abs(english - french).max() > 0.01
    facts = {}
    for part, lang in enumerate(rows):
        with open_shard(files, shard_path("train", lang, part)) as shard:
            metadata = shard_metadata(shard)
        facts[lang] = {name for name in metadata if name.startswith("speech_encoder")}
    assert facts["eng_Latn"] == {"speech_encoder.eng_Latn", "speech_encoder_revision.eng_Latn"}
    assert facts["deu_Latn"] == set()
    provenance = load_manifest(files).provenance
    assert provenance["encoder"] == "text"
    assert provenance["speech_encoder.fra_Latn"] == "fra_Latn"
    assert provenance["trained"] == "false"
    with pytest.raises(PlanMismatchError, match=r"speech\.fra_Latn\.encoder_revision"):
        run(config(corpus, models, speech_model=str(models / "speech" / "eng_Latn")))
    with pytest.raises(PlanMismatchError, match="speech_budget"):
        run(config(corpus, models, speech_budget=7))


def test_speech_alone_needs_no_encoder_of_text(
    tmp_path: Path, models: Path, sounds: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = write_segments(tmp_path / "corpus", {"eng_Latn": spoken(sounds)})
    with caplog.at_level(logging.WARNING):
        stage = make_stage(EncodeConfig(corpus=str(corpus), speech_model=str(models / "speech" / "{lang}")))
    assert "nothing but speech" in caplog.text
    plan = stage.make_plan()
    provenance = plan.notes["provenance"]
    assert (provenance["encoder"], provenance["dim"]) == ("eng_Latn", "32")
    worker: Any = stage.make_worker(plan)
    worker.setup()
    assert (worker._encoder, worker._end_of_text) == (None, None)
    assert worker.work(worker.read(Task(plan.units[0]))).rows_done == 6
    _, given = encode_here(corpus, models)
    assert given._end_of_text is not None


def test_clips_that_cannot_be_read_or_used_are_rejects(tmp_path: Path, models: Path, sounds: Path) -> None:
    a = str(sounds / "a.wav")
    rows = [
        *spoken(sounds), Spoken(str(sounds / "gone.wav"), 0.0, 1.0), Spoken(a, 5.5, 6.5), Spoken(a, 1.0, 1.02),
        Spoken(a, 1.0, 2.0, channel=3),
    ]  # fmt: skip
    corpus = write_segments(tmp_path / "corpus", {"eng_Latn": rows})
    (output,), _ = encode_here(corpus, models)
    found = {reject.row: (reject.reason, reject.error) for reject in output.rejects}
    assert {row: reason for row, (reason, _) in found.items()} == {
        6: "unreadable_clip", 7: "unreadable_clip", 8: "unusable_clip", 9: "unreadable_clip",
    }  # fmt: skip
    assert (output.rows_done, table_of(output).num_rows) == (6, 6)
    assert "gone.wav" in found[6][1]
    assert "too short to encode" in found[8][1]


def test_recordings_that_are_all_gone_fail_the_unit(tmp_path: Path, models: Path) -> None:
    rows = [Spoken(str(tmp_path / f"{i}.wav"), 0.0, 1.0) for i in range(9)]
    corpus = write_segments(tmp_path / "corpus", {"eng_Latn": rows})
    with pytest.raises(InputError, match=r"0\.wav"):
        encode_here(corpus, models)


def test_blocks_of_sound_give_the_same(
    tmp_path: Path, models: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*spoken(sounds), Spoken(str(sounds / "gone.wav"), 0.0, 1.0)]
    corpus = write_segments(tmp_path / "corpus", {"eng_Latn": rows})
    (whole,), _ = encode_here(corpus, models)
    monkeypatch.setattr(speech_worker, "_BLOCK_SAMPLES", 20_000)
    (cut,), _ = encode_here(corpus, models)
    first, second = (vectors(table_of(output)["emb"]) for output in (whole, cut))
    np.testing.assert_allclose(first, second, atol=1e-6, rtol=0)
    assert whole.rejects == cut.rejects


def test_encoders_of_two_spaces_are_refused(tmp_path: Path, models: Path, sounds: Path) -> None:
    write_random_speech(tmp_path / "alien", SIZES)
    corpus = write_segments(tmp_path / "corpus", {"eng_Latn": [*spoken(sounds), *SENTENCES]})
    with pytest.raises(SpaceError, match=r"the encoder of text is of .*the speech encoder of eng_Latn is of"):
        make_stage(config(corpus, models, speech_model=str(tmp_path / "alien")))


def test_a_language_without_a_published_encoder(tmp_path: Path, models: Path, sounds: Path) -> None:
    corpus = write_segments(tmp_path / "corpus", {"isl_Latn": spoken(sounds)})
    with pytest.raises(UnknownNameError, match="language of a speech encoder 'isl_Latn'"):
        make_stage(config(corpus, models, speech_model=None))


def test_a_worker_keeps_few_encoders(models: Path, tmp_path: Path) -> None:
    for lang in ("deu_Latn", "spa_Latn"):
        shutil.copytree(models / "speech" / "eng_Latn", tmp_path / lang)
    folders = {lang: models / "speech" / lang for lang in ("eng_Latn", "fra_Latn")}
    folders |= {lang: tmp_path / lang for lang in ("deu_Latn", "spa_Latn")}
    options = {lang: EncoderOptions(model=str(folder), device="cpu") for lang, folder in folders.items()}
    encoders = speech_worker.SpeechEncoders(options, {"fra_Latn": "0" * 64})
    first = encoders.get("eng_Latn")
    assert encoders.get("deu_Latn") is not first
    assert encoders.get("eng_Latn") is first
    encoders.get("spa_Latn")
    assert encoders.get("eng_Latn") is first
    assert len(encoders._loaded) == 2
    with pytest.raises(PlanMismatchError, match="loaded another speech encoder than the run was planned with"):
        encoders.get("fra_Latn")


@pytest.fixture
def many(tmp_path: Path, sounds: Path) -> Path:
    """Segments of recordings in six shards; the last row of one kills the encoder."""
    with wave.open(str(sounds / "kill.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.full(32000, 30000, "<i2").tobytes())
    rows = {lang: spoken(sounds) for lang in ("eng_Latn", "fra_Latn", "deu_Latn", "spa_Latn", "ita_Latn", "nld_Latn")}
    rows["deu_Latn"].append(Spoken(str(sounds / "kill.wav"), 0.5, 1.5))
    return write_segments(tmp_path / "many", rows)


def test_kills_and_numbers_of_workers_change_nothing(tmp_path: Path, many: Path) -> None:
    """A driver and its workers die at work, a clip kills whoever encodes it: nothing else is lost."""
    how = ("--speech-backend", "oddspeaker:OddSpeaker", "--speech-model", "one", "--executor", "local")
    how = (*how, "--max-reject-rate", "1")
    whole = Path(shutil.copytree(many, tmp_path / "whole"))
    assert cli("encode", whole, *how, "--json").json["units_done"] == 6
    (reject,) = rejects_of(whole, "embeddings")
    assert (reject["row"], reject["reason"]) == (6, "crashed_worker")
    driver = start("encode", many, *how, "--workers", "2", env={"ODD_PAUSE": "0.5"})
    wait_for(lambda: commits_of(many, "embeddings"), 60)
    workers = children(driver.pid)
    kill(driver.pid)
    driver.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert 0 < len(commits_of(many, "embeddings")) < 6
    cli("encode", many, *how, "--workers", "3")
    assert check_whole(many, ["embeddings"]) == check_whole(whole, ["embeddings"])


class LockedFileSystem(MemoryFileSystem):
    """Files in memory that only those may read who know the word."""

    protocol = "locked"
    cachable = False

    def __init__(self, word: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._word = word

    def _open(self, *args: Any, **options: Any) -> Any:
        if self._word != "sesame":
            raise PermissionError("say the word")
        return super()._open(*args, **options)


@pytest.fixture
def locked(sounds: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a recording that can only be read with an option."""
    fsspec.register_implementation("locked", LockedFileSystem, clobber=True)
    monkeypatch.setattr(LockedFileSystem, "store", {})
    with fsspec.open("locked://sounds/a.wav", "wb", word="sesame") as file:
        file.write((sounds / "a.wav").read_bytes())
    return "locked://sounds/a.wav"


def test_options_of_the_storage_reach_the_recordings(tmp_path: Path, models: Path, sounds: Path, locked: str) -> None:
    rows = {"eng_Latn": [Spoken(locked, 0.5, 1.5), Spoken(str(sounds / "a.wav"), 0.5, 1.5)]}
    corpus = write_segments(tmp_path / "corpus", rows)
    (output,), worker = encode_here(corpus, models, storage_options={"word": "sesame"})
    assert output.rejects == []
    near, far = vectors(table_of(output)["emb"])
    np.testing.assert_array_equal(near, far)
    assert "sesame" not in repr(worker)
    assert "sesame" not in json.dumps(config(corpus, models, storage_options={"word": "sesame"}).model_dump())
    (output,), _ = encode_here(corpus, models)
    assert [(reject.row, reject.reason) for reject in output.rejects] == [(0, "unreadable_clip")]


def test_options_of_the_storage_reach_segment(tmp_path: Path, locked: str) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "m.jsonl").write_text(json.dumps({"id": "far", "lang": "en", "path": locked}) + "\n")
    given = {"inputs": [str(tmp_path / "m.jsonl")], "corpus": str(tmp_path / "corpus"), "audio_column": "path"}
    reasons = []
    for options in ({"word": "sesame"}, {}):
        stage = segment.make_stage(segment.SegmentConfig(**given, storage_options=options))
        plan = stage.make_plan()
        assert "sesame" not in repr((plan, stage.config))
        worker: Any = stage.make_worker(plan)
        worker.setup()
        reasons.append([each.reason for each in worker.work(worker.read(Task(plan.units[0]))).rejects])
    assert reasons == [["no_speech"], ["missing_audio"]]  # a buzz is no speech, but it could be heard
