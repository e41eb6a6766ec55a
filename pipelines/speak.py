"""Speech of a corpus of sentences: a sound file a row, named by its id. The last step of ``lcm-data decode --speech``.

A file is written whole or not at all, so a run that was stopped goes on with what is missing.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from lcm_data.corpus import StageData, open_corpus
from lcm_data.errors import PlanMismatchError
from lcm_data.speak import Speaker
from lcm_data.speak.files import SoundFormat, sound_file
from lcm_data.store.files import Files, open_files

SPEECH = "speech"
"""Folder of a corpus."""
_ABOUT = "speech.json"
_AT_ONCE = 256
"""Sentences in flight."""


class Said(NamedTuple):
    """What there is now, and what this run did."""

    files: int
    written: int
    silent: int
    """Sentences with nothing to say: no words, or none in the voice's alphabet. They have no file."""
    seconds: float
    """Length of what was written."""


def say_corpus(corpus: str, speaker: Speaker, form: SoundFormat, *, overwrite: bool = False) -> Said:
    """Say every sentence of the segments of ``corpus``: ``speech/split=S/lang=L/SID.wav``.

    Raises:
        PlanMismatchError: the files there are of other sentences, another voice or form.
        UsageError: the engine failed.
    """
    data, target = open_corpus(corpus).segments, open_files(corpus).child(SPEECH)
    about = {"voice": speaker.name, "rate": speaker.rate, "format": form, "sentences": data.manifest.digest}
    _begin(target, about, overwrite)
    there = set(target.list()) - {_ABOUT}
    todo = (each for each in _sentences(data, form) if each[0] not in there)
    written = silent = samples = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in _batched(todo, _AT_ONCE):
            said = pool.map(lambda each: speaker.say(each[1]), part)
            for (path, _), x_N in zip(part, said, strict=True):
                if len(x_N):
                    target.write(path, sound_file(x_N, speaker.rate, form))
                    written, samples = written + 1, samples + len(x_N)
                else:
                    silent += 1
    return Said(len(there) + written, written, silent, samples / speaker.rate)


def _begin(target: Files, about: dict[str, Any], overwrite: bool) -> None:
    """Note what the files are of; refuse to mix them with others."""
    found = json.loads(target.read(_ABOUT)) if target.size(_ABOUT) is not None else None
    if found is not None and found != about and not overwrite:
        differ = [
            f"{name} was {found.get(name)!r}, now {about[name]!r}" for name in about if found.get(name) != about[name]
        ]
        raise PlanMismatchError(
            f"the speech in {target.root} is of something else: {'; '.join(differ)}. Give --overwrite to say it anew."
        )
    if overwrite:
        target.remove_tree()
    target.write(_ABOUT, json.dumps(about, indent=1).encode())


def _sentences(data: StageData, form: str) -> Iterator[tuple[str, str]]:
    """Path and text of every row that has words."""
    for batch in data.batches(columns=["sid", "text"]):
        for sid, text in zip(batch["sid"], batch["text"], strict=True):
            yield f"split={batch.split}/lang={batch.lang}/{sid}.{form}", text


def _batched(items: Iterable[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    """Lists of ``size`` items, the last of what is left."""
    iterator = iter(items)
    while part := list(itertools.islice(iterator, size)):
        yield part
