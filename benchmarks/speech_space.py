"""Does speech lie where its meaning lies? The nearest of 500 sentences to every held-out clip, by cosine.

    python -m benchmarks.speech_space clips --model MODEL [--speech-model MODEL]

``clips`` is a folder of ``benchmarks.speech_clips``. For each table of held-out clips and each spoken language: the
share of the clips whose nearest sentence is what they say, among 500 sentences of their own language, and among 500
translations (English, or of English Spanish); the same for the network before it learned anything. Chance is 0.2 %.

Traps: (1) the 500 are the texts of the held-out clips first, then others of the same collection, learned or not, so
they are as alike as telephone prompts are. (2) Texts that are equal up to case and punctuation count as one. (3) A
language that the encoder of text does not know (Czech for sonar-mini) has translations only. (4) The speakers of
``test-prompts`` and ``test-game`` were heard in training, those of ``test-figures`` and ``test-voice`` were not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcm_data.audio.read import read_all
from lcm_data.encode import Encoder, EncoderOptions, load_encoder
from lcm_data.encode.native_speech import NativeSpeechEncoder
from lcm_data.errors import UnknownNameError
from lcm_models.speech.clips import Clip, read_clips
from lcm_models.speech.config import SpeechConfig
from lcm_models.speech.model import SpeechModel
from lcm_models.speech.prepare import plain_letters

NUM_SENTENCES = 500
TABLES = ("test-prompts", "test-game", "test-figures", "test-voice")
Vectors = np.ndarray[Any, np.dtype[np.float32]]


def untrained(encoder: NativeSpeechEncoder) -> None:
    """The network as training begins with it, in place."""
    config = encoder._network.config
    sizes = SpeechConfig(
        width=config.model_dim, layers=config.num_layers, ffn=config.ffn_dim, kernel_size=config.kernel_size,
        pooler_layers=config.pooler_layers,
    )  # fmt: skip
    torch.manual_seed(0)
    encoder._network = SpeechModel(sizes, config.embedding_dim, 1.0, 1).encoder.eval()


def clips_of(folder: Path, table: str, most: int) -> dict[str, list[Clip]]:
    """The clips of a table by language, so many of each, with two words or more."""
    found: dict[str, list[Clip]] = {}
    for clip in read_clips(str(folder / f"{table}.jsonl")):
        if len(clip.texts.get(clip.lang, "").split()) > 1:
            found.setdefault(clip.lang, []).append(clip)
    return {lang: clips[:most] for lang, clips in sorted(found.items())}


def pool_of(own: Sequence[Clip], others: Sequence[Clip], lang: str) -> list[str]:
    """500 different sentences of a language: those of the clips, then others."""
    texts: dict[str, str] = {}
    for clip in (*own, *others):
        if lang in clip.texts and len(texts) < NUM_SENTENCES:
            texts.setdefault(plain_letters(clip.texts[lang]), clip.texts[lang])
    return list(texts.values())


def found(clip_ND: Vectors, clips: Sequence[Clip], texts: list[str], text_MD: Vectors, lang: str) -> tuple[int, int]:
    """How many clips have a text in the language, and of how many it is the nearest."""
    rows = [row for row, clip in enumerate(clips) if lang in clip.texts]
    clip_ND, text_MD = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (clip_ND[rows], text_MD))
    nearest = (clip_ND @ text_MD.T).argmax(axis=1)
    right = [plain_letters(texts[m]) == plain_letters(clips[r].texts[lang]) for r, m in zip(rows, nearest, strict=True)]
    return len(rows), sum(right)


def knows(encoder: Encoder, lang: str) -> bool:
    """Whether the encoder of text has the language."""
    try:
        encoder.prepare(["a"], lang)
    except UnknownNameError:
        return False
    return True


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--model", default="sonar-mini")
    parser.add_argument("--speech-model", default="sonar-mini")
    parser.add_argument("--most", type=int, default=150, help="clips of a language")
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    args = parser.parse_args()
    text = load_encoder(EncoderOptions(model=args.model, threads=1))
    options = EncoderOptions(model=args.speech_model, threads=1)
    speech = {"trained": NativeSpeechEncoder(options), "untrained": NativeSpeechEncoder(options)}
    untrained(speech["untrained"])
    collections = {name: list(read_clips(str(args.clips / f"{name}.jsonl"))) for name in ("recordings", "spoken")}
    print("| table | spoken | clips | transcript | untrained | translation | untrained |")
    print("|---|---|---|---|---|---|---|")
    for table in args.tables:
        others = collections["spoken" if table == "test-voice" else "recordings"]
        is_prompt = table == "test-prompts"  # alike ones first
        others.sort(key=lambda clip, is_prompt=is_prompt: ("/prompts/" in clip.uri) != is_prompt)
        for lang, clips in clips_of(args.clips, table, args.most).items():
            waves = [read_all(clip.uri, clip.channel) for clip in clips]
            vectors = {name: encoder.embed(encoder.prepare(waves)) for name, encoder in speech.items()}
            cells = []
            for target in (lang, "spa_Latn" if lang == "eng_Latn" else "eng_Latn"):
                texts = pool_of(clips, others, target)
                if not knows(text, target) or len(texts) < NUM_SENTENCES:
                    cells += ["", ""]
                    continue
                text_MD = text.embed(text.prepare(texts, target))
                for clip_ND in vectors.values():
                    num, right = found(clip_ND, clips, texts, text_MD, target)
                    cells.append(f"{100 * right / num:.1f} %" if num else "")
            print(f"| {table} | {lang} | {len(clips)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
