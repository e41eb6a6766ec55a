"""Our token ids and texts against those of fairseq2 on 6,000 strings (``tests/parity/make_golden_tokens.py``).

Two vocabularies, one so small that most scripts are unknown to it. fairseq2 brings a SentencePiece of its own, which
picks the other of two segmentations when their scores are exactly equal; nothing else may differ.
"""

from __future__ import annotations

import importlib.util
import lzma
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from manyscripts import ODDITIES, SENTENCES, score, strings

from lcm_data.errors import UsageError
from lcm_data.languages import FLORES_200
from lcm_data.sonar.tokenizer import SonarTokenizer

Golden = dict[str, np.ndarray]

NUM_TIES = {"small": 0, "scripts": 2}


@pytest.fixture(scope="module")
def making(golden: Path) -> ModuleType:
    """The script that made the golden file: how texts are summed up and which sequences were decoded."""
    spec = importlib.util.spec_from_file_location("make_golden_tokens", golden.parent / "make_golden_tokens.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return strings()


@pytest.fixture(scope="module", params=["small", "scripts"])
def vocabulary(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def tokenizer(vocabulary: str, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> SonarTokenizer:
    path = golden / "sentencepiece.model"
    if vocabulary == "scripts":
        path = tmp_path_factory.mktemp("scripts") / "scripts.model"
        path.write_bytes(lzma.decompress((golden / "scripts.model.xz").read_bytes()))
    return SonarTokenizer(path, max_tokens=100_000)


@pytest.fixture(scope="module")
def wanted(vocabulary: str, golden: Path) -> Golden:
    with np.load(golden / "tokens.npz") as arrays:
        prefix = f"{vocabulary}."
        return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}


def golden_rows(wanted: Golden) -> list[list[int]]:
    ends = np.cumsum(wanted["lengths"], dtype=np.int64)
    return [row.tolist() for row in np.split(wanted["ids"], ends[:-1])]


def test_ids_equal_those_of_fairseq2(
    vocabulary: str, tokenizer: SonarTokenizer, texts: list[str], wanted: Golden
) -> None:
    rows = [row.tolist() for row in tokenizer.encode(texts, "fra_Latn").rows()]
    theirs = golden_rows(wanted)
    assert len(rows) == len(theirs) == 6000
    other = [number for number in range(6000) if rows[number] != theirs[number]]
    for number in other:
        assert score(tokenizer, rows[number]) == score(tokenizer, theirs[number]), repr(texts[number])
        assert tokenizer.decode(rows[number]) == tokenizer.decode(theirs[number])
    assert len(other) <= NUM_TIES[vocabulary], [texts[number] for number in other]


def test_texts_equal_those_of_fairseq2(tokenizer: SonarTokenizer, making: ModuleType, wanted: Golden) -> None:
    said = making.checksums([tokenizer.decode(row) for row in golden_rows(wanted)])
    assert np.flatnonzero(said != wanted["decoded"]).tolist() == []


def test_any_sequence_of_ids_gives_the_text_of_fairseq2(
    tokenizer: SonarTokenizer, making: ModuleType, wanted: Golden
) -> None:
    assert tokenizer.vocab_size == int(wanted["vocab_size"])
    sequences = making.id_sequences(tokenizer.vocab_size)
    assert {i for ids in sequences for i in ids} >= {0, 1, 2, 3, tokenizer.vocab_size - 1}
    said = making.checksums([tokenizer.decode(ids) for ids in sequences])
    assert np.flatnonzero(said != wanted["decoded_sequences"]).tolist() == []


def test_all_languages_have_the_ids_of_fairseq2(tokenizer: SonarTokenizer, wanted: Golden) -> None:
    ours = [tokenizer.encode([""], lang).ids.tolist() for lang in FLORES_200]
    assert ours == wanted["languages"].tolist()


@pytest.mark.parametrize("beyond", [-1, 0, 7])
def test_ids_that_no_model_has_are_refused_as_by_fairseq2(tokenizer: SonarTokenizer, beyond: int) -> None:
    wrong = beyond if beyond < 0 else tokenizer.vocab_size + beyond
    with pytest.raises(UsageError, match=rf"token id {wrong} .* 0 to {tokenizer.vocab_size - 1}"):
        tokenizer.decode([5, wrong, 6])


def test_the_strings_cover_the_traps(vocabulary: str, tokenizer: SonarTokenizer, texts: list[str]) -> None:
    assert len(set(texts)) == len(texts) == 6000
    assert len({lang.partition("_")[2] for lang in SENTENCES}) >= 30, "scripts"
    assert set(ODDITIES) <= set(texts)
    assert max(map(ord, "".join(texts))) > 0x100000
    tokens = tokenizer.encode(texts, "fra_Latn")
    assert (tokens.lengths == 2).sum() >= 20, "texts of which nothing is left"
    assert (tokens.lengths > 514).sum() >= 5
    assert (tokens.num_unknown > 0).sum() > 1000
    assert (tokens.num_unknown == 0).sum() > {"small": 50, "scripts": 2000}[vocabulary]
    assert len(set(tokens.ids.tolist())) > 0.35 * tokenizer.num_pieces
