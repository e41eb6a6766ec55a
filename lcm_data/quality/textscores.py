"""How near one text is to another: chrF2 and BLEU by sacrebleu, with the tokenizer a language needs, and exact matches.

chrF2 is the figure to compare across languages: it needs no tokenizer. BLEU depends on one, so its signature is
kept with every figure. (spBLEU's "flores200" tokenizer is not used: sacrebleu downloads it.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lcm_data.errors import MissingExtraError

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

Array = np.ndarray[Any, Any]

_TOKENIZERS = {"Hans": "zh", "Hant": "zh"} | dict.fromkeys(("Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"), "char")


@dataclass(frozen=True)
class TextScores:
    """Scores of ``num_sentences`` texts against references: chrF2 and BLEU of the whole (0 to 100), share of equals."""

    num_sentences: int
    chrf: float
    bleu: float
    exact: float


def bleu_tokenizer(lang: str) -> str:
    """sacrebleu's tokenizer for a FLORES-200 code: 13a, or zh and char for scripts without spaces between words."""
    return _TOKENIZERS.get(lang.rpartition("_")[2], "13a")


def corpus_scores(texts: Sequence[str], references: Sequence[str], lang: str) -> TextScores:
    """Scores of all texts together; at least one.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    assert len(texts) == len(references) > 0
    texts, references = [*texts], [*references]
    equal = sum(text.strip() == reference.strip() for text, reference in zip(texts, references, strict=True))
    return TextScores(
        len(texts),
        chrf=float(_chrf().corpus_score(texts, [references]).score),
        bleu=float(_bleu(lang).corpus_score(texts, [references]).score),
        exact=equal / len(texts),
    )


def sentence_chrf(texts: Iterable[str], references: Iterable[str]) -> Array:
    """chrF2 [N] of each text, 0 to 100."""
    metric = _chrf()
    pairs = zip(texts, references, strict=True)
    return np.array([metric.sentence_score(text, [reference]).score for text, reference in pairs], np.float64)


def sentence_bleu(texts: Iterable[str], references: Iterable[str], lang: str) -> Array:
    """BLEU [N] of each text, 0 to 100; of a text shorter than four words over the n-grams it has."""
    metric = _bleu(lang, effective_order=True)
    pairs = zip(texts, references, strict=True)
    return np.array([metric.sentence_score(text, [reference]).score for text, reference in pairs], np.float64)


def signatures(langs: Iterable[str]) -> dict[str, str]:
    """What sacrebleu calls these settings: of chrF2, and of BLEU for each tokenizer the languages use."""
    found = {"chrF2": _signature(_chrf())}
    for lang in sorted(langs):
        found[f"BLEU {bleu_tokenizer(lang)}"] = _signature(_bleu(lang))
        found[f"sentence BLEU {bleu_tokenizer(lang)}"] = _signature(_bleu(lang, effective_order=True))
    return found


def _signature(metric: BLEU | CHRF) -> str:
    metric.corpus_score(["a"], [["a"]])  # the number of references is part of a signature
    return str(metric.get_signature())


def _chrf() -> CHRF:
    metric: CHRF = _metrics().CHRF()
    return metric


def _bleu(lang: str, effective_order: bool = False) -> BLEU:
    metric: BLEU = _metrics().BLEU(tokenize=bleu_tokenizer(lang), effective_order=effective_order)
    return metric


def _metrics() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise MissingExtraError("scoring decoded text", "sacrebleu", "quality") from error
    return metrics
