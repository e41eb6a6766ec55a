"""Every document comes exactly once, however many readers share a corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lcm_data.corpus import Corpus, open_corpus
from lcm_data.errors import InputError, UsageError
from lcm_data.normalize import Normalizer
from lcm_models import ConceptDocuments, Reader
from pipelines import demo, encode, segment


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    source = Path(demo.__file__).parents[1] / "lcm_data/assets/demo"
    inputs = [str(source / f"{lang}.jsonl") for lang in ("eng_Latn", "deu_Latn", "jpn_Jpan")]
    segment.run(segment.SegmentConfig(inputs=inputs, corpus=str(folder), validation=0, test=0))
    demo._write_model(str(folder), str(folder / "model"))
    encode.run(encode.EncodeConfig(corpus=str(folder), model=str(folder / "model")))
    return open_corpus(folder)


def key(x: torch.Tensor) -> bytes:
    return bytes(x.numpy().tobytes())


def everything(corpus: Corpus) -> list[bytes]:
    return sorted(document.vectors().astype(np.float32).tobytes() for document in corpus.embeddings.documents())


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
def test_readers_share_the_documents(corpus: Corpus, count: int) -> None:
    found = [key(x) for rank in range(count) for x in ConceptDocuments(corpus, reader=Reader(rank, count), seed=3)]
    assert sorted(found) == everything(corpus)


def test_loader_workers_share_the_documents_of_a_rank(corpus: Corpus) -> None:
    found = [
        key(x)
        for rank in range(2)
        for x in DataLoader(ConceptDocuments(corpus, reader=Reader(rank, 2)), batch_size=None, num_workers=2)
    ]
    assert sorted(found) == everything(corpus)


def test_epochs_permute_and_repeat(corpus: Corpus) -> None:
    documents = ConceptDocuments(corpus, seed=1)
    passes = []
    for epoch in (0, 1, 2, 3, 0):
        documents.set_epoch(epoch)
        passes.append([key(x) for x in documents])
    assert passes[0] == passes[4]
    assert len({tuple(each) for each in passes}) > 1


def test_concepts_are_normalised(corpus: Corpus) -> None:
    raw = torch.cat(list(ConceptDocuments(corpus)))
    normalizer = Normalizer.fit(raw.numpy())
    torch.testing.assert_close(
        torch.cat(list(ConceptDocuments(corpus, normalizer=normalizer))), normalizer.normalize(raw)
    )


def test_errors_name_what_is_there(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no language 'xyz_Latn'"):
        ConceptDocuments(corpus, langs=["xyz_Latn"])
    with pytest.raises(UsageError, match="no split 'test'"):
        ConceptDocuments(corpus, splits=["test"])
    with pytest.raises(UsageError, match="rank 2 of 2"):
        Reader(2, 2)
    with pytest.raises(InputError, match="holds no finished stage"):
        ConceptDocuments(Corpus(tmp_path))
