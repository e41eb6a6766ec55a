from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from lcm_data.errors import CheckpointError, UnknownNameError
from lcm_data.languages import FLORES_200
from lcm_data.sonar.tokenizer import SonarTokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> SonarTokenizer:
    return SonarTokenizer(tiny / "sentencepiece.model")


def test_languages_are_in_the_order_of_the_nllb_vocabulary() -> None:
    assert len(FLORES_200) == 202
    first_id = 256_001
    pins = {"ace_Arab": 256_001, "eng_Latn": 256_047, "fra_Latn": 256_057, "zul_Latn": 256_202}
    assert {lang: first_id + FLORES_200.index(lang) for lang in pins} == pins
    digest = hashlib.sha256("\n".join(FLORES_200).encode()).hexdigest()
    assert digest == "5ed4c3979692647a1ac1e632c117c7dde2a04062be624d8e183ad622d5791e4a"


def test_languages_equal_those_of_transformers() -> None:
    nllb = pytest.importorskip("transformers.models.nllb.tokenization_nllb")
    assert tuple(nllb.FAIRSEQ_LANGUAGE_CODES) == FLORES_200


def test_frame_and_ids(tokenizer: SonarTokenizer) -> None:
    tokens = tokenizer.encode(["Hello, my name is Paul.", "", " \n"], "fra_Latn")
    lang = tokenizer.num_pieces + 1 + FLORES_200.index("fra_Latn")
    first, empty, blank = tokens.rows()
    assert first[0] == lang
    assert first[-1] == 3
    assert len(first) > 4
    assert empty.tolist() == blank.tolist() == [lang, 3]
    assert tokens.ids.dtype == tokens.lengths.dtype == np.int32
    assert tokenizer.decode(first) == "Hello, my name is Paul."
    assert tokenizer.vocab_size == 1 + tokenizer.num_pieces + 202 + 3


def test_a_long_sentence_loses_its_end_and_says_so(tokenizer: SonarTokenizer) -> None:
    exact = SonarTokenizer(tokenizer.path, max_tokens=10_000)
    texts = ["Hello " * 600, "Hello"]
    cut, full = tokenizer.encode(texts, "eng_Latn"), exact.encode(texts, "eng_Latn")
    assert cut.lengths.tolist() == [514, full.lengths[1]]
    assert cut.truncated.tolist() == [True, False]
    assert cut.full_lengths.tolist() == full.lengths.tolist()
    assert cut.rows()[0].tolist() == full.rows()[0][:514].tolist()  # without </s>, as sonar-space cuts


def test_exactly_the_maximum_is_not_truncated(tiny: Path) -> None:
    length = int(SonarTokenizer(tiny / "sentencepiece.model").encode(["Hello Paul"], "eng_Latn").lengths[0])
    tokens = SonarTokenizer(tiny / "sentencepiece.model", max_tokens=length).encode(["Hello Paul"], "eng_Latn")
    assert tokens.truncated.tolist() == [False]
    assert tokens.rows()[0][-1] == 3


def test_written_control_tokens_are_text(tokenizer: SonarTokenizer) -> None:
    row = tokenizer.encode(["</s><pad>__eng_Latn__"], "eng_Latn").rows()[0]
    assert (row[1:-1] > 3).all()
    assert (row[1:-1] <= tokenizer.num_pieces).all()
    assert tokenizer.decode(row) == "</s><pad>__eng_Latn__"


def test_threads_do_not_change_ids(tokenizer: SonarTokenizer) -> None:
    texts = [f"Hello {i}, Привет {i}!" for i in range(500)]
    many = SonarTokenizer(tokenizer.path, threads=4)
    assert np.array_equal(tokenizer.encode(texts, "rus_Cyrl").ids, many.encode(texts, "rus_Cyrl").ids)


def test_no_texts(tokenizer: SonarTokenizer) -> None:
    tokens = tokenizer.encode([], "eng_Latn")
    assert len(tokens.ids) == len(tokens.lengths) == len(tokens.truncated) == 0


def test_unknown_language_names_the_nearest(tokenizer: SonarTokenizer) -> None:
    with pytest.raises(UnknownNameError, match=r"script of .*arb_Arab"):
        tokenizer.encode(["x"], "arb_Latn")
    with pytest.raises(UnknownNameError, match="language of this model 'en'"):
        tokenizer.encode(["x"], "en")


def test_another_list_of_languages(tiny: Path) -> None:
    tokenizer = SonarTokenizer(tiny / "sentencepiece.model", languages=["aa", "bb"])
    assert tokenizer.lang_id("bb") == tokenizer.num_pieces + 2
    assert tokenizer.decode(tokenizer.encode(["Hello"], "bb").ids) == "Hello"
    with pytest.raises(UnknownNameError, match="Known: aa, bb"):
        tokenizer.encode(["x"], "eng_Latn")


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "x.model").write_text("<html>")
    with pytest.raises(CheckpointError, match="is not a SentencePiece model"):
        SonarTokenizer(tmp_path / "x.model")
    with pytest.raises(CheckpointError, match="does not exist"):
        SonarTokenizer(tmp_path / "y.model")
