"""Codebooks through files of FAISS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcm_data.errors import CheckpointError, UsageError
from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_data.quantize.faiss_file import export_faiss, import_faiss

faiss = pytest.importorskip("faiss")
Array = np.ndarray[Any, Any]


def test_there_and_back(fitted: Codebook, tmp_path: Path) -> None:
    export_faiss(fitted, tmp_path / "book.faiss")
    back = import_faiss(tmp_path / "book.faiss")
    assert back.fingerprint == fitted.fingerprint
    np.testing.assert_array_equal(back.tables_MKD, fitted.tables_MKD)
    assert back.quality == fitted.quality


def test_faiss_itself_encodes_alike(fitted: Codebook, mixture: Callable[..., Array], tmp_path: Path) -> None:
    export_faiss(fitted, tmp_path / "book.faiss")
    index = faiss.read_index(str(tmp_path / "book.faiss"))
    assert index.ntotal == 0
    assert index.rq.train_type & index.rq.Skip_codebook_tables
    assert index.rq.codebook_cross_products.size() == 0  # 541 GB at full size
    x = mixture(500, seed=5)
    codes, _ = fitted.encode(x)
    np.testing.assert_array_equal(faiss.unpack_bitstrings(index.rq.compute_codes(x), 6, 6), codes)
    index.add(x)
    assert index.search(x[:20], 1)[1].shape == (20, 1)


def test_a_file_of_faiss_alone(tmp_path: Path, mixture: Callable[..., Array]) -> None:
    index = faiss.IndexResidualQuantizer(32, 3, 5)
    index.rq.train_type |= index.rq.Skip_codebook_tables
    x = mixture(2000, seed=1)
    index.train(x)
    faiss.write_index(index, str(tmp_path / "own.faiss"))
    with pytest.raises(UsageError, match="--like CORPUS"):
        import_faiss(tmp_path / "own.faiss")
    codebook = import_faiss(tmp_path / "own.faiss", Provenance(encoder="mine"))
    assert codebook.provenance.encoder == "mine"
    index.rq.max_beam_size = 1
    codes, _ = codebook.encode(x[:300])
    np.testing.assert_array_equal(faiss.unpack_bitstrings(index.rq.compute_codes(x[:300]), 3, 5), codes)
    codebook.save(tmp_path / "book")
    assert Codebook.load(tmp_path / "book", verify=True).fingerprint == codebook.fingerprint


def test_a_description_of_other_tables_is_not_taken(fitted: Codebook, tmp_path: Path) -> None:
    export_faiss(fitted, tmp_path / "a.faiss")
    other = Codebook.build(fitted.tables_MKD * 2, Provenance(encoder="other"))
    export_faiss(other, tmp_path / "b.faiss")
    (tmp_path / "a.faiss.json").rename(tmp_path / "b.faiss.json")
    with pytest.raises(UsageError, match="is of other tables"):
        import_faiss(tmp_path / "b.faiss")


def test_what_is_refused(fitted: Codebook, tmp_path: Path) -> None:
    odd = Codebook.build(np.ones((2, 3, 4), np.float32), Provenance(encoder="x"))
    with pytest.raises(UsageError, match="got 3, allowed for FAISS: powers of two"):
        export_faiss(odd, tmp_path / "odd.faiss")
    with pytest.raises(CheckpointError, match="cannot read"):
        import_faiss(tmp_path / "none.faiss")
    faiss.write_index(faiss.IndexFlatL2(4), str(tmp_path / "flat.faiss"))
    with pytest.raises(CheckpointError, match="holds a IndexFlat"):
        import_faiss(tmp_path / "flat.faiss")
    bits = faiss.UInt64Vector()
    faiss.copy_array_to_vector(np.array([2, 3], dtype=np.uint64), bits)
    mixed = faiss.IndexResidualQuantizer(4, bits)
    mixed.rq.train_type |= mixed.rq.Skip_codebook_tables
    mixed.train(np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32))
    faiss.write_index(mixed, str(tmp_path / "mixed.faiss"))
    with pytest.raises(CheckpointError, match=r"levels of \[2, 3\] bits"):
        import_faiss(tmp_path / "mixed.faiss")
