from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data.errors import CheckpointError, LcmDataError, UsageError
from lcm_data.quantize.codebook import Codebook, Provenance

Array = np.ndarray[Any, Any]
Mixture = Callable[..., Array]


@pytest.fixture(scope="module")
def x_ND(mixture: Mixture) -> Array:
    return mixture(5000, seed=3)


def faiss_quantizer(codebook: Codebook) -> Any:
    bits = int(np.log2(codebook.num_units))
    quantizer = faiss.ResidualQuantizer(codebook.dim, codebook.num_levels, bits)
    quantizer.max_beam_size = 1
    quantizer.train_type |= faiss.ResidualQuantizer.Skip_codebook_tables
    faiss.copy_array_to_vector(codebook.tables_MKD.ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    return quantizer


def test_codes_and_vectors_are_those_of_faiss(fitted: Codebook, x_ND: Array) -> None:
    codes, _ = fitted.encode(x_ND)
    quantizer = faiss_quantizer(fitted)
    packed = quantizer.compute_codes(x_ND)
    theirs = faiss.unpack_bitstrings(packed, fitted.num_levels, 6)
    assert codes.dtype == np.uint16
    assert (codes == theirs).all(axis=1).mean() >= 0.999
    np.testing.assert_array_equal(fitted.decode(theirs.astype(np.uint16)), quantizer.decode(packed))


def test_encode_is_greedy_nearest_in_double_precision(fitted: Codebook, x_ND: Array) -> None:
    codes, _ = fitted.encode(x_ND[:300])
    residual = x_ND[:300].astype(np.float64)
    for level, table in enumerate(fitted.tables_MKD.astype(np.float64)):
        distance = ((residual[:, None] - table[None]) ** 2).sum(axis=2)
        chosen = distance[np.arange(300), codes[:, level]]
        np.testing.assert_allclose(chosen, distance.min(axis=1), rtol=1e-4, atol=1e-5)
        residual -= table[codes[:, level]]


def test_residual_norm_is_the_distance_to_the_decoding(fitted: Codebook, x_ND: Array) -> None:
    codes, norms = fitted.encode(x_ND)
    assert norms.dtype == np.float32
    np.testing.assert_allclose(norms, np.linalg.norm(x_ND - fitted.decode(codes), axis=1), rtol=1e-5)


def test_cumulative_holds_every_prefix(fitted: Codebook, x_ND: Array) -> None:
    codes, _ = fitted.encode(x_ND[:50])
    prefixes = fitted.cumulative(codes)
    assert prefixes.shape == (50, 6, 32)
    for levels in range(1, 7):
        np.testing.assert_array_equal(prefixes[:, levels - 1], fitted.decode(codes, levels))
        np.testing.assert_array_equal(prefixes[:, levels - 1], fitted.decode(codes[:, :levels]))
    assert not fitted.decode(codes, 0).any()


def test_fewer_levels_give_a_prefix_of_the_codes(fitted: Codebook, x_ND: Array) -> None:
    short = Codebook.build(fitted.tables_MKD[:3], fitted.provenance)
    np.testing.assert_array_equal(short.encode(x_ND)[0], fitted.encode(x_ND)[0][:, :3])


def test_more_rows_than_a_block_are_encoded_alike(fitted: Codebook, x_ND: Array) -> None:
    codes, norms = fitted.encode(x_ND)
    again, norms_again = fitted.encode(x_ND[4096:])
    np.testing.assert_array_equal(codes[4096:], again)
    np.testing.assert_array_equal(norms[4096:], norms_again)


@settings(max_examples=25, deadline=None)
@given(num_rows=st.integers(0, 40), dtype=st.sampled_from(["float16", "float32", "float64"]), seed=st.integers(0, 99))
def test_every_float_type_and_length(fitted: Codebook, num_rows: int, dtype: str, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((num_rows, 32)).astype(dtype)
    before = x.copy()
    codes, norms = fitted.encode(x)
    assert codes.shape == (num_rows, 6)
    assert norms.shape == (num_rows,)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(norms, np.linalg.norm(x - fitted.decode(codes), axis=1), rtol=1e-3)


def test_65536_units_fill_the_code_type() -> None:
    tables = np.arange(65536, dtype=np.float32).reshape(1, -1, 1)
    codes, norms = Codebook.build(tables, Provenance(encoder="x")).encode(
        np.array([[65535.0], [0.0]], dtype=np.float32)
    )
    assert codes.tolist() == [[65535], [0]]
    assert norms.tolist() == [0.0, 0.0]
    with pytest.raises(UsageError, match="65537, allowed: at most 65536"):
        Codebook.build(np.zeros((1, 65537, 1), dtype=np.float32), Provenance(encoder="x"))


def test_valid_rows(fitted: Codebook) -> None:
    x = np.ones((5, 32))
    x[1, 4], x[2, 0], x[3, 31], x[4] = np.nan, np.inf, -np.inf, 0
    for dtype in ("float16", "float32", "float64"):
        assert fitted.valid_rows(x.astype(dtype)).tolist() == [True, False, False, False, False]
        assert fitted.valid_rows(np.asfortranarray(x.astype(dtype))).tolist() == [True, False, False, False, False]
    assert fitted.valid_rows(-x[:1]).tolist() == [True]
    assert fitted.valid_rows(np.zeros((0, 32))).shape == (0,)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 31), dtype=np.float32), "got 31 dimensions, expected 32"),
        (np.zeros(32, dtype=np.float32), r"got shape \(32,\)"),
        (np.zeros((2, 32), dtype=np.int64), "got dtype int64"),
        ([[0.0] * 32], "got list"),
        (
            np.where(np.arange(96).reshape(3, 32) % 50 == 40, np.nan, 1.0),
            "2 of 3 rows hold NaN, infinity or numbers from 1e16 on",
        ),
    ],
)
def test_bad_vectors_are_refused(fitted: Codebook, x: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fitted.encode(x)


@pytest.mark.parametrize(
    ("codes", "levels", "message"),
    [
        (np.full((1, 6), 64), None, "values from 64 to 64, allowed: 0 to 63"),
        (np.full((1, 6), -1), None, "allowed: 0 to 63"),
        (np.zeros((1, 7), dtype=np.uint16), None, "at most 6 levels"),
        (np.zeros((1, 6)), None, "got float64"),
        (np.zeros((1, 6), dtype=np.uint16), 7, "got 7, allowed: 0 to 6"),
    ],
)
def test_bad_codes_are_refused(fitted: Codebook, codes: Any, levels: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fitted.decode(codes, levels)


def test_decoded_vectors_keep_their_codes() -> None:
    """Where every level is small against the distances in the one before, encoding undoes decoding."""
    rng = np.random.default_rng(3)
    tables = rng.standard_normal((4, 16, 32)).astype(np.float32) * 0.1 ** np.arange(4, dtype=np.float32)[:, None, None]
    book = Codebook.build(tables, Provenance(encoder="x"))
    codes = rng.integers(0, 16, (500, 4)).astype(np.uint16)
    again, norms = book.encode(book.decode(codes))
    np.testing.assert_array_equal(again, codes)
    assert norms.max() < 1e-5
    np.testing.assert_array_equal(book.decode(again), book.decode(codes))


def test_every_level_brings_the_decoding_nearer(fitted: Codebook, x_ND: Array) -> None:
    codes, _ = fitted.encode(x_ND)
    errors = [np.square(x_ND - fitted.decode(codes[:, :k], k)).sum(axis=1).mean() for k in range(1, 7)]
    assert (np.diff([np.square(x_ND).sum(axis=1).mean(), *errors]) < 0).all()


def test_saved_and_loaded(fitted: Codebook, x_ND: Array, tmp_path: Path) -> None:
    fitted.save(tmp_path / "a")
    loaded = Codebook.load(tmp_path / "a", verify=True)
    assert loaded.fingerprint == fitted.fingerprint
    assert loaded.quality == fitted.quality
    assert loaded.provenance == fitted.provenance
    assert not loaded.tables_MKD.flags.writeable
    np.testing.assert_array_equal(loaded.encode(x_ND)[0], fitted.encode(x_ND)[0])
    loaded.save(tmp_path / "b")
    for name in ("manifest.json", "codebooks.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(os.listdir(tmp_path / "a")) == ["codebooks.safetensors", "manifest.json"]


def test_any_safetensors_reader_opens_it(fitted: Codebook, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    fitted.save(tmp_path)
    tensors = safetensors.load_file(tmp_path / "codebooks.safetensors")
    np.testing.assert_array_equal(tensors["codebooks"], fitted.tables_MKD)


def test_another_codebook_is_not_overwritten(fitted: Codebook, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    fitted.save(tmp_path)
    with pytest.raises(UsageError, match="already holds another codebook"):
        Codebook.build(fitted.tables_MKD[:2], fitted.provenance).save(tmp_path)
    mapped = Codebook.load(tmp_path)
    Codebook.build(fitted.tables_MKD[:2], fitted.provenance).save(tmp_path, replace=True)
    assert Codebook.load(tmp_path, verify=True).num_levels == 2
    np.testing.assert_array_equal(mapped.tables_MKD, fitted.tables_MKD)  # who has it open keeps it


def test_fingerprint_tells_tables_and_provenance_apart(fitted: Codebook) -> None:
    changed = fitted.tables_MKD.copy()
    changed[5, 63, 31] = np.nextafter(changed[5, 63, 31], np.float32(9))
    made = [
        Codebook.build(fitted.tables_MKD, Provenance(encoder="a")),
        Codebook.build(changed, Provenance(encoder="a")),
        Codebook.build(fitted.tables_MKD, Provenance(encoder="b")),
        Codebook.build(fitted.tables_MKD, Provenance(encoder="a", space="normalized", normalizer="n")),
    ]
    assert len({codebook.fingerprint for codebook in made}) == 4


def test_space_and_normaliser_go_together() -> None:
    for space, normalizer in (("raw", "n"), ("normalized", ""), ("other", "")):
        with pytest.raises(UsageError):
            Provenance(encoder="x", space=space, normalizer=normalizer)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["manifest.json", "codebooks.safetensors"])
def test_every_truncation_is_noticed(fitted: Codebook, tmp_path: Path, name: str) -> None:
    fitted.save(tmp_path)
    data = (tmp_path / name).read_bytes()
    for size in (0, 4, 9, 60, 120, len(data) // 2, len(data) - 2):
        (tmp_path / name).write_bytes(data[:size])
        with pytest.raises(CheckpointError):
            Codebook.load(tmp_path)
    if name == "codebooks.safetensors":
        with pytest.raises(CheckpointError, match="is truncated"):
            Codebook.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError):
        Codebook.load(tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    place=st.floats(0, 0.999999),
    bit=st.integers(0, 7),
    name=st.sampled_from(["manifest.json", "codebooks.safetensors"]),
)
def test_no_flipped_bit_passes(
    fitted: Codebook, tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, name: str
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    fitted.save(folder)
    data = bytearray((folder / name).read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    (folder / name).write_bytes(data)
    try:
        loaded = Codebook.load(folder, verify=True)
    except LcmDataError:
        return
    # A bit that changes neither the tables nor what the manifest says (white space in a header) may pass.
    assert loaded.fingerprint == fitted.fingerprint
    np.testing.assert_array_equal(loaded.tables_MKD, fitted.tables_MKD)


def test_other_kinds_and_versions_are_refused(fitted: Codebook, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    for change, message in (
        ({"kind": "lcm-data normalizer"}, "does not describe a codebook"),
        ({"schema_version": 2}, "schema version 2, this program reads 1"),
        ({"encoder": "another"}, "was changed after it was written"),
        ({"num_levels": 5}, "says float32"),
    ):
        path.write_text(json.dumps({**manifest, **change}))
        with pytest.raises(CheckpointError, match=message):
            Codebook.load(tmp_path)


def test_a_half_written_codebook_is_none(fitted: Codebook, tmp_path: Path) -> None:
    """A process killed between the two files leaves tables without a manifest; saving again completes it."""
    fitted.save(tmp_path / "whole")
    script = (
        "import os, sys, signal\n"
        "import lcm_data.quantize.codebook as module\n"
        "module.write_file = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "module.Codebook.load(sys.argv[1]).save(sys.argv[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "whole", tmp_path / "half"], check=False)
    assert done.returncode == -9
    assert os.listdir(tmp_path / "half") == ["codebooks.safetensors"]
    with pytest.raises(CheckpointError, match="is not a codebook"):
        Codebook.load(tmp_path / "half")
    fitted.save(tmp_path / "half")
    assert Codebook.load(tmp_path / "half", verify=True).fingerprint == fitted.fingerprint
