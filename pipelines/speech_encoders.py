"""The speech of a corpus for ``lcm-data encode``: which languages have it, and the encoders that serve these."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lcm_data.encode import EncoderOptions, describe_speech_encoder
from lcm_data.errors import UsageError
from lcm_data.space import check_same_space
from lcm_data.store.files import Files
from lcm_data.store.manifest import Manifest
from lcm_data.store.shard import parse_shard_path
from lcm_data.workers.encode import SPEECH_ENCODER, SPEECH_REVISION
from lcm_data.workers.speech import num_clips


@dataclass(frozen=True)
class Rows:
    """How many rows of a language are text, and how many speech."""

    text: int
    speech: int


def rows_by_language(segments: Files, manifest: Manifest) -> dict[str, Rows]:
    """The rows of every language; only footers of shards are read, and none if no recordings were segmented."""
    languages = [parse_shard_path(shard.path)[1] for shard in manifest.shards]
    spoken = [0] * len(languages)
    if "vad" in manifest.provenance:
        with ThreadPoolExecutor(16) as pool:
            spoken = list(pool.map(lambda shard: num_clips(segments, shard.path), manifest.shards))
    rows: dict[str, Rows] = {}
    for lang, shard, speech in zip(languages, manifest.shards, spoken, strict=True):
        before = rows.get(lang, Rows(0, 0))
        rows[lang] = Rows(before.text + shard.rows - speech, before.speech + speech)
    return rows


def describe_speech_encoders(options: Mapping[str, EncoderOptions]) -> dict[str, dict[str, str]]:
    """What identifies the vectors of each language's speech encoder.

    Raises:
        SpaceError: two of them are of different spaces.
        UsageError: their vectors have different widths.
        CheckpointError, UnknownNameError: see ``describe_speech_encoder``.
    """
    described = {lang: describe_speech_encoder(each) for lang, each in options.items()}
    first = next(iter(described), "")
    for lang, each in described.items():
        check_together(described[first], each, f"the speech encoder of {first}", f"that of {lang}")
    return described


def check_together(first: Mapping[str, str], second: Mapping[str, str], first_is: str, second_is: str) -> None:
    """Refuse encoders whose vectors cannot lie in one corpus.

    Raises:
        SpaceError: different spaces.
        UsageError: different widths.
    """
    advice = "Give --model and --speech-model of one space (a config.json beside the weights can name it)."
    check_same_space(first, second, first_is, second_is, advice)
    if first["dim"] != second["dim"]:
        raise UsageError(
            f"{first_is} makes vectors of {first['dim']} numbers, {second_is} of {second['dim']}; a corpus holds one "
            f"width. {advice}"
        )


def speech_facts(described: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The speech encoder and its revision for each language, as provenance."""
    facts = {f"{SPEECH_ENCODER}.{lang}": each["encoder"] for lang, each in described.items()}
    return {**facts, **{f"{SPEECH_REVISION}.{lang}": each["encoder_revision"] for lang, each in described.items()}}


def speech_alone(described: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The description of a corpus of nothing but speech: that of its encoder, or of all of them as one."""
    each = list({facts["encoder_revision"]: facts for facts in described.values()}.values())
    if len(each) == 1:
        return dict(each[0])
    revisions = sorted(facts["encoder_revision"] for facts in each)
    names = sorted({facts["encoder"] for facts in each})
    together = hashlib.sha256("\n".join(revisions).encode()).hexdigest()
    return {**each[0], "encoder": ", ".join(names), "encoder_revision": together}
