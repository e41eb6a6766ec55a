"""Clips and what they say to what a speech encoder trains on: filter banks, the teacher's vectors, and transcripts.

The target of a clip is what the teacher makes of its transcript, or of a translation if it does not know the language
that is spoken. The prepared folder is all that training needs; ``lcm_models.speech.prepared`` reads it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lcm_data.encode import Encoder, EncoderOptions, describe_encoder, load_encoder
from lcm_data.errors import InputError, MissingExtraError, UnknownNameError, UsageError
from lcm_data.sonar.speech_config import NUM_CHANNELS
from lcm_models.sonar.prepare import input_fingerprint, place_of
from lcm_models.speech.clips import Clip, read_clips
from lcm_models.speech.config import ClipsConfig
from lcm_models.speech.prepared import ABOUT, BANKS, Array, PreparedClips, open_clips

log = logging.getLogger("lcm_data.train")

_PIVOT = "eng_Latn"
_TEACHER_FACTS = ("encoder_revision", "tokenizer_revision", "space", "dim", "compute_dtype")
_BLOCK = 256


def prepare(config: ClipsConfig, folder: str | Path) -> PreparedClips:
    """Make the folder, or open it if it was made of the same clips, teacher and settings.

    Raises:
        InputError: a table cannot be read, or no clip can be used.
        UsageError: the folder was made of something else.
        CheckpointError, UnknownNameError: the teacher cannot be loaded.
        MissingExtraError: PyAV is not installed.
    """
    target = Path(folder)
    described = describe_encoder(EncoderOptions(model=config.teacher))
    identity = {
        "settings": config.model_dump(mode="json"),
        "teacher": {name: described[name] for name in _TEACHER_FACTS if name in described},
        "inputs": {uri: input_fingerprint(uri) for uri in config.speech},
    }
    if (target / ABOUT).is_file():
        stored = json.loads((target / ABOUT).read_text("utf-8"))
        if {name: stored.get(name) for name in identity} != identity:
            raise UsageError(
                f"{target} was prepared from other clips, settings or another teacher. Give another folder, or delete "
                "it."
            )
        return open_clips(target)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    about = _write(config, load_encoder(EncoderOptions(model=config.teacher)), partial)
    (partial / ABOUT).write_text(json.dumps({**identity, **about}, indent=1, ensure_ascii=False), "utf-8")
    partial.rename(target)
    return open_clips(target)


@dataclass
class _Chosen:
    """The clips to use, with the language and the text of their target; how many were left out, and why."""

    clips: list[Clip] = field(default_factory=list)
    targets: list[tuple[str, str]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def _write(config: ClipsConfig, teacher: Encoder, folder: Path) -> dict[str, Any]:
    """Everything but the notes, which are returned."""
    chosen = _choose(config, teacher)
    used, ends_N = _write_banks(chosen, config.max_seconds, folder / BANKS)
    if not used:
        raise InputError(f"none of the clips can be used: {_listed(chosen.left_out)}.")
    for reason, number in chosen.left_out.items():
        log.warning("%s clips were left out: %s", f"{number:,}", reason)
    clips = [chosen.clips[row] for row in used]
    characters, spelled = _spelled(clips)
    places = [place_of(chosen.clips[row].texts.get(_PIVOT) or chosen.targets[row][1]) for row in used]
    groups = [chosen.groups[row] for row in used]
    names = sorted(set(groups))
    arrays = {
        "ends": ends_N,
        "targets": _targets(teacher, [chosen.targets[row] for row in used]),
        "letters": np.concatenate([np.zeros(0, np.uint16), *spelled]),
        "letter_ends": np.cumsum([len(each) for each in spelled], dtype=np.int64),
        "groups": np.array([names.index(group) for group in groups], np.int32),
        "held_out": np.array(places) < config.valid_share,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {
        "languages": sorted({clip.lang for clip in clips}),
        "characters": characters,
        "groups": names,
        "counts": {
            "clips": len(used),
            "held_out": int(arrays["held_out"].sum()),
            "hours": round(int(ends_N[-1]) / 360_000, 2),
            "left_out": dict(chosen.left_out),
        },
    }


def _choose(config: ClipsConfig, teacher: Encoder) -> _Chosen:
    chosen, knows = _Chosen(), dict[str, bool]()
    wanted = None if config.langs is None else set(config.langs)
    spoken = set()
    for number, uri in enumerate(config.speech):
        for clip in read_clips(uri):
            spoken.add(clip.lang)
            if wanted is not None and clip.lang not in wanted:
                continue
            order = [clip.lang, _PIVOT, *sorted(clip.texts)]
            lang = next((lang for lang in order if lang in clip.texts and _knows(teacher, lang, knows)), None)
            if lang is None:
                chosen.left_out["no text in a language that the teacher knows" if clip.texts else "no text"] += 1
                continue
            chosen.clips.append(clip)
            chosen.targets.append((lang, clip.texts[lang]))
            chosen.groups.append(f"{number}:{clip.lang}")
    if wanted is not None and (missing := sorted(wanted - spoken)):
        raise UsageError(f"no clip in {', '.join(missing)}. There is: {', '.join(sorted(spoken))}.")
    return chosen


def _knows(teacher: Encoder, lang: str, known: dict[str, bool]) -> bool:
    if lang not in known:
        try:
            teacher.prepare(["a"], lang)
            known[lang] = True
        except UnknownNameError:
            known[lang] = False
    return known[lang]


def _write_banks(chosen: _Chosen, max_seconds: float, path: Path) -> tuple[list[int], Array]:
    """The filter banks of the clips that can be read, those clips by number, and where each ends in the file."""
    used: list[int] = []
    lengths: list[int] = []
    with path.open("wb") as file, _one_thread_each(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(chosen.clips), _BLOCK):
            block = chosen.clips[start : start + _BLOCK]
            for number, found in enumerate(pool.map(lambda clip: _bank(clip, max_seconds), block), start):
                if isinstance(found, str):
                    chosen.left_out[found] += 1
                    continue
                file.write(found.tobytes())
                used.append(number)
                lengths.append(len(found))
            log.info("%s of %s clips read", f"{start + len(block):,}", f"{len(chosen.clips):,}")
    return used, np.cumsum(lengths, dtype=np.int64)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Threads that each compute need no threads of torch's on top: those only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _bank(clip: Clip, max_seconds: float) -> Array | str:
    """The filter bank of a clip, float16 [F, 80], or why there is none."""
    import torch

    from lcm_data.audio.read import read_all, read_clip
    from lcm_data.encode.speech import SAMPLE_RATE, prepare_waves
    from lcm_data.sonar.speech_features import filter_bank

    try:
        if clip.start is None or clip.end is None:
            wave_W = read_all(clip.uri, clip.channel, max_seconds=max_seconds)
        else:
            wave_W = read_clip(clip.uri, clip.channel, clip.start, clip.end)
    except MissingExtraError:
        raise
    except (InputError, UsageError) as error:
        log.debug("%s: %s", clip.uri, error)
        return "they cannot be read"
    if len(wave_W) > max_seconds * SAMPLE_RATE:
        return f"they are longer than {max_seconds:g} s (clips.max_seconds)"
    try:
        prepare_waves([wave_W], 1)
    except UsageError as error:
        log.debug("%s: %s", clip.uri, error)
        return "they are silent, shorter than 35 ms or hold numbers that are not finite"
    with torch.inference_mode():
        bank_FC = filter_bank(torch.from_numpy(wave_W)).to(torch.float16).numpy()
    assert bank_FC.shape[1] == NUM_CHANNELS
    return bank_FC


def _targets(teacher: Encoder, texts: Sequence[tuple[str, str]]) -> Array:
    """The teacher's vectors, float32 [N, D]; equal texts are encoded once."""
    vectors_ND = np.empty((len(texts), teacher.dim), np.float32)
    for lang in sorted({lang for lang, _ in texts}):
        rows = [row for row, (its, _) in enumerate(texts) if its == lang]
        unique, place = np.unique([texts[row][1] for row in rows], return_inverse=True)
        vectors_ND[rows] = teacher.embed(teacher.prepare(unique.tolist(), lang))[place]
    return vectors_ND


def _spelled(clips: Sequence[Clip]) -> tuple[str, list[Array]]:
    """The characters of all transcripts, and the transcript of each clip as numbers of them, from 1."""
    transcripts = [plain_letters(clip.texts.get(clip.lang, "")) for clip in clips]
    characters = "".join(sorted(set().union(*transcripts)))
    number = {character: place for place, character in enumerate(characters, 1)}
    return characters, [np.array([number[each] for each in text], np.uint16) for text in transcripts]


def plain_letters(text: str) -> str:
    """What is heard of a text: letters, digits and marks in lower case, and single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = (each if unicodedata.category(each)[0] in "LNM" else " " for each in folded)
    return " ".join("".join(kept).split())


def _listed(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} since {reason}" for reason, number in left_out.items()) or "there are none"
