"""Sentences by spaCy: a trained pipeline by name or path, or the rule-based sentencizer of the language.

Only the components that sentences need are run. spaCy is imported when a segmenter is built.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcm_data.errors import CheckpointError, MissingExtraError, UsageError
from lcm_data.segment.base import Span, spans_between
from lcm_data.segment.codes import iso1

if TYPE_CHECKING:
    from spacy.language import Language

_log = logging.getLogger(__name__)

# Characters given to spaCy at once. Below nlp.max_length (1,000,000) so that memory stays small, and below the
# 49,149 bytes that the Japanese tokenizer takes.
_CHUNK_CHARS = 15_000
_BOUNDARY_PIPES = ("senter", "parser", "sentencizer")  # best first
_KEPT_PIPES = ("tok2vec", "transformer", "curated_transformer")
_UNUSED_PIPES = ("ner", "tagger", "morphologizer", "lemmatizer", "attribute_ruler", "textcat", "entity_linker")
# Where spaCy's default tokenizer needs a package that may be absent but spaCy has a simpler one of its own.
_PLAIN_TOKENIZERS: dict[str, dict[str, Any]] = {
    "ko": {"nlp": {"tokenizer": {"@tokenizers": "spacy.Tokenizer.v1"}}},
    "vi": {"nlp": {"tokenizer": {"use_pyvi": False}}},
}


class SpacySegmenter:
    """spaCy's sentence boundaries.

    Without a model each language gets ``spacy.blank(lang)`` and its ``sentencizer``. Where spaCy has no such language,
    or its tokenizer needs a package that is not installed (sudachipy for Japanese, pythainlp for Thai), the
    multi-language ``xx`` stands in, with a warning in the log: it splits off punctuation only at spaces, so scripts
    without spaces come back nearly uncut.

    Args:
        model: an installed pipeline such as ``en_core_web_sm`` or ``xx_sent_ud_sm``, or the folder of one. Its senter
            (enabled if it is not), else its parser, else its sentencizer is used.

    Raises:
        MissingExtraError: spaCy is not installed.
        CheckpointError: the model is not installed, not a folder, or has nothing that finds sentences.
    """

    fingerprint: str

    def __init__(self, model: str | None = None) -> None:
        try:
            import spacy
        except ImportError:
            raise MissingExtraError("segmenter 'spacy'", "spacy", "spacy") from None
        self._blank: dict[str, Language] = {}
        self._model = None if model is None else _load(model)
        if self._model is None:
            self.fingerprint = f"spacy-{spacy.__version__}/sentencizer"
        else:
            meta = self._model.meta
            self.fingerprint = f"spacy-{spacy.__version__}/{meta['lang']}_{meta['name']}-{meta['version']}/" + "+".join(
                self._model.pipe_names
            )

    def segment(self, paragraphs: Sequence[str], lang: str) -> list[list[Span]]:
        """Return the sentence spans of each paragraph; see ``Segmenter.segment``.

        Raises:
            UsageError: the model is for another language.
        """
        nlp = self._pipeline(lang)
        cuts: list[list[int]] = [[] for _ in paragraphs]
        starts = dict.fromkeys(range(len(paragraphs)), 0)
        # Long paragraphs go in chunks: what spaCy takes for the last sentence of a chunk is read again with the next.
        while starts:
            chunks = [paragraphs[i][start : start + _CHUNK_CHARS] for i, start in starts.items()]
            for (i, start), doc in zip(list(starts.items()), nlp.pipe(chunks), strict=True):
                found = [start + sent.start_char for sent in doc.sents]
                if start + _CHUNK_CHARS >= len(paragraphs[i]):
                    del starts[i]
                elif len(found) > 1:
                    starts[i] = found[-1]
                else:
                    starts[i] += _CHUNK_CHARS  # one "sentence" of a whole chunk: it is cut here, and later capped
                cuts[i] += found
        return [spans_between(found, len(text)) for found, text in zip(cuts, paragraphs, strict=True)]

    def _pipeline(self, lang: str) -> Language:
        code = iso1(lang)
        if self._model is None:
            if code not in self._blank:
                self._blank[code] = _sentencizer(code)
            return self._blank[code]
        if self._model.lang not in (code, "xx"):
            raise UsageError(
                f"spaCy model {self._model.meta['name']!r} is for language {self._model.lang!r}, got documents in "
                f"{lang!r}. Give a model of that language or of many (xx_sent_ud_sm), or none for the sentencizer."
            )
        return self._model


def _load(model: str) -> Language:
    import spacy

    if ("/" in model or "\\" in model) and not Path(model).is_dir():
        raise CheckpointError(f"spaCy model {model!r} is not a folder. Give the folder written by nlp.to_disk().")
    try:
        nlp = spacy.load(model, exclude=list(_UNUSED_PIPES))
    except OSError as error:
        raise CheckpointError(
            f"cannot load spaCy model {model!r}: {str(error).splitlines()[0]} Install it with "
            f"'python -m spacy download {model}' where there is a network, or give its folder."
        ) from error
    boundary = next((pipe for pipe in _BOUNDARY_PIPES if pipe in nlp.component_names), None)
    if boundary is None:
        raise CheckpointError(
            f"spaCy model {model!r} has no senter, parser or sentencizer, only {nlp.component_names}. Give one that "
            "finds sentences, or no model for the sentencizer."
        )
    if boundary in nlp.disabled:
        nlp.enable_pipe(boundary)
    nlp.select_pipes(enable=[pipe for pipe in nlp.pipe_names if pipe in (*_KEPT_PIPES, boundary)])
    return nlp


def _sentencizer(code: str) -> Language:
    import spacy

    try:
        nlp = spacy.blank(code, config=_PLAIN_TOKENIZERS.get(code, {}))
    except ImportError as error:  # no such language, or its tokenizer's package is missing
        reason = str(error).splitlines()[0]
        _log.warning("spaCy cannot tokenize %r here (%s); its multi-language 'xx' is used instead.", code, reason)
        nlp = spacy.blank("xx")
    nlp.add_pipe("sentencizer")
    return nlp
