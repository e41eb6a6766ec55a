from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lcm_data.errors import CheckpointError, StorageError, UsageError
from lcm_data.normalize import Normalizer, NormalizerInfo

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def x_ND() -> Array:
    """Long-tailed columns of very different scale, as SONAR's."""
    rng = np.random.default_rng(0)
    return (rng.laplace(size=(20000, 12)) * 10.0 ** -np.arange(-1, 5, 0.5) + 0.3).astype(np.float32)


@pytest.mark.parametrize("method", ["robust", "gaussian_robust"])
@pytest.mark.parametrize("legacy", [False, True])
def test_same_figures_as_scikit_learn(x_ND: Array, method: Any, legacy: bool) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    scaler = preprocessing.RobustScaler(
        unit_variance=method == "gaussian_robust", quantile_range=(0.25, 0.75) if legacy else (25, 75)
    )
    scaler.fit(x_ND.astype(np.float64))
    fitted = Normalizer.fit(x_ND, method=method, legacy_quantiles=legacy)
    np.testing.assert_allclose(fitted.center, scaler.center_, rtol=1e-6)
    np.testing.assert_allclose(fitted.scale, scaler.scale_, rtol=1e-6)
    assert fitted.info.quantiles == ((0.25, 0.75) if legacy else (25, 75))


def test_known_scales_of_a_laplace_distribution(x_ND: Array) -> None:
    """IQR = 2 b ln 2 against sigma = b sqrt 2; the official fault measures b ln 3 in the tail instead."""
    sigma = x_ND.std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(Normalizer.fit(x_ND).scale / sigma, 0.727, rtol=0.05)
    np.testing.assert_allclose(Normalizer.fit(x_ND, legacy_quantiles=True).scale / sigma, 2.07, rtol=0.35)
    np.testing.assert_allclose(Normalizer.fit(x_ND, method="robust").scale / sigma, 0.980, rtol=0.05)
    standard = Normalizer.fit(x_ND, method="standard")
    np.testing.assert_allclose(standard.scale, sigma, rtol=1e-6)
    np.testing.assert_allclose(standard.center, x_ND.mean(axis=0, dtype=np.float64), rtol=1e-6)


def test_half_floats_and_mapped_files_fit_alike(x_ND: Array, tmp_path: Path) -> None:
    half = x_ND.astype(np.float16)
    np.save(tmp_path / "x.npy", half)
    mapped = Normalizer.fit(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert mapped.fingerprint == Normalizer.fit(half.astype(np.float64)).fingerprint


FINITE = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=100, deadline=None)
@given(
    x=hnp.arrays(np.float32, (7, 5), elements=FINITE),
    center=hnp.arrays(np.float32, 5, elements=FINITE),
    scale=hnp.arrays(np.float32, 5, elements=st.floats(2**-10, 2**10, width=32)),
    dtype=st.sampled_from([np.float32, np.float64]),
    as_torch=st.booleans(),
)
def test_round_trip(x: Array, center: Array, scale: Array, dtype: Any, as_torch: bool) -> None:
    normalizer = Normalizer(center, scale)
    value: Any = x.astype(dtype)
    if as_torch:
        import torch

        value = torch.from_numpy(value)
    back = normalizer.denormalize(normalizer.normalize(value))
    assert back.dtype == value.dtype
    # Subtracting the centre loses what is small against it.
    size = np.maximum(np.abs(x), np.abs(center))
    assert (np.abs(np.asarray(back) - x) <= 1e-6 * size + 1e-36).all()


def test_torch_gives_what_numpy_gives(x_ND: Array) -> None:
    torch = pytest.importorskip("torch")
    fitted = Normalizer.fit(x_ND, clip_proba=0.01)
    rows = x_ND[:100].reshape(5, 20, 12)
    np.testing.assert_array_equal(fitted.normalize(torch.from_numpy(rows)).numpy(), fitted.normalize(rows))
    assert fitted.normalize(torch.from_numpy(rows).bfloat16()).dtype == torch.float32
    assert fitted.normalize(rows.astype(np.float16)).dtype == np.float32
    value = torch.from_numpy(rows).requires_grad_()
    Normalizer.fit(x_ND).normalize(value).sum().backward()
    np.testing.assert_allclose(value.grad[0, 0].numpy(), 1 / Normalizer.fit(x_ND).scale, rtol=1e-6)


def test_clipping_is_in_the_normalised_space(x_ND: Array) -> None:
    fitted = Normalizer.fit(x_ND, clip_proba=0.05)
    plain = Normalizer.fit(x_ND).normalize(x_ND)
    np.testing.assert_allclose(fitted.clip_min, np.quantile(plain, 0.05, axis=0), rtol=1e-4)
    clipped = fitted.normalize(x_ND)
    assert ((clipped == fitted.clip_min) | (clipped == fitted.clip_max)).mean() == pytest.approx(0.1, abs=0.01)
    far = np.full((1, 12), 1e6, dtype=np.float32)
    np.testing.assert_array_equal(fitted.denormalize(far)[0], fitted.clip_max * fitted.scale + fitted.center)
    np.testing.assert_array_equal(fitted.denormalize(-far)[0], fitted.clip_min * fitted.scale + fitted.center)


def test_nearly_constant_columns_get_a_floor(x_ND: Array) -> None:
    x = x_ND[:, :5].copy()
    x[:, 2] = 7
    fitted = Normalizer.fit(x)
    spread = [fitted.scale[i] for i in (0, 1, 3, 4)]
    assert fitted.scale[2] == pytest.approx(1e-6 * np.median([*spread, 0]), rel=1e-5)
    assert not fitted.normalize(x)[:, 2].any()
    with pytest.raises(UsageError, match="more than half of the dimensions are constant"):
        Normalizer.fit(np.ones((10, 3)))


def test_saved_and_loaded(x_ND: Array, tmp_path: Path) -> None:
    for i, clip in enumerate((None, 0.01)):
        fitted = Normalizer.fit(x_ND, clip_proba=clip, encoder="sonar-text")
        path = tmp_path / f"{i}.safetensors"
        fitted.save(path)
        loaded = Normalizer.load(path)
        assert loaded.info == fitted.info == NormalizerInfo(clip_proba=clip, num_rows=20000, encoder="sonar-text")
        assert loaded.fingerprint == fitted.fingerprint == pickle.loads(pickle.dumps(fitted)).fingerprint
        np.testing.assert_array_equal(loaded.normalize(x_ND), fitted.normalize(x_ND))
        first = path.read_bytes()
        loaded.save(path)
        assert path.read_bytes() == first
    assert Normalizer.load(tmp_path / "0.safetensors").fingerprint != loaded.fingerprint
    assert sorted(os.listdir(tmp_path)) == ["0.safetensors", "1.safetensors"]


def test_damaged_files_are_refused(x_ND: Array, tmp_path: Path) -> None:
    path = tmp_path / "normalizer.safetensors"
    Normalizer.fit(x_ND).save(path)
    data = path.read_bytes()
    for size in (0, 5, 60, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError):
            Normalizer.load(path)
    path.write_bytes(data.replace(b"lcm-data normalizer", b"lcm-data something!"))
    with pytest.raises(CheckpointError, match="something!"):
        Normalizer.load(path)
    path.write_bytes(data[:-4] + b"\0\0\0\0")  # a scale of zero
    with pytest.raises(CheckpointError, match="every scale above zero"):
        Normalizer.load(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        Normalizer.load(tmp_path / "none")


def test_official_checkpoints(x_ND: Array, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    fitted = Normalizer.fit(x_ND, clip_proba=0.01)
    fitted.to_official(tmp_path / "model.pt")
    model = torch.load(tmp_path / "model.pt", weights_only=True)["model"]
    assert sorted(model) == ["center", "clip_max", "clip_min", "scale"]
    back = Normalizer.from_official(tmp_path / "model.pt", encoder="e")
    np.testing.assert_array_equal(back.normalize(x_ND), fitted.normalize(x_ND))
    assert back.info == NormalizerInfo(method="official", quantiles=None, encoder="e")
    back.save(tmp_path / "own.safetensors")
    assert Normalizer.load(tmp_path / "own.safetensors").info == back.info
    torch.save({"weights": 1}, tmp_path / "other.pt")
    for name in ("other.pt", "none.pt", "own.safetensors"):
        with pytest.raises(CheckpointError):
            Normalizer.from_official(tmp_path / name)
    with pytest.raises(StorageError):
        fitted.to_official(tmp_path / "none" / "model.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_centre_and_scale_are_quantiles_of_numpy(x_ND: Array, legacy: bool) -> None:
    """The figures by hand; the official fault takes the same formula at 0.25 and 0.75 percent."""
    low, high = (0.25, 0.75) if legacy else (25.0, 75.0)
    fitted = Normalizer.fit(x_ND, legacy_quantiles=legacy)
    wide = x_ND.astype(np.float64)
    first, middle, last = np.percentile(wide, (low, 50, high), axis=0)
    normal_range = 1.3489795 if not legacy else 0.3746547  # between the same quantiles of a standard normal
    np.testing.assert_allclose(fitted.center, middle, rtol=1e-6)
    np.testing.assert_allclose(fitted.scale, (last - first) / normal_range, rtol=1e-5)


def test_the_official_file_holds_centre_and_scale(x_ND: Array, tmp_path: Path) -> None:
    """``{"model": {"center", "scale"}}``, float32, as the official fit writes it, its fault included if asked for."""
    torch = pytest.importorskip("torch")
    fitted = Normalizer.fit(x_ND, legacy_quantiles=True)
    fitted.to_official(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert list(content) == ["model"]
    assert sorted(content["model"]) == ["center", "scale"]
    assert all(tensor.dtype == torch.float32 for tensor in content["model"].values())
    back = Normalizer.from_official(tmp_path / "model.pt")
    np.testing.assert_array_equal(back.scale, fitted.scale)
    assert back.clip_min is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "minmax"}, "method: got 'minmax', allowed: standard, robust, gaussian_robust"),
        ({"quantiles": (75, 25)}, "two rising percentages"),
        ({"quantiles": (0, 100)}, "two rising percentages"),
        ({"clip_proba": 0.5}, "between 0 and 0.5"),
        ({"x": np.ones((1, 3))}, "at least 2"),
        ({"x": np.array([[1.0], [np.nan]])}, "1 of 2 rows hold NaN"),
        ({"x": np.ones(3)}, "two dimensions"),
    ],
)
def test_bad_arguments(x_ND: Array, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Normalizer.fit(options.pop("x", x_ND), **options)
    with pytest.raises(UsageError, match="expected 12 as the last dimension"):
        Normalizer.fit(x_ND).normalize(np.ones((2, 11)))


def test_the_weights_it_was_fitted_on(x_ND: Array, tmp_path: Path) -> None:
    old = Normalizer.fit(x_ND, space="s")
    new = Normalizer.fit(x_ND, space="s", encoder_revision="abc")
    assert new.fingerprint != old.fingerprint
    for normalizer in (old, new):
        normalizer.save(tmp_path / "file")
        again = Normalizer.load(tmp_path / "file")
        assert (again.info, again.fingerprint) == (normalizer.info, normalizer.fingerprint)
    old.save(tmp_path / "old")
    assert b"encoder_revision" not in (tmp_path / "old").read_bytes()  # as files of 0.1.0: their fingerprints stay
    for info, theirs, answer in (
        (new.info, {"encoder_revision": "abc"}, True),
        (new.info, {"encoder_revision": "abd"}, False),
        (new.info, {}, True),
        (old.info, {"encoder_revision": "abc"}, True),
    ):
        assert info.is_of(theirs) == answer
