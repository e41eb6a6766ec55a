"""Every engine against plain double precision, the torch engine with bfloat16 scores on any processor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data import schema
from lcm_data.errors import UnknownNameError, UsageError
from lcm_data.quantize import engines, torch_engine
from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_data.quantize.encode import Encoder, beam_search
from lcm_data.quantize.engines import ENGINES, choose_engine, load_engine
from lcm_data.quantize.torch_engine import TorchEngine
from lcm_data.store.shard import write_shard

Array = np.ndarray[Any, Any]
Mixture = Callable[..., Array]


@pytest.fixture(params=["faiss", "torch in float32", "torch in bfloat16"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> engines.Engine:
    return _engine(request.param, monkeypatch)


def _engine(kind: str, monkeypatch: pytest.MonkeyPatch) -> engines.Engine:
    monkeypatch.setattr(torch_engine, "_is_fast_at_bfloat16", lambda device: kind.endswith("bfloat16"))
    return load_engine(kind.split()[0], "cpu")


def _scores(x: Array, table: Array) -> Array:
    """Squared distances without the squares of the rows, in double precision."""
    x, table = x.astype(np.float64), table.astype(np.float64)
    return np.asarray(np.square(table).sum(axis=1) - 2 * x @ table.T)


@given(
    num_rows=st.integers(1, 300),
    num_units=st.sampled_from([2, 3, 63, 127, 128, 129, 200, 1000, 2050]),
    dim=st.sampled_from([1, 2, 29, 32, 33, 64]),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    offset=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=40)
def test_assigned_units_are_nearest(
    num_rows: int, num_units: int, dim: int, scale: float, offset: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = ((rng.standard_normal((num_rows, dim)) + offset) * scale).astype(np.float32)
    table = ((rng.standard_normal((num_units, dim)) + offset) * scale).astype(np.float32)
    scores = _scores(x, table)
    reach = np.square(table, dtype=np.float64).sum(axis=1).max() + np.square(x, dtype=np.float64).sum(axis=1)
    for kind in ("faiss", "torch in float32", "torch in bfloat16"):
        with pytest.MonkeyPatch.context() as patch:
            ids = _engine(kind, patch).assign(x, table)
        excess = (scores[np.arange(num_rows), ids] - scores.min(axis=1)) / reach
        assert ids.dtype == np.uint16
        # Exact within float32; bfloat16 may miss the nearest of very many for a few rows, by little.
        missed = excess > 2e-6
        assert missed.sum() <= (max(1, 0.01 * num_rows) if kind.endswith("bfloat16") else 0)
        assert excess.max() <= 5e-3


@given(
    num_sizes=st.integers(1, 9),
    num_groups=st.sampled_from([1, 2, 64, 130]),
    offset=st.sampled_from([-4.0, -2.0, 0.0, 4.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=100)
def test_the_two_best_by_their_bits(
    num_sizes: int, num_groups: int, offset: float, dtype: torch.dtype, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    scores_NU = (torch.randn(50, num_sizes * num_groups, generator=random) + offset).to(dtype)
    scores_NU[0] = -torch.inf
    first, second, unit = torch_engine.two_best(scores_NU.view(50, num_sizes, num_groups))
    assert torch.equal(first > 0, (scores_NU > 0).any(dim=1))
    right = first > 0
    assert torch.equal(first[right], scores_NU.amax(dim=1)[right].float())
    assert torch.equal(scores_NU.gather(1, unit[:, None])[:, 0][right].float(), first[right])
    if scores_NU.shape[1] > 1:
        assert torch.equal(second[right], scores_NU.topk(2, dim=1).values[:, 1].clamp_min(0)[right].float())
    else:
        assert not second[right].any()


def test_numbers_are_those_of_faiss(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same tables, level after level."""
    x = mixture(3000, dim=64, seed=1)
    tables = np.stack([mixture(256, dim=64, seed=level) * 0.6**level for level in range(2, 8)])
    exact, _ = Encoder(tables, load_engine("faiss")).encode(x)
    for kind, share in (("torch in float32", 0.9995), ("torch in bfloat16", 0.999)):
        codes, norms = Encoder(tables, _engine(kind, monkeypatch)).encode(x)
        assert (codes == exact).mean() >= share
        decoded = sum(tables[level][codes[:, level]] for level in range(6))
        np.testing.assert_allclose(norms, np.linalg.norm(x - decoded, axis=1), rtol=1e-4)


def test_equal_units_do_not_confuse(engine: engines.Engine) -> None:
    table = np.repeat(np.random.default_rng(0).standard_normal((100, 48)), 3, axis=0).astype(np.float32)
    np.testing.assert_array_equal(engine.assign(table, table) // 3, np.arange(300) // 3)


def test_sums_are_those_of_a_loop(engine: engines.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "_SUM_ROWS", 700)  # several blocks
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 8)).astype(np.float32)
    table = (4 * rng.standard_normal((150, 8))).astype(np.float32)  # far apart: some stay empty
    ids = _scores(x, table).argmin(axis=1)
    sums, counts = engine.lloyd(x, table)
    assert sums.dtype == np.float64
    assert counts.sum() == 3000
    agree = counts == np.bincount(ids, minlength=150)
    assert agree.mean() > (0.5 if engine.facts.get("scores", "").startswith("bfloat16") else 0.99)
    for unit in np.flatnonzero(agree):
        np.testing.assert_allclose(sums[unit], x[ids == unit].sum(axis=0, dtype=np.float64), atol=0.1)
    np.testing.assert_allclose(sums.sum(axis=0), x.sum(axis=0, dtype=np.float64), atol=1e-3)


def test_inner_products(engine: engines.Engine) -> None:
    rng = np.random.default_rng(0)
    x, table = rng.standard_normal((500, 16)).astype(np.float32), rng.standard_normal((70, 16)).astype(np.float32)
    table *= np.linspace(0.1, 3, 70, dtype=np.float32)[:, None]
    assert (engine.assign(x, table, "dot") == (x @ table.T).argmax(axis=1)).mean() > 0.995


@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_nearest_units_in_order(engine: engines.Engine, count: int) -> None:
    rng = np.random.default_rng(0)
    x, table = rng.standard_normal((200, 24)).astype(np.float32), rng.standard_normal((300, 24)).astype(np.float32)
    ids, change = engine.nearest(x, engine.prepare(table), count)
    scores = _scores(x, table)
    np.testing.assert_allclose(change, np.take_along_axis(scores, ids, axis=1), atol=1e-3)
    assert (ids == np.argsort(scores, axis=1)[:, :count]).mean() > 0.98
    assert (np.diff(change, axis=1) >= 0).all()


def test_rows_are_left_alone(engine: engines.Engine, mixture: Mixture) -> None:
    x, tables = mixture(500), mixture(64).reshape(2, 32, 32)
    before, tables_before = x.copy(), tables.copy()
    Encoder(tables, engine).encode(x)
    engine.assign(x, tables[0])
    engine.lloyd(x, tables[0])
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(tables, tables_before)


# -- beam search -----------------------------------------------------------------------------------------------------


def test_a_beam_of_one_is_greedy(fitted: Codebook, mixture: Mixture, engine: engines.Engine) -> None:
    x = mixture(300, seed=3)
    greedy, norms = Encoder(fitted.tables_MKD, engine).encode(x)
    prepared = [engine.prepare(table) for table in fitted.tables_MKD]
    codes, beam_norms = beam_search(engine, fitted.tables_MKD, prepared, x, 1)
    same = (codes == greedy).all(axis=1)
    assert same.mean() > 0.99
    np.testing.assert_allclose(beam_norms[same], norms[same], rtol=1e-4)


def test_a_wide_beam_finds_the_best_code(engine: engines.Engine) -> None:
    """As many as all prefixes: then nothing is left out, and the code is the best of all 4 ** 3."""
    rng = np.random.default_rng(1)
    tables, x = rng.standard_normal((3, 4, 6)).astype(np.float32), rng.standard_normal((50, 6)).astype(np.float32)
    codes, norms = Encoder(tables, engine, beam=64).encode(x)
    every = np.stack(np.meshgrid(*[range(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    sums = sum(tables[level][every[:, level]] for level in range(3))
    distances = np.linalg.norm(x[:, None] - sums[None], axis=2)
    np.testing.assert_allclose(norms, distances.min(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(codes, every[distances.argmin(axis=1)])


def test_wider_beams_leave_less(fitted: Codebook, mixture: Mixture) -> None:
    x = mixture(1000, seed=3)
    errors = []
    for beam in (1, 2, 5):
        codes, norms = fitted.encode(x, fitted.encoder("faiss", beam=beam))
        np.testing.assert_allclose(norms, np.linalg.norm(x - fitted.decode(codes), axis=1), rtol=1e-3, atol=1e-4)
        errors.append(float(np.square(norms).sum()))
    assert errors[1] < 0.99 * errors[0]
    assert errors[2] < 0.995 * errors[1]


@pytest.mark.parametrize("beam", [0, 257])
def test_beams_out_of_range(fitted: Codebook, beam: int) -> None:
    with pytest.raises(UsageError, match=f"beam: got {beam}, allowed: 1"):
        fitted.encoder("faiss", beam=beam)


# -- choice ----------------------------------------------------------------------------------------------------------


def test_auto_is_torch_for_large_codebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    large = {"num_units": 8192, "dim": 1024}
    assert choose_engine("auto", **large) == "torch"
    assert choose_engine("auto", num_units=256, dim=1024) == "faiss"
    assert choose_engine("faiss", **large) == "faiss"
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    assert choose_engine("auto", **large) == "faiss"
    with pytest.raises(UnknownNameError, match="Did you mean 'torch'"):
        choose_engine("tohrc", **large)


@pytest.mark.parametrize("name", ENGINES)
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(UsageError, match="allowed: auto, cpu, cuda"):
        load_engine(name, "tpu")


def test_decoding_is_the_same_with_and_without_torch(
    fitted: Codebook, mixture: Mixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TorchEngine  # imported, so decoding takes it
    codes, _ = fitted.encode(mixture(700, seed=3))
    fast = [fitted.decode(codes, levels) for levels in range(7)]
    monkeypatch.delitem(sys.modules, "torch")
    for levels, vectors in enumerate(fast):
        np.testing.assert_array_equal(fitted.decode(codes, levels), vectors)


def test_full_size_codes_decode_by_prefix() -> None:
    rng = np.random.default_rng(0)
    book = Codebook.build(rng.standard_normal((64, 128, 16), dtype=np.float32), Provenance(encoder="x"))
    codes = rng.integers(0, 128, (300, 64)).astype(np.uint16)
    steps = book.cumulative(codes)
    for levels in (1, 2, 63, 64):
        np.testing.assert_allclose(book.decode(codes, levels), steps[:, levels - 1], rtol=1e-5, atol=1e-5)


def test_codes_are_compact_on_disk(tmp_path: Path) -> None:
    """64 x 13 bits are 104 bytes; plain Parquet would take 268."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 8192, (6000, 64)).astype(np.uint16)
    target = schema.codes_schema(64)
    columns = [
        pa.array(rng.integers(-(2**63), 2**63, 6000), pa.int64()),
        pa.array([f"document-{row // 30}" for row in range(6000)]),
        pa.array(np.arange(6000) % 30, pa.int32()),
        schema.vector_array(codes, target.field("codes").type),
        pa.array(np.ones(6000), pa.float32()),
    ]
    write_shard(tmp_path / "shard.parquet", pa.Table.from_arrays(columns, schema=target), {})
    file = pq.ParquetFile(tmp_path / "shard.parquet")
    place = next(i for i in range(5) if file.metadata.row_group(0).column(i).path_in_schema.startswith("codes"))
    groups = [file.metadata.row_group(group).column(place) for group in range(file.num_row_groups)]
    assert sum(group.total_compressed_size for group in groups) / 6000 < 108
    assert {(group.compression, "BYTE_STREAM_SPLIT" in group.encodings) for group in groups} == {("GZIP", True)}
    assert not file.schema_arrow.field("codes").nullable
    np.testing.assert_array_equal(schema.vectors(file.read()["codes"]), codes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_whose_squares_leave_float32_are_not_valid(fitted: Codebook, dtype: str) -> None:
    x_ND = np.ones((4, 32), dtype)
    x_ND[1, 5], x_ND[2, 7] = 1e25, -1e17
    assert fitted.valid_rows(x_ND).tolist() == [True, False, False, True]
    with pytest.raises(UsageError, match="2 of 4 rows hold NaN, infinity or numbers from 1e16 on"):
        fitted.encode(x_ND)


def test_a_unit_that_is_not_there_is_no_unit() -> None:
    with pytest.raises(UsageError, match="finds no unit for 1 rows"):
        load_engine("faiss", "cpu").assign(np.array([[1, 2], [np.nan, 0]], np.float32), np.ones((4, 2), np.float32))
