"""Trains the SentencePiece tokenizer of a SONAR model on texts of any script; ``lcm_data.sonar.tokenizer`` uses it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from lcm_data.errors import MissingExtraError, UsageError

_NUM_BASE_PIECES = 256 + 8


def train_tokenizer(texts: Sequence[str], vocab_size: int, *, normalization: str = "nmt_nfkc", **options: Any) -> bytes:
    """A unigram SentencePiece model with byte fallback, trained on one thread for the same result everywhere.

    Args:
        texts: sentences; blank ones are left out.
        vocab_size: pieces; fewer when the texts do not give so many, more when their characters need it.
        normalization: a rule of SentencePiece: "identity" keeps every character, so that it can be said again.
        options: further options of ``SentencePieceTrainer``.

    Raises:
        UsageError: there is no text.
        MissingExtraError: sentencepiece is not installed.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingExtraError("training a tokenizer", "sentencepiece", "torch") from error
    sentences = [text for text in texts if text.strip()]
    if not sentences:
        raise UsageError("training a tokenizer needs at least one text that is not blank, got none.")
    # All 256 bytes and every usual character are pieces of their own, whatever size was asked for.
    characters = set("".join(sentences))
    least = _NUM_BASE_PIECES + 2 * len(characters) if len(sentences) <= _FEW_TEXTS else 0
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences),
        model_writer=out,
        model_type="unigram",
        vocab_size=max(vocab_size, least),
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name=normalization,
        **{
            "character_coverage": 0.9995,
            "num_threads": 1,
            "max_sentence_length": 8192,
            "minloglevel": 2,
            **options,
        },
    )
    return out.getvalue()


_FEW_TEXTS = 20_000
"""Up to here characters may outnumber the pieces that were asked for; with more text the rare ones become bytes."""


def num_pieces(model: bytes) -> int:
    """How many pieces a model has."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    return int(processor.GetPieceSize())
