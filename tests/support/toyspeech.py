"""Speech of the toy languages: every word is a chord, and a table of clips says what was said."""

from __future__ import annotations

import json
import random
import wave
from pathlib import Path

import numpy as np
from toylanguages import sentences

_RATE = 16_000
_WORD = 0.16
"""Seconds."""


def say(text: str, pitch: float = 1.0) -> np.ndarray:
    """Samples float32 at 16 kHz: each word two tones of its own, with a short fall between them."""
    parts = []
    for word in text.split():
        draw = random.Random(word)
        time = np.arange(round(_WORD * _RATE)) / _RATE
        tones = sum(np.sin(2 * np.pi * draw.uniform(300, 3000) * pitch * time) for _ in range(2))
        parts.append(0.2 * tones * np.hanning(len(time)))
    x_N = np.concatenate(parts) + np.random.default_rng(len(text)).normal(0, 1e-3, sum(map(len, parts)))
    return x_N.astype(np.float32)


def write_clip(path: Path, x_N: np.ndarray) -> Path:
    """A WAV of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes((x_N * 32767).astype("<i2").tobytes())
    return path


def write_table(folder: Path, num: int, langs: tuple[str, ...] = ("eng_Latn", "deu_Latn"), seed: int = 0) -> Path:
    """``num`` sentences said in each language; paths in the table are relative to it."""
    rows = []
    for number, texts in enumerate(sentences(num, seed)):
        for lang in langs:
            name = f"{lang}/{number}.wav"
            write_clip(folder / name, say(texts[lang], 1 + 0.02 * (number % 3)))
            others = {other: text for other, text in texts.items() if other != lang}
            rows.append({"audio": name, "lang": lang, "text": texts[lang], **others})
    table = folder / "clips.jsonl"
    table.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return table
