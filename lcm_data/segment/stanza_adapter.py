"""Sentences by stanza's neural tokenizers, one model a language, from a local resources folder.

The network is never asked: a model that is not there is an error. stanza and torch are imported when a segmenter is
built.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lcm_data.errors import CheckpointError, MissingExtraError
from lcm_data.segment.base import Span, spans_between
from lcm_data.segment.codes import stanza_code

_BATCH_CHARS = 100_000  # characters given to stanza at once, whole paragraphs
_GAP = "\n\n"  # what separates paragraphs for stanza


class StanzaSegmenter:
    """Sentence boundaries of stanza's ``tokenize`` processor.

    Args:
        model: a resources folder as ``stanza.download(lang, model_dir=…)`` makes it (``resources.json`` beside one
            folder a language). Default: stanza's own (``STANZA_RESOURCES_DIR``, else below the user's cache).

    Raises:
        MissingExtraError: stanza is not installed.
        CheckpointError: the folder has no readable ``resources.json``.
    """

    fingerprint: str

    def __init__(self, model: str | None = None) -> None:
        try:
            import stanza
            from stanza.resources.common import DEFAULT_MODEL_DIR
        except ImportError:
            raise MissingExtraError("segmenter 'stanza'", "stanza", "stanza") from None
        self._folder = Path(DEFAULT_MODEL_DIR if model is None else model)
        self._languages = _languages(self._folder)
        self._pipelines: dict[str, Any] = {}
        self.fingerprint = f"stanza-{stanza.__version__}/{_digest(self._folder)}"

    def segment(self, paragraphs: Sequence[str], lang: str) -> list[list[Span]]:
        """Return the sentence spans of each paragraph; see ``Segmenter.segment``.

        Raises:
            CheckpointError: there is no tokenizer for ``lang`` in the folder, or it cannot be loaded.
        """
        pipeline = self._pipeline(stanza_code(lang))
        cuts: list[list[int]] = [[] for _ in paragraphs]
        for batch in _batches(paragraphs):
            offsets, parts, position = [], [], 0
            for i in batch:
                offsets.append(position)
                # A blank line inside would split the paragraph for stanza, whatever the words say.
                parts.append(paragraphs[i].replace("\n", " "))
                position += len(parts[-1]) + len(_GAP)
            for sentence in pipeline(_GAP.join(parts)).sentences:
                start = sentence.tokens[0].start_char
                which = bisect_right(offsets, start) - 1
                cuts[batch[which]].append(start - offsets[which])
        return [spans_between(found, len(text)) for found, text in zip(cuts, paragraphs, strict=True)]

    def _pipeline(self, code: str) -> Any:
        if code not in self._pipelines:
            if code not in self._languages:
                known = ", ".join(sorted(self._languages)) or "none"
                raise CheckpointError(
                    f"no stanza model for {code!r} in {self._folder} (it has: {known}). Where there is a network, run "
                    f"stanza.download({code!r}, processors='tokenize', model_dir={str(self._folder)!r})."
                )
            self._pipelines[code] = self._load(code)
        return self._pipelines[code]

    def _load(self, code: str) -> Any:
        import stanza

        try:
            return stanza.Pipeline(
                code, dir=str(self._folder), processors="tokenize", download_method=None, logging_level="ERROR"
            )
        except Exception as error:  # stanza raises FileNotFoundError, KeyError, pickle and zip errors of all kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"cannot load the stanza tokenizer for {code!r} from {self._folder}: {reason} Download it again."
            ) from error


def _languages(folder: Path) -> frozenset[str]:
    path = folder / "resources.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(
            f"stanza resources folder {folder} has no readable resources.json. Give the folder that "
            "stanza.download(lang, processors='tokenize', model_dir=…) filled where there is a network."
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}). Download it again.") from error
    return frozenset(code for code, entry in entries.items() if isinstance(entry, dict) and "tokenize" in entry)


def _digest(folder: Path) -> str:
    """Return a short digest of all tokenizers in the folder: they are the model."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*/tokenize/*.pt")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _batches(paragraphs: Sequence[str]) -> Iterator[list[int]]:
    """Yield the numbers of the paragraphs that are not blank, in runs of about ``_BATCH_CHARS`` characters."""
    batch: list[int] = []
    size = 0
    for i, text in enumerate(paragraphs):
        if not text.strip():
            continue
        batch.append(i)
        size += len(text)
        if size >= _BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
