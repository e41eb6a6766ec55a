"""The official nested layout in the types it comes in, and its prompts; config errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conceptfiles import COLUMN, DIM, column, concepts, config, documents_of, one_pass, write_nested

from lcm_data.errors import InputError, LcmDataError, UsageError
from lcm_models.config import make_config
from lcm_models.data import ConceptLoader, DataConfig

PROMPTS = "prompt_sentences_sonar_emb"
LENGTHS = [3, 1, 7, 2]


def write(file: Path, **columns: pa.Array) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return file.parent


def documents() -> list[np.ndarray]:
    return [concepts(number, length) for number, length in enumerate(LENGTHS)]


@pytest.mark.parametrize("outer", [pa.list_, pa.large_list])
@pytest.mark.parametrize("inner", [lambda item: pa.list_(item, DIM), pa.list_, pa.large_list])
@pytest.mark.parametrize("item", [pa.float16(), pa.float32(), pa.float64()])
def test_all_types_of_lists(tmp_path: Path, outer: Any, inner: Any, item: pa.DataType) -> None:
    values = [None, *[[list(map(float, x)) for x in document] for document in documents()], []]
    if pa.types.is_float16(item):
        values = [v and [[np.float16(y) for y in x] for x in v] for v in values]
    array = pa.array(values, type=outer(inner(item)))
    text = pa.array([["a"]] * len(values))
    folder = write(tmp_path / "part.parquet", **{COLUMN: array, "text_sentences": text})
    (batches,) = one_pass(config(folder, pack=False, batch_rows=9))
    found = sorted((x for batch in batches for x in documents_of(batch)), key=lambda x: x[0, 0])
    assert [x.tolist() for x in found] == [x.tolist() for x in documents()]
    assert found[0].dtype == (np.float16 if pa.types.is_float16(item) else np.float32)
    assert ConceptLoader(config(folder)).num_concepts >= sum(LENGTHS)  # a footer counts empty lists, too


def test_prompts_are_no_targets(tmp_path: Path) -> None:
    prompts = [concepts(number, 2 * number) for number in range(4)]
    answers = [concepts(number, length, begin=2 * number) for number, length in enumerate(LENGTHS)]
    folder = write(tmp_path / "part.parquet", **{COLUMN: column(answers), PROMPTS: column(prompts)})
    how = DataConfig.model_validate(
        {
            "sources": [{"path": str(folder), "kind": "nested", "prompt_column": PROMPTS}],
            "max_len": 16,
            "batch_rows": 3,
            "endless": False,
            "end_of_text": None,
            "min_len": 1,
        }
    )
    found = []
    for batch in ConceptLoader(how):
        assert batch.target_BS is not None
        assert not (batch.target_BS & (batch.doc_BS < 0)).any()
        for x_SD, target_S, doc_S in zip(
            batch.x_BSD.numpy(), batch.target_BS.numpy(), batch.doc_BS.numpy(), strict=True
        ):
            for number in range(doc_S.max() + 1):
                x, target = x_SD[doc_S == number], target_S[doc_S == number]
                document = int(x[0, 0])
                assert x[:, 1].tolist() == list(range(2 * document + LENGTHS[document]))
                assert target.tolist() == [False] * (2 * document) + [True] * LENGTHS[document]
                found.append(document)
    assert sorted(found) == [0, 1, 2, 3]


def test_splits_are_folders(tmp_path: Path) -> None:
    write_nested(tmp_path / "split=train", [[[3, 4]]])
    write_nested(tmp_path / "split=validation", [[[5]]])
    loader = ConceptLoader(config(tmp_path))
    assert (loader.num_concepts, loader.space, loader.dim) == (7, "", DIM)
    assert ConceptLoader(config(tmp_path).held_out()).num_concepts == 5
    with pytest.raises(InputError, match="no files of the split test; it has train, validation"):
        ConceptLoader(config(tmp_path).held_out("test"))


def refused(kind: type[LcmDataError], pattern: str, folder: Path, **source: Any) -> None:
    sources = [{"path": str(folder), "kind": "nested", **source}]
    with pytest.raises(kind, match=pattern) as caught:
        list(ConceptLoader(make_config(DataConfig, None, {"sources": sources, "batch_rows": 1, "end_of_text": None})))
    assert "\n" not in str(caught.value)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    refused(InputError, "holds no Parquet files", tmp_path)
    folder = write(tmp_path / "a" / "x.parquet", text=pa.array(["a"]), numbers=pa.array([[1.0]]))
    refused(UsageError, "has no column 'text_sentences_sonar_emb'; it has text, numbers. Set 'column'", folder)
    refused(UsageError, "the column 'numbers' of .* is list<.*>, not lists of vectors", folder, column="numbers")
    ragged = pa.array([[[1.0, 2.0], [1.0]]], type=pa.list_(pa.list_(pa.float32())))
    folder = write(tmp_path / "b" / "x.parquet", **{COLUMN: ragged})
    refused(InputError, "b/x.parquet: a vector is null or not of 2 numbers", folder)
    null = pa.array([[[1.0, 2.0], None]], type=pa.list_(pa.list_(pa.float32())))
    folder = write(tmp_path / "c" / "x.parquet", **{COLUMN: null})
    refused(InputError, "c/x.parquet: a vector is null or not of", folder)


def test_it_has_no_normaliser_of_its_own(nested: dict[str, Path]) -> None:
    loader = ConceptLoader(config(next(iter(nested.values()))))
    with pytest.raises(UsageError, match=r"Fit one \(lcm_data\.normalize\), and set model\.normalizer"):
        loader.normalizer()


def test_codes_and_unknown_kinds_are_refused(nested: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="is nested and has no codes, which this model learns"):
        ConceptLoader(config(nested["little"], with_codes=True))
    source = {"path": str(nested["little"]), "kind": "nest"}
    with pytest.raises(UsageError, match=r"unknown kind of source 'nest'. Did you mean 'nested'"):
        ConceptLoader(DataConfig.model_validate({"sources": [source], "batch_rows": 1}))


def test_a_kind_of_ones_own(nested: dict[str, Path]) -> None:
    how = config(nested["little"])
    source = how.sources[0].model_copy(update={"kind": "lcm_models.data.nested:NestedSource"})
    assert ConceptLoader(how.model_copy(update={"sources": (source,)})).dim == DIM


def test_sources_of_two_widths(nested: dict[str, Path], tmp_path: Path) -> None:
    wide = pa.array([[[1.0] * 9]], type=pa.list_(pa.list_(pa.float32())))
    folder = write(tmp_path / "x.parquet", **{COLUMN: wide})
    with pytest.raises(UsageError, match=r"has concepts of 4 dimensions, .* of 9. Encode one of them again"):
        ConceptLoader(config(nested["little"], folder))


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        ({}, "set one of batch_concepts and batch_rows"),
        ({"batch_rows": 2, "batch_concepts": 500}, "set one of batch_concepts and batch_rows"),
        ({"batch_concepts": 50}, "batch_concepts 50 is less than one row: max_len is 128"),
        ({"batch_rows": 2, "min_len": 70}, "min_len 70 must be at most half of max_len 128"),
        ({"batch_rows": 2, "sources": [{"path": "a"}, {"path": "b", "weight": 1}]}, "a weight, or none"),
        ({"batch_rows": 2, "sources": [{"path": "a", "kind": "nested", "answers": "b"}]}, "are for kind 'corpus'"),
        ({"batch_rows": 2, "sources": [{"path": "a", "prompt_column": "b"}]}, "is for kind 'nested'"),
        ({"batch_rows": 2, "sources": [{"path": "a", "kind": "pairs"}]}, "kind 'pairs' needs answers"),
        ({"batch_rows": 2, "sources": []}, "sources: "),
        ({"batch_rows": 2, "shufle": True}, "unknown setting 'shufle'. Did you mean 'shuffle'"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], pattern: str) -> None:
    with pytest.raises(UsageError, match=pattern):
        make_config(DataConfig, None, {"sources": [{"path": "a"}], **settings})
