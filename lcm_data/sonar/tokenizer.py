"""Text to the token ids of SONAR (the NLLB SentencePiece vocabulary) and back; loads no weights, needs no torch.

Ids follow fairseq2: 0 ``<pad>``, 1 ``<unk>``, 2 ``<s>``, 3 ``</s>``, piece i of the SentencePiece file at i + 1, then
one id per language, then three data tags. Other corpora may use any other SentencePiece model and list of languages.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.errors import CheckpointError, MissingExtraError, UnknownNameError, UsageError
from lcm_data.languages import FLORES_200, parse_language
from lcm_data.sonar.config import NUM_DATA_TAGS

PAD, UNK, BOS, EOS = 0, 1, 2, 3

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Tokens:
    """The ids of N sentences, one after the other.

    Attributes:
        ids: int32 [T], all sentences concatenated.
        lengths: int32 [N], how many ids each sentence has.
        full_lengths: int32 [N], how many it would have had without truncation.
    """

    ids: Int32
    lengths: Int32
    full_lengths: Int32

    @property
    def truncated(self) -> npt.NDArray[np.bool_]:
        """Which sentences [N] lost tokens."""
        return self.full_lengths > self.lengths

    @property
    def num_unknown(self) -> Int32:
        """How many ids of each sentence [N] are ``<unk>``; one stands for a run of unknown characters of any length."""
        if len(self.lengths) == 0:
            return np.zeros(0, np.int32)
        return np.add.reduceat(self.ids == UNK, self.starts, dtype=np.int32)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each sentence begins in ``ids`` [N]."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        return ends - self.lengths

    def rows(self) -> list[Int32]:
        """One id array per sentence."""
        return [self.ids[a : a + n] for a, n in zip(self.starts.tolist(), self.lengths.tolist(), strict=True)]


class SonarTokenizer:
    """SentencePiece with a language token in front and ``</s>`` behind."""

    def __init__(
        self,
        path: str | Path,
        *,
        languages: Sequence[str] = FLORES_200,
        max_tokens: int = 514,
        threads: int = 1,
    ) -> None:
        """Open the SentencePiece model at ``path``.

        Args:
            path: a ``*.model`` file.
            languages: the languages in the order of their ids.
            max_tokens: longest id sequence, language token and ``</s>`` included.
            threads: threads of one ``encode`` call; more pays from some hundred sentences on.

        Raises:
            CheckpointError: the file is missing or no SentencePiece model.
        """
        try:
            import sentencepiece
        except ImportError as error:
            raise MissingExtraError("the SONAR tokenizer", "sentencepiece", "torch") from error
        self.path = Path(path)
        self.languages = tuple(languages)
        self.max_tokens = max_tokens
        self.threads = threads
        self._model: Any = sentencepiece.SentencePieceProcessor()
        try:
            self._model.Load(str(self.path))
        except (OSError, RuntimeError) as error:
            what = "is not a SentencePiece model" if self.path.is_file() else "does not exist"
            raise CheckpointError(f"tokenizer {self.path} {what} ({error}). Expected a file like *.model.") from error
        self.num_pieces: int = self._model.GetPieceSize()
        self._lang_ids = {lang: self.num_pieces + 1 + i for i, lang in enumerate(self.languages)}

    @property
    def vocab_size(self) -> int:
        """Rows of an embedding table for this tokenizer: padding, pieces, languages and data tags (NLLB: 256206)."""
        return 1 + self.num_pieces + len(self.languages) + NUM_DATA_TAGS

    def lang_id(self, lang: str) -> int:
        """The id of a language such as ``eng_Latn``.

        Raises:
            UnknownNameError: the model has no such language.
        """
        if lang not in self._lang_ids:
            if self.languages == FLORES_200:
                parse_language(lang)  # its message is better: a wrong script (arb_Latn) is the usual mistake
            raise UnknownNameError("language of this model", lang, self.languages)
        return self._lang_ids[lang]

    def encode(self, texts: Sequence[str], lang: str) -> Tokens:
        """``[lang] + pieces + [</s>]`` for each text, cut to ``max_tokens`` ids.

        A cut sentence loses its ``</s>`` too, as in sonar-space: keeping it would give other vectors. Empty text is
        valid and gives ``[lang, </s>]``. Control tokens written out in the text are plain text.

        Raises:
            UnknownNameError: the model has no such language.
            UsageError: something that is no text, or half of a surrogate pair, which no encoding can hold.
        """
        lang_id = self.lang_id(lang)
        if not texts:
            none = np.zeros(0, np.int32)
            return Tokens(none, none, none)
        try:
            pieces = self._model.EncodeAsIds(list(texts), num_threads=self.threads)
        except TypeError as error:
            row = next((row for row, text in enumerate(texts) if not _is_unicode(text)), None)
            if row is None:
                raise
            raise UsageError(
                f"text {row} is not valid Unicode text: {texts[row]!r:.80}. "
                "Only str without lone surrogates can be tokenised."
            ) from error
        full_lengths = np.fromiter((len(p) + 2 for p in pieces), np.int32, len(pieces))
        lengths = np.minimum(full_lengths, self.max_tokens).astype(np.int32)
        # The frame is written in SentencePiece's numbering, one below ours, so that a single addition shifts all ids.
        head, tail = (lang_id - 1,), (EOS - 1,)
        room = self.max_tokens
        framed = (itertools.islice(itertools.chain(head, p, tail), room) for p in pieces)
        ids = np.fromiter(itertools.chain.from_iterable(framed), np.int32, int(lengths.sum(dtype=np.int64)))
        return Tokens(ids + np.int32(1), lengths, full_lengths)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of one id sequence; padding, ``<s>``, ``</s>``, languages and data tags are dropped.

        Raises:
            UsageError: an id that the vocabulary does not have.
        """
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise UsageError(
                    f"token id {i} is not in the vocabulary, whose ids are 0 to {self.vocab_size - 1}. "
                    "The ids may come from another model."
                )
        kept = [i - 1 for i in ids if (i == UNK or i > EOS) and i <= self.num_pieces]
        text: str = self._model.DecodeIds(kept)
        return text


def _is_unicode(text: object) -> bool:
    if not isinstance(text, str):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
