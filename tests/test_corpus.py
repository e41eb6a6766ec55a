"""Reading a corpus: rows and documents in order, over every border there is."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from drivers import make
from toystage import Toy

from lcm_data.corpus import Corpus, CorpusDocument, StageData, open_corpus
from lcm_data.errors import InputError, RejectRateError, UsageError, VerificationError
from lcm_data.store.commits import read_commits
from lcm_data.store.files import open_files
from lcm_data.store.shard import ROW_GROUP_MAX, open_shard

ROWS = 5000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of row groups that end in the middle of nothing, codes of one document longer than a row group."""
    folder = tmp_path_factory.mktemp("corpus")
    make(folder / "embeddings", Toy(units=5, rows=ROWS, kind="embeddings", doc_rows=7))
    make(folder / "codes", Toy(units=2, rows=3 * ROW_GROUP_MAX, kind="codes", doc_rows=2 * ROW_GROUP_MAX + 100))
    return folder


@pytest.fixture
def corpus(root: Path) -> Corpus:
    return open_corpus(root)


def test_a_corpus_knows_its_stages(corpus: Corpus) -> None:
    assert corpus.stages == ["embeddings", "codes"]
    assert len(corpus.embeddings) == 5 * ROWS
    assert corpus.embeddings.langs == ["deu_Latn", "eng_Latn", "fra_Latn"]
    assert corpus.embeddings.splits == ["train", "validation"]
    assert (corpus.embeddings.dim, corpus.codes.dim) == (8, 8)
    assert corpus.embeddings.schema.names[-1] == "emb"
    assert set(corpus.embeddings.metadata) >= {"stage", "plan_hash"}
    assert not set(corpus.embeddings.metadata) & {"unit", "split", "lang"}
    with pytest.raises(InputError, match=r"segments holds no finished stage.*Run 'lcm-data segment' first"):
        _ = corpus.segments


def test_documents_come_whole_and_in_order(corpus: Corpus) -> None:
    documents = list(corpus.embeddings.documents())
    assert len(documents) == 5 * -(-ROWS // 7)
    assert len({document.doc_id for document in documents}) == len(documents)
    assert sum(map(len, documents)) == 5 * ROWS
    for document in documents:
        assert document["sent_idx"] == list(range(len(document)))
        assert set(document["doc_id"]) == {document.doc_id}
    rebuilt = np.concatenate([document.vectors() for document in documents])
    np.testing.assert_array_equal(rebuilt, np.concatenate([batch.vectors() for batch in corpus.embeddings.batches()]))


def test_a_document_longer_than_a_row_group_comes_whole(corpus: Corpus) -> None:
    with open_shard(corpus.codes.files, corpus.codes.manifest.shards[0].path) as shard:
        assert shard.num_row_groups == 3
    lengths = [len(document) for document in corpus.codes.documents()]
    assert lengths == [2 * ROW_GROUP_MAX + 100, ROW_GROUP_MAX - 100] * 2
    first = next(corpus.codes.documents())
    assert first["sent_idx"] == list(range(2 * ROW_GROUP_MAX + 100))
    assert first.vectors("codes").shape == (2 * ROW_GROUP_MAX + 100, 8)
    assert first.vectors("codes").dtype == np.uint16


@pytest.mark.parametrize("size", [None, 1, 700, 1029, 10**6])
def test_batches_cover_all_rows_in_order(corpus: Corpus, size: int | None) -> None:
    stage = corpus.codes if size == 1 else corpus.embeddings
    sids, lengths = [], []
    for batch in itertools.islice(stage.batches(size, columns=["sid"]), 3000):
        assert batch.table.column_names == ["sid"]
        sids += batch["sid"]
        lengths.append(len(batch))
    assert max(lengths) <= (size or ROW_GROUP_MAX)
    expected = stage.table(columns=["sid"])["sid"].to_pylist()
    assert sids == expected[: len(sids)]
    assert len(sids) == (3000 if size == 1 else len(expected))


def test_filters(corpus: Corpus) -> None:
    stage = corpus.embeddings
    assert {batch.lang for batch in stage.batches(langs=["eng_Latn", "fra_Latn"])} == {"eng_Latn", "fra_Latn"}
    assert {(batch.split, batch.lang) for batch in stage.batches(splits=["validation"])} == {("validation", "deu_Latn")}
    table = stage.table(langs=["deu_Latn"], splits=["validation"], columns=["sent_idx"])
    assert table.column_names == ["sent_idx", "lang", "split"]
    assert table.num_rows == ROWS
    assert set(table["lang"].to_pylist()) == {"deu_Latn"}
    assert stage.table().num_rows == 5 * ROWS
    document = next(stage.documents(columns=["text"]))
    assert document.table.column_names == ["doc_id", "text"]
    assert isinstance(document, CorpusDocument)
    assert (document.lang, document.split) == ("deu_Latn", "train")


def test_one_name_may_be_a_plain_str(corpus: Corpus) -> None:
    stage = corpus.embeddings
    assert stage.shards("eng_Latn", "train") == stage.shards(["eng_Latn"], ["train"]) != []
    assert {batch.lang for batch in stage.batches(langs="eng_Latn", splits="train")} == {"eng_Latn"}
    assert {document.lang for document in stage.documents(langs="fra_Latn", columns="text")} == {"fra_Latn"}
    table = stage.table(langs="deu_Latn", splits="validation", columns="sid")
    assert (table.num_rows, table.column_names) == (ROWS, ["sid", "lang", "split"])
    with pytest.raises(UsageError, match="no language 'eng' in"):
        stage.table(langs="eng")


def test_a_column_that_was_not_read(corpus: Corpus) -> None:
    batch = next(corpus.embeddings.batches(10, columns=["sid", "text"]))
    for read in (batch.vectors, batch.tensor, lambda: batch["emb"]):
        with pytest.raises(UsageError, match=r"no column 'emb' was read\. There are: sid, text\."):
            read()
    with pytest.raises(UsageError, match="'text' holds no vectors but string"):
        batch.vectors("text")


def test_a_filter_that_leaves_nothing_gives_an_empty_table(corpus: Corpus) -> None:
    table = corpus.embeddings.table(langs=["eng_Latn"], splits=["validation"], columns=["sid", "emb"])
    assert table.num_rows == 0
    assert table.column_names == ["sid", "emb", "lang", "split"]
    assert list(corpus.embeddings.documents(langs=["eng_Latn"], splits=["validation"])) == []


def test_filters_say_what_there_is(corpus: Corpus) -> None:
    with pytest.raises(UsageError, match=r"no language 'spa_Latn' in .*It has: deu_Latn, eng_Latn, fra_Latn\."):
        next(corpus.embeddings.batches(langs=["spa_Latn"]))
    with pytest.raises(UsageError, match=r"no split 'test' in .*It has: train, validation\."):
        next(corpus.embeddings.documents(splits=["test"]))
    with pytest.raises(UsageError, match=r"no column 'vector' in .*It has: sid, doc_id, .*emb\."):
        next(corpus.embeddings.batches(columns=["vector"]))
    with pytest.raises(UsageError, match="no column 'vector'"):
        corpus.embeddings.table(columns=["vector"])
    with pytest.raises(UsageError, match="size must be 1 or more rows, got 0"):
        next(corpus.embeddings.batches(0))


def test_vectors_and_tensors(corpus: Corpus) -> None:
    torch = pytest.importorskip("torch")
    batch = next(corpus.embeddings.batches(100))
    vectors, tensor = batch.vectors(), batch.tensor()
    assert vectors.shape == tuple(tensor.shape) == (100, 8)
    assert vectors.dtype == np.float16
    assert tensor.dtype == torch.float16
    np.testing.assert_array_equal(tensor.numpy(), vectors)
    tensor[:] = 0  # its own memory: the file is not written to
    assert np.abs(batch.vectors()).sum() > 0
    with pytest.raises(ValueError, match="read-only"):
        vectors[0, 0] = 1


# --- unfinished, empty and broken corpora ---


def test_an_unfinished_stage_is_read_only_on_request(tmp_path: Path) -> None:
    make(tmp_path / "codes", Toy(units=3, rows=10))
    files = open_files(tmp_path / "codes")
    files.remove("_lcm/manifest.json")
    files.remove("_lcm/commits/000002.json")  # its shard is there but does not count
    with pytest.raises(InputError, match=r"codes is not finished .*allow_partial=True"):
        _ = open_corpus(tmp_path).codes
    partial = open_corpus(tmp_path, allow_partial=True).codes
    assert len(partial) == 20
    assert partial.langs == ["deu_Latn", "eng_Latn"]
    assert sum(map(len, partial.documents())) == 20


def test_a_folder_that_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"is not a corpus: it has none of segments, embeddings, codes\. Make one with"
    ):
        open_corpus(tmp_path)


def test_a_stage_of_rejects_only(tmp_path: Path) -> None:
    with pytest.raises(RejectRateError, match=r"all 3 rows were rejected \(bad_row 3\)"):
        make(tmp_path / "codes", Toy(units=1, rows=3, special={f"0:{row}": "raise" for row in range(3)}))
    stage = open_corpus(tmp_path, allow_partial=True).codes
    assert len(stage) == 0
    assert list(stage.documents()) == []
    assert [len(batch) for batch in stage.batches()] == []
    assert stage.table().num_rows == 0
    assert stage.dim == 8


def test_a_lost_shard_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    make(tmp_path / "codes", Toy(units=2, rows=10))
    files = open_files(tmp_path / "codes")
    files.remove(read_commits(files)[1].shards[0].path)
    with pytest.raises(VerificationError, match=r"the shard .* is missing: run its stage again"):
        list(StageData(files).documents())


def test_tables_of_several_shards_share_their_dictionaries(corpus: Corpus) -> None:
    table = corpus.embeddings.table(columns=["sid"])
    assert table.schema.field("lang").type == pa.dictionary(pa.int32(), pa.string())
    assert len({tuple(chunk.dictionary.to_pylist()) for chunk in table["lang"].chunks}) == 1
