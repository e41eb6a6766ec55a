"""What becomes of clips: features, the teacher's vectors, transcripts, who is held out, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from toyspeech import say, write_clip, write_table

from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.errors import InputError, UsageError
from lcm_data.sonar.speech_features import filter_bank
from lcm_models.speech.clips import read_clips
from lcm_models.speech.config import ClipsConfig
from lcm_models.speech.prepare import plain_letters, prepare
from lcm_models.speech.prepared import PreparedClips, open_clips


def change(table: Path, how: Callable[[int, dict[str, object]], dict[str, object]]) -> None:
    rows = [how(number, json.loads(line)) for number, line in enumerate(table.read_text("utf-8").splitlines())]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def test_features_and_targets(clips: Path, prepared: PreparedClips) -> None:
    rows = list(read_clips(str(clips)))
    assert len(prepared.ends_N) == len(rows) == 120
    teacher = load_encoder(EncoderOptions(model="sonar-mini"))
    starts = prepared.starts()
    for number in (0, 1, 77):
        clip = rows[number]
        wave_W = np.round(say(clip.texts[clip.lang], 1 + 0.02 * (number // 2 % 3)) * 32767 - 0.5).astype(np.float32)
        bank_FC = filter_bank(torch.from_numpy(wave_W / 32768)).numpy()
        ours_FC = prepared.banks_FC[starts[number] : prepared.ends_N[number]].astype(np.float32)
        assert ours_FC.shape == bank_FC.shape
        assert np.abs(ours_FC - bank_FC).mean() < 0.2  # float16, and rounding to 16 bits in quiet bands
        (vector_D,) = teacher.embed(teacher.prepare([clip.texts[clip.lang]], clip.lang))
        assert np.allclose(prepared.targets_ND[number], vector_D, atol=1e-5)
        letters = "".join(prepared.characters[each - 1] for each in prepared.spelling(number))
        assert letters == clip.texts[clip.lang].casefold()


def test_translations_are_held_out_together(clips: Path, prepared: PreparedClips) -> None:
    by_text: dict[str, set[bool]] = {}
    for clip, is_held_out in zip(read_clips(str(clips)), prepared.held_out_N, strict=True):
        by_text.setdefault(clip.texts["eng_Latn"], set()).add(bool(is_held_out))
    assert all(len(found) == 1 for found in by_text.values())
    assert 0 < sum(map(max, by_text.values())) < len(by_text) / 2


def test_a_language_that_the_teacher_lacks_gets_the_vectors_of_translations(tmp_path: Path) -> None:
    table = write_table(tmp_path, 4, langs=("eng_Latn",))
    rows = list(read_clips(str(table)))
    change(table, lambda n, row: {**row, "lang": "ces_Latn", "text": "dům stojí", "eng_Latn": row["text"]})
    data = prepare(ClipsConfig(speech=(str(table),)), tmp_path / "data")
    teacher = load_encoder(EncoderOptions(model="sonar-mini"))
    texts = [clip.texts["eng_Latn"] for clip in rows]
    assert np.allclose(data.targets_ND, teacher.embed(teacher.prepare(texts, "eng_Latn")), atol=1e-5)
    assert data.about["languages"] == ["ces_Latn"]
    assert "ů" in data.characters


def test_what_is_left_out_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = write_table(tmp_path, 6, langs=("eng_Latn",))
    write_clip(tmp_path / "silent.wav", np.zeros(16_000, np.float32))
    write_clip(tmp_path / "long.wav", np.tile(say("red old house"), 20))
    new = [
        {"audio": "missing.wav"},
        {"audio": "silent.wav"},
        {"audio": "long.wav"},
        {"text": " ", "deu_Latn": None, "fra_Latn": None},
    ]
    change(table, lambda n, row: {**row, **(new[n] if n < 4 else {})})
    data = prepare(ClipsConfig(speech=(str(table),), max_seconds=5), tmp_path / "data")
    assert data.about["counts"]["clips"] == 2
    assert sum(data.about["counts"]["left_out"].values()) == 4
    assert len(data.about["counts"]["left_out"]) == 4
    assert "they are longer than 5 s" in caplog.text


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    table = write_table(tmp_path, 3, langs=("eng_Latn",))
    change(table, lambda n, row: {**row, "audio": "missing.wav"})
    with pytest.raises(InputError, match="none of the clips can be used: 3 since they cannot be read"):
        prepare(ClipsConfig(speech=(str(table),)), tmp_path / "data")
    assert not (tmp_path / "data").exists()
    with pytest.raises(UsageError, match=r"no clip in fra_Latn\. There is: eng_Latn"):
        prepare(ClipsConfig(speech=(str(table),), langs=("fra_Latn",)), tmp_path / "data")


def test_prepared_once(clips: Path, prepared: PreparedClips, tmp_path: Path) -> None:
    config = ClipsConfig(**prepared.about["settings"])
    assert prepare(config, prepared.folder).fingerprint == prepared.fingerprint
    with pytest.raises(UsageError, match="prepared from other clips, settings or another teacher"):
        prepare(config.model_copy(update={"valid_share": 0.3}), prepared.folder)
    with pytest.raises(UsageError, match="holds no prepared clips"):
        open_clips(tmp_path)


def test_what_is_heard_of_a_text() -> None:
    assert plain_letters("  Ｈello, “World” -- it's №5!\n") == "hello world it s no5"
    assert plain_letters("नमस्ते।") == "नमस्ते"
