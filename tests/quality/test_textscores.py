"""Text scores: those of sacrebleu, with the tokenizer that a language needs."""

from __future__ import annotations

import numpy as np
import pytest

sacrebleu = pytest.importorskip("sacrebleu", reason="needs the extra 'quality'")

from lcm_data.languages import FLORES_200  # noqa: E402
from lcm_data.quality.textscores import (  # noqa: E402
    bleu_tokenizer,
    corpus_scores,
    sentence_bleu,
    sentence_chrf,
    signatures,
)

TEXTS = ["the cat sat on the mat", "a dog barked", "nothing alike"]
REFERENCES = ["the cat sat on the mat", "the dog barked at me", "something else entirely"]


def test_scores_are_sacrebleus() -> None:
    found = corpus_scores(TEXTS, REFERENCES, "eng_Latn")
    assert found.num_sentences == 3
    assert found.chrf == sacrebleu.corpus_chrf(TEXTS, [REFERENCES]).score
    assert found.bleu == sacrebleu.corpus_bleu(TEXTS, [REFERENCES]).score
    assert found.exact == pytest.approx(1 / 3)
    assert [*sentence_chrf(TEXTS, REFERENCES)] == [
        sacrebleu.sentence_chrf(text, [reference]).score for text, reference in zip(TEXTS, REFERENCES, strict=True)
    ]


def test_equal_texts_have_100() -> None:
    found = corpus_scores(REFERENCES, REFERENCES, "fra_Latn")
    assert (found.chrf, found.bleu, found.exact) == (pytest.approx(100), pytest.approx(100), 1)
    np.testing.assert_allclose(sentence_bleu(["two words"], ["two words"], "eng_Latn"), 100)  # shorter than four words


def test_a_chrf_by_hand() -> None:
    """ "abc" against "abd": unigrams 2 of 3, bigrams 1 of 2, trigrams 0 of 1; precision and recall are equal."""
    expected = 100 * (2 / 3 + 1 / 2 + 0) / 3
    assert sentence_chrf(["abc"], ["abd"])[0] == pytest.approx(expected)


def test_scripts_without_spaces_are_cut_into_characters() -> None:
    tokenizers = {lang: bleu_tokenizer(lang) for lang in FLORES_200}
    assert {lang for lang, name in tokenizers.items() if name == "zh"} == {"zho_Hans", "zho_Hant", "yue_Hant"}
    assert {lang for lang, name in tokenizers.items() if name == "char"} == {
        *("jpn_Jpan", "tha_Thai", "lao_Laoo", "khm_Khmr", "mya_Mymr", "shn_Mymr", "bod_Tibt", "dzo_Tibt")
    }
    assert tokenizers["kor_Hang"] == tokenizers["eng_Latn"] == "13a"
    near = (["私は猫が好きです"], ["私は犬が好きです"])
    assert corpus_scores(*near, "jpn_Jpan").bleu > 30
    assert corpus_scores(*near, "eng_Latn").bleu == 0  # one token


def test_an_empty_text_scores_nothing() -> None:
    assert corpus_scores([""], ["something"], "eng_Latn").chrf == 0
    assert sentence_bleu([""], ["something"], "eng_Latn")[0] == 0


def test_signatures_name_the_tokenizers() -> None:
    found = signatures(["eng_Latn", "fra_Latn", "jpn_Jpan"])
    assert set(found) == {"chrF2", "BLEU 13a", "sentence BLEU 13a", "BLEU char", "sentence BLEU char"}
    assert "tok:char" in found["BLEU char"]
    assert "eff:yes" in found["sentence BLEU 13a"]
    assert f"version:{sacrebleu.__version__}" in found["chrF2"]
