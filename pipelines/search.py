"""``lcm-data search``: the sentences of a corpus that are nearest to a question, in words or as a recording.

The question is encoded by the encoder that the corpus names, or another one of its space. Searching is
``lcm_data.search``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from lcm_data.corpus import StageData, open_corpus
from lcm_data.encode import ENCODERS, Encoder, EncoderOptions, load_encoder, load_speech_encoder
from lcm_data.encode.speech import SpeechEncoder
from lcm_data.errors import CheckpointError, InputError, UsageError
from lcm_data.search import CorpusSearch
from lcm_data.search.engine import Hit
from lcm_data.sonar import hub
from lcm_data.space import check_same_space
from lcm_data.store.files import absolute
from lcm_data.workers.encode import SPEECH_ENCODER, SPEECH_REVISION
from pipelines.config import Dtype, Language, Languages
from pipelines.encode import default_speech_model

Float32 = npt.NDArray[np.float32]


class SearchConfig(BaseModel):
    """Settings of ``lcm-data search``."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    corpus: str = Field(description="Corpus with embeddings.")
    text: str | None = Field(None, description="What to look for, in words.")
    audio: str | None = Field(None, description="What to look for, as a recording.")
    lang: Language | None = Field(None, description="Language of the question; that of the corpus if it has one only.")
    k: int = Field(10, ge=1, description="Rows to find.")
    within: Languages = Field(None, description="Only sentences of these languages.")
    split: list[str] | None = Field(None, description="Only sentences of these splits.")
    where: str | None = Field(None, description="Only sentences for which this SQL condition is true.")
    exact: bool = Field(False, description="Look at every vector, also in an index of the kind ivf.")
    index: str = Field("auto", description="flat, ivf, or auto: by size and memory.")
    model: str | None = Field(None, description="Encoder of the question; by default the one the corpus names.")
    backend: str | None = Field(None, description="Of the encoder; by default as for the corpus.")
    speech_model: str | None = Field(None, description="Speech encoder of a recording; by default that of the corpus.")
    speech_backend: str | None = Field(None, description="Of the speech encoder.")
    prompt: str | None = Field(None, description="Put before the question; by default as for the corpus.")
    dtype: Dtype = Field("float32", description="Precision of the network: float32, bfloat16 or float16.")
    device: str = Field("auto", description="auto, cpu or cuda.")


def run(config: SearchConfig) -> dict[str, Any]:
    """Find the rows nearest to the question; the answer holds ``hits`` and how they were found.

    Raises:
        UsageError: no question or two, an unknown language or split, a condition that is none, ...
        InputError: no corpus, one without embeddings, or a recording that cannot be read.
        SpaceError: an encoder of another space.
        CheckpointError, MissingExtraError: the encoder or the index cannot be had.
    """
    if (config.text is None) == (config.audio is None):
        raise UsageError("give a sentence to look for, or --audio FILE, and not both.")
    data = open_corpus(config.corpus, allow_partial=True).embeddings
    data.shards(config.within, config.split)  # refuses what is not there before anything is loaded
    lang, begun = _language(config, data), time.perf_counter()
    query_D = spoken_query(config, data, lang) if config.audio else text_query(config, data, lang)
    encoded = time.perf_counter()
    corpus = CorpusSearch(config.corpus, config.index)
    opened = time.perf_counter()
    found = corpus.search(
        query_D, config.k, langs=config.within, splits=config.split, where=config.where, exact=config.exact
    )
    seconds = {"encode": encoded - begun, "index": opened - encoded, "search": time.perf_counter() - opened}
    return {
        "corpus": config.corpus,
        "query": config.text if config.audio is None else config.audio,
        "lang": lang,
        "rows": found.rows,
        "matching": found.matching,
        "exact": found.exact,
        "index": {**asdict(corpus.facts), "built_now": corpus.built},
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "hits": [hit_record(hit) for hit in found.hits],
    }


def hit_record(hit: Hit) -> dict[str, Any]:
    """A hit as plain values: rank and score first, then the row without what it has no value for."""
    row = {name: value for name, value in hit.row.items() if value is not None}
    first = {"rank": hit.rank, "score": round(hit.score, 6), "lang": hit.lang, "split": hit.split}
    return {**first, "doc_id": hit.doc_id, "sent_idx": hit.sent_idx, "text": hit.text, **row}


def text_query(config: SearchConfig, data: StageData, lang: str) -> Float32:
    """The vector [D] of a sentence."""
    assert config.text is not None
    if not config.text.strip():
        raise UsageError("the sentence to look for is empty.")
    encoder = _text_encoder(config, data)
    _check(encoder, data, "the encoder", "Give --model of the space of the corpus.")
    emb_1D = encoder.embed(encoder.prepare([config.text], lang))
    return np.asarray(emb_1D[0], np.float32)


def spoken_query(config: SearchConfig, data: StageData, lang: str) -> Float32:
    """The vector [D] of a recording."""
    assert config.audio is not None
    wave = _read_recording(config.audio)
    encoder = _speech_encoder(config, data, lang)
    _check(encoder, data, "the speech encoder", "Give --speech-model of the space of the corpus.")
    prepared = encoder.prepare([wave])
    if prepared.truncated[0]:
        raise UsageError(f"{config.audio} is longer than the speech encoder takes. Cut out what you look for.")
    return np.asarray(encoder.embed(prepared)[0], np.float32)


def _language(config: SearchConfig, data: StageData) -> str:
    if config.lang is not None:
        return config.lang
    if len(data.langs) == 1:
        return data.langs[0]
    raise UsageError(
        f"the corpus has {len(data.langs)} languages: say in which one you ask, as in --lang eng_Latn. (--within "
        "limits the languages of the answers.)"
    )


def _text_encoder(config: SearchConfig, data: StageData) -> Encoder:
    made = data.manifest.provenance
    spoken = {value for name, value in made.items() if name.startswith(f"{SPEECH_REVISION}.")}
    if config.model is None and (made.get("encoder_revision") in spoken or ", " in made.get("encoder", "")):
        raise UsageError(
            f"{data.files.root} was made from speech alone, so it names no encoder of text. Give --model with one of "
            f"the space {made.get('space', '')!r}, or ask with --audio FILE."
        )
    backend = config.backend or _backend(made.get("encoder_backend", "native"), ENCODERS)
    model = config.model or made.get("encoder", "")
    if config.model is None and backend == "native":
        _require_name(model, "--model")
    prompt = config.prompt if config.prompt is not None else made.get("prompt") or None
    return load_encoder(EncoderOptions(model=absolute(model), backend=backend, prompt=prompt, **_how(config)))


def _speech_encoder(config: SearchConfig, data: StageData, lang: str) -> SpeechEncoder:
    made = data.manifest.provenance
    model = config.speech_model or made.get(f"{SPEECH_ENCODER}.{lang}")
    if model is None:
        model = default_speech_model(made.get("encoder", ""), lang, asked=True)
    backend = config.speech_backend or "native"
    if config.speech_model is None and backend == "native":
        _require_name(model, "--speech-model")
    model = absolute(model.replace("{lang}", lang))
    return load_speech_encoder(EncoderOptions(model=model, backend=backend, **_how(config)))


def _how(config: SearchConfig) -> dict[str, Any]:
    return {"dtype": config.dtype, "device": config.device}


def _backend(named: str, known: Mapping[str, str]) -> str:
    """The backend that the corpus names, if that is a name one can load."""
    if named in known or ":" in named:
        return named
    raise UsageError(f"the corpus was made by the backend {named!r}, which cannot be loaded by name: give --backend.")


def _require_name(model: str, option: str) -> None:
    """A corpus keeps the name of its encoder, not the place: a folder cannot be found by it."""
    if model in (hub.MINI, hub.MINI_SPEECH) or model in hub.MODELS or "/" in model:
        return
    raise CheckpointError(
        f"the corpus names its encoder {model!r}, which is no published name: it was given as a folder or file. "
        f"Say where it is with {option}."
    )


def _check(encoder: Encoder | SpeechEncoder, data: StageData, kind: str, advice: str) -> None:
    check_same_space(encoder.provenance, data.manifest.provenance, kind, data.files.root, advice)
    if encoder.dim != data.dim:
        raise UsageError(f"{kind} makes vectors of {encoder.dim} numbers, the corpus has {data.dim}. {advice}")


def _read_recording(file: str) -> Float32:
    """A whole recording at 16 kHz, the mean of its channels.

    Raises:
        InputError: it cannot be read, or holds no sound.
        MissingExtraError: PyAV is not installed.
    """
    from lcm_data.audio.read import read_all

    wave_W = read_all(absolute(file))
    if not len(wave_W):
        raise InputError(f"the recording {file!r} holds no sound.")
    return wave_W
