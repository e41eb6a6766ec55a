"""Embedded sentences: equal texts once, invalid vectors counted, samples of a corpus that stay the same."""

from __future__ import annotations

import numpy as np
import pytest
from jobs import embedded, write_jsonl
from oddencoder import OddEncoder

from lcm_data.corpus import StageData
from lcm_data.encode import Encoder, EncoderOptions
from lcm_data.quality.sentences import corpus_sentences, embed_texts, lowest, priorities
from lcm_data.store.files import open_files
from pipelines import encode, segment


def test_equal_texts_are_encoded_once(encoder: Encoder) -> None:
    texts = ["Hello, Paul", "apples", "Hello, Paul"]
    found = embed_texts(encoder, "eng_Latn", np.array([3, 5, 9]), texts)
    assert found.texts == tuple(texts)
    assert (found.emb_ND[0] == found.emb_ND[2]).all()
    np.testing.assert_allclose(found.emb_ND, encoder.embed(encoder.prepare(texts, "eng_Latn")), atol=1e-6)
    assert found.num_tokens.tolist() == encoder.prepare(texts, "eng_Latn").num_tokens.tolist()


def test_invalid_vectors_are_left_out_and_counted() -> None:
    encoder = OddEncoder(EncoderOptions(model="one"))
    found = embed_texts(encoder, "eng_Latn", np.arange(5), ["a", "NAN", "b", "ZERO", "INF"])  # type: ignore[arg-type]
    assert (found.texts, found.ids.tolist(), found.num_invalid) == (("a", "b"), [0, 2], 3)


def test_lowest() -> None:
    ids = np.arange(1000, dtype=np.uint64)
    some = lowest(ids, 100, seed=0)
    assert len(set(some)) == 100
    assert (np.diff(some) > 0).all()
    assert set(some) <= set(lowest(ids, 200, seed=0))
    assert lowest(ids, 0, seed=0).tolist() == ids.tolist()
    assert 400 < some.mean() < 600
    assert len(np.unique(priorities(ids, 5))) == 1000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> StageData:
    folder = tmp_path_factory.mktemp("corpus")
    write_jsonl(folder / "docs.jsonl", embedded(["eng_Latn", "fra_Latn"]))
    how = {"corpus": str(folder / "corpus"), "executor": "local"}
    segment.run(segment.SegmentConfig(inputs=[str(folder / "docs.jsonl")], unit_bytes=4000, **how))  # type: ignore[arg-type]
    encode.run(encode.EncodeConfig(backend="oddencoder:OddEncoder", model="one", **how))  # type: ignore[arg-type]
    return StageData(open_files(folder / "corpus").child("embeddings"))


def test_sentences_of_a_corpus(corpus: StageData) -> None:
    every = corpus_sentences(corpus, "eng_Latn", 0, seed=0)
    rows = {row["sid"]: row for row in corpus.table(langs=["eng_Latn"]).to_pylist()}
    assert len(every) == len(rows)
    some = corpus_sentences(corpus, "eng_Latn", 9, seed=0)
    assert len(some) == 9
    assert set(some.ids) < set(every.ids)
    assert (np.diff(some.ids.astype(float)) > 0).all()
    for sentences in (every, some):
        for i, sid in enumerate(sentences.ids.view(np.int64).tolist()):
            assert sentences.texts is not None
            assert sentences.texts[i] == rows[sid]["text"]
            assert sentences.emb_ND[i].tolist() == rows[sid]["emb"]
            assert sentences.num_tokens[i] == len(sentences.texts[i].split()) + 2
    assert some.emb_ND.dtype == np.float16
    assert some.texts == corpus_sentences(corpus, "eng_Latn", 9, seed=0).texts
