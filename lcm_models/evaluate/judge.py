"""Sentences for vectors, and figures of these sentences: round trip, mutual information, and texts of continuations.

Everything is optional: what a judge was not given is not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lcm_data.decode import Decoder
from lcm_data.encode import Encoder
from lcm_models.evaluate.coherence import CoherenceModel
from lcm_models.evaluate.documents import Array
from lcm_models.evaluate.information import LanguageModel, mutual_information
from lcm_models.evaluate.places import Means
from lcm_models.evaluate.scores import Continued, Material, Scored, true_continuations
from lcm_models.evaluate.text import ovl_3, rep_4, rouge_l, words


@dataclass(frozen=True)
class Judge:
    """The networks that sentences are judged with."""

    decoder: Decoder | None = None
    encoder: Encoder | None = None
    language_model: LanguageModel | None = None
    coherence: CoherenceModel | None = None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to say or judge sentences with."""
        return self.decoder is None and self.language_model is None and self.coherence is None

    def add(self, scored: Scored, material: Material, is_truth: bool, max_new: int) -> None:
        """Add the figures of sentences to ``scored``. The truth says the sentences of the corpus.

        ``l2_roundtrip`` is from the decoded and encoded guess to the true concept; ``mi`` see ``information``; the rest
        are means over continuations, see ``text`` and ``coherence``; ``words`` is their number over the reference's.
        """
        if material.places:
            self._sentences(scored, material, is_truth)
        if scored.continued and material.documents[0].texts is not None:
            self._continuations(scored, material, is_truth, max_new)

    def _sentences(self, scored: Scored, material: Material, is_truth: bool) -> None:
        lang = material.partition.lang
        decoded = None if self.decoder is None else self.decoder.decode(scored.guess_KD, lang).texts
        if decoded is not None and self.encoder is not None:
            again_KD = encode_texts(self.encoder, decoded, lang)
            distance_K = np.linalg.norm(again_KD - material.truth(), axis=1)
            known_K = np.isfinite(distance_K) & np.isfinite(scored.guess_KD).all(axis=1)
            if known_K.any():
                scored.figures["l2_roundtrip"] = float(distance_K[known_K].mean())
            scored.counts["decoded"] = int(known_K.sum())
        own = [material.documents[material.windows[number].document].texts for number, _ in material.places]
        if self.language_model is None or any(texts is None for texts in own):
            return
        index = [material.windows[number].start + place for number, place in material.places]
        known = [(texts or [], place) for texts, place in zip(own, index, strict=True)]
        sentences = [texts[place] for texts, place in known] if is_truth else decoded
        if sentences is None:
            return
        gains = self.language_model.gains(sentences, [texts[:place] for texts, place in known])
        found = mutual_information(gains)
        if found is not None:
            scored.figures["mi"] = found
            scored.counts["mi_tokens"] = sum(gain.tokens for gain in gains)

    def _continuations(self, scored: Scored, material: Material, is_truth: bool, max_new: int) -> None:
        said = None if is_truth else self._say(scored.continued, material.partition.lang)
        if said is None and not is_truth:
            return
        means = Means()
        for number, (each, true) in enumerate(
            zip(scored.continued, true_continuations(material, max_new), strict=True)
        ):
            texts = material.documents[each.document].texts
            assert texts is not None
            reference = texts[each.num_prefix : each.num_prefix + len(true.x_ND)]
            output = reference if said is None else said[number]
            values = self._compare(texts[: each.num_prefix], output, reference)
            means.add({name: torch.tensor([value]) for name, value in values.items()})
        scored.figures |= means.means()

    def _compare(self, source: list[str], output: list[str], reference: list[str]) -> dict[str, float]:
        output_words, reference_words = words(" ".join(output)), words(" ".join(reference))
        values = {
            "rouge_l": rouge_l(output_words, reference_words),
            "ovl_3": ovl_3(output_words, words(" ".join(source))),
            "rep_4": rep_4(output_words),
            "words": len(output_words) / len(reference_words) if reference_words else None,
            "coherence": self.coherence.score(output) if self.coherence is not None and output else None,
        }
        return {name: value for name, value in values.items() if value is not None}

    def _say(self, continued: list[Continued], lang: str) -> list[list[str]] | None:
        if self.decoder is None:
            return None
        texts = self.decoder.decode(np.concatenate([each.x_ND for each in continued]), lang).texts
        ends = np.cumsum([len(each.x_ND) for each in continued])
        return [texts[end - len(each.x_ND) : end] for each, end in zip(continued, ends.tolist(), strict=True)]


def encode_texts(encoder: Encoder, texts: list[str], lang: str) -> Array:
    """Vectors float32 [N, D]; NaN for empty texts."""
    found_ND = np.full((len(texts), encoder.dim), np.nan, np.float32)
    full = [row for row, text in enumerate(texts) if text.strip()]
    if full:
        found_ND[full] = encoder.embed(encoder.prepare([texts[row] for row in full], lang))
    return found_ND
