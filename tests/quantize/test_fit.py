from __future__ import annotations

import itertools
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcm_data.errors import PlanMismatchError, UnknownNameError, UsageError
from lcm_data.quantize import kmeans, memory
from lcm_data.quantize.codebook import Codebook, LevelQuality, Provenance
from lcm_data.quantize.engines import ENGINES, load_engine
from lcm_data.quantize.fit import FitOptions, estimate_memory, fit_codebook
from lcm_data.quantize.kmeans import TRAINERS, cluster_sums
from lcm_data.tables import resolve

Array = np.ndarray[Any, Any]
Mixture = Callable[..., Array]
SOURCE = Provenance(encoder="synthetic")


def fit(train: Array, heldout: Array, **changes: Any) -> Codebook:
    options = {"num_levels": 3, "num_units": 32, "threads": 1, "iterations": 6}
    kept = {name: changes.pop(name) for name in ("checkpoint_dir", "progress", "overwrite") if name in changes}
    return fit_codebook(train, heldout, FitOptions(**{**options, **changes}), SOURCE, **kept)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_units_stay_alive_on_a_mixture(mixture: Mixture, trainer: str) -> None:
    codebook = fit(mixture(6000, seed=1), mixture(1000, seed=2), trainer=trainer, num_levels=6, num_units=64)
    errors = [1.0, *(level.heldout_nmse for level in codebook.quality)]
    assert all(after < 0.95 * before for before, after in itertools.pairwise(errors))
    for level in codebook.quality:
        assert level.perplexity > 0.7 * 64
        assert level.dead == 0
        assert level.used == 64
        assert level.train_nmse < level.heldout_nmse


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("engine", ENGINES)
def test_as_good_as_faiss(mixture: Mixture, trainer: str, engine: str) -> None:
    import faiss

    train, heldout = mixture(4000, seed=1), mixture(1000, seed=2)
    codebook = fit(train, heldout, trainer=trainer, engine=engine, num_levels=3, num_units=32, iterations=10)
    reference = faiss.ResidualQuantizer(32, 3, 5)
    reference.max_beam_size = 1
    reference.train_type = reference.Train_progressive_dim | reference.Skip_codebook_tables
    reference.train(train)
    error = float(((heldout - reference.decode(reference.compute_codes(heldout))) ** 2).sum())
    nmse = error / float(((heldout - heldout.mean(axis=0)) ** 2).sum())
    assert codebook.quality[-1].heldout_nmse < 1.03 * nmse


def test_going_beyond_the_mean_saves_iterations(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    train, heldout = mixture(6000, seed=1), mixture(1000, seed=2)

    def error(iterations: int) -> float:
        return float(fit(train, heldout, num_levels=4, num_units=64, iterations=iterations).quality[-1].train_nmse)

    ten = error(10)
    monkeypatch.setattr(kmeans, "_BEYOND", np.float32(0))
    assert ten < 0.5 * (error(10) + error(20))


def test_quality_is_what_encoding_gives(fitted: Codebook, mixture: Mixture) -> None:
    heldout = mixture(1000, seed=2)
    codes, _ = fitted.encode(heldout)
    variance = ((heldout - heldout.mean(axis=0)) ** 2).sum()
    for level in fitted.quality:
        decoded = fitted.decode(codes, level.level)
        cosine = (heldout * decoded).sum(axis=1) / np.linalg.norm(heldout, axis=1) / np.linalg.norm(decoded, axis=1)
        assert level.heldout_nmse == pytest.approx(((heldout - decoded) ** 2).sum() / variance, rel=1e-4)
        assert level.heldout_cosine == pytest.approx(cosine.mean(), rel=1e-4)
    used = np.bincount(fitted.encode(mixture(8000, seed=1))[0][:, 0], minlength=64)
    share = used / used.sum()
    assert fitted.quality[0].perplexity == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)
    assert fitted.quality[0].max_share == pytest.approx(share.max(), rel=1e-3)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_same_arguments_same_bytes(mixture: Mixture, trainer: str) -> None:
    train, heldout = mixture(2000, seed=1), mixture(300, seed=2)
    first = fit(train, heldout, trainer=trainer)
    assert fit(train, heldout, trainer=trainer).fingerprint == first.fingerprint
    used_up = train.copy()
    assert fit(used_up, heldout, trainer=trainer, overwrite=True).fingerprint == first.fingerprint
    assert not np.array_equal(used_up, train)
    assert fit(train, heldout, trainer=trainer, seed=1).manifest["tensor_sha256"] != first.manifest["tensor_sha256"]


def test_arguments_are_left_alone(mixture: Mixture, tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", mixture(2000, seed=1).astype(np.float16))
    train = np.load(tmp_path / "train.npy", mmap_mode="r")
    heldout = mixture(300, seed=2)
    before = heldout.copy()
    mapped = fit(train, heldout)
    np.testing.assert_array_equal(heldout, before)
    assert mapped.fingerprint == fit(np.array(train, dtype=np.float32), heldout).fingerprint


def test_many_levels(mixture: Mixture) -> None:
    """The paper's depth: every level still lowers the error, and codes are 64 wide."""
    train = mixture(1000, dim=16, seed=1)
    codebook = fit(train, mixture(200, dim=16, seed=2), num_levels=64, num_units=16, trainer="spherical")
    errors = [level.train_nmse for level in codebook.quality]
    assert len(errors) == 64
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01
    assert codebook.encode(train)[0].shape == (1000, 64)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_rows_that_run_out_of_residual(trainer: str) -> None:
    """As many units as distinct rows: nothing is left after one level, and nothing breaks."""
    train = np.repeat(np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32), 4, axis=0)
    codebook = fit(train, train[::4], num_units=64, num_levels=3, trainer=trainer)
    assert np.isfinite(codebook.tables_MKD).all()
    assert codebook.quality[-1].train_nmse < 0.2
    same = np.ones((64, 8), dtype=np.float32)
    assert fit(same, same, num_units=4, num_levels=2, trainer=trainer).quality[-1].heldout_nmse < 1e-6


def test_full_size_memory_is_stated() -> None:
    options = FitOptions(trainer="spherical")
    assert (options.num_levels, options.num_units) == (64, 8192)
    needed = estimate_memory(options, 15_000_000, 1024, num_heldout=100_000)
    assert needed.tables == 64 * 8192 * 1024 * 4
    assert needed.residuals == 15_000_000 * 1024 * 4 + 2 * 100_000 * 1024 * 4
    assert 64e9 < needed.total < 67e9
    assert "residuals 62.26 GB, tables 2.15 GB" in str(needed)
    in_place = estimate_memory(options, 15_000_000, 1024, num_heldout=100_000, overwrite=True)
    assert in_place.total == needed.total - 15_000_000 * 1024 * 4
    progressive = estimate_memory(FitOptions(trainer="progressive"), 15_000_000, 1024)
    assert progressive.total > 180e9


def test_too_little_memory_is_refused_with_numbers(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 1_000_000)
    with pytest.raises(UsageError, match=r"the fit needs \d+\.\d+ GB .* only 0.00 GB"):
        fit(mixture(2000, seed=1), mixture(100, seed=2))


_PEAK = """
import sys
import numpy as np
from lcm_data.machine import peak_memory
from lcm_data.quantize.codebook import Provenance
from lcm_data.quantize.engines import ENGINES, load_engine
from lcm_data.quantize.fit import FitOptions, estimate_memory, fit_codebook
from lcm_data.quantize.engines import load_engine
load_engine(sys.argv[2]).threads(1).__enter__()
rng = np.random.default_rng(0)
train = rng.standard_normal((40_000, 256), dtype=np.float32)
options = FitOptions(num_levels=1, num_units=16, iterations=1, trainer=sys.argv[1], engine=sys.argv[2], threads=1)
before = peak_memory()
fit_codebook(train, train[:1000], options, Provenance(encoder="x"))
print(peak_memory() - before)
print(estimate_memory(options, 40_000, 256, num_heldout=1000).total)
"""


@pytest.mark.parametrize(
    ("trainer", "engine"),
    [("spherical", "faiss"), ("progressive", "faiss"), ("growing", "faiss"), ("growing", "torch")],
)
def test_the_estimate_holds(trainer: str, engine: str) -> None:
    done = subprocess.run([sys.executable, "-c", _PEAK, trainer, engine], check=True, capture_output=True, text=True)
    used, estimated = map(int, done.stdout.split())
    assert 0.4 * estimated < used < 1.25 * estimated


def test_available_memory_heeds_a_container(tmp_path: Path) -> None:
    whole = memory.available_memory()
    assert whole is not None
    assert whole > 1e8
    for name, text in {
        "memory.max": "5000",
        "memory.current": "3000",
        "memory.stat": "anon 1\ninactive_file 500",
    }.items():
        (tmp_path / name).write_text(text)
    assert memory._container(tmp_path) == 2500
    (tmp_path / "memory.max").write_text("max")
    assert memory._container(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_units": 2001}, "2000 sample rows for 2001 units"),
        ({"heldout": np.zeros((0, 32), dtype=np.float32)}, "held-out sample is empty"),
        ({"heldout": np.zeros((2, 31), dtype=np.float32)}, "heldout: got 31 dimensions"),
        ({"heldout": np.full((2, 32), np.nan, dtype=np.float32)}, "heldout: 2 of 2 rows hold NaN"),
        ({"num_units": 1}, "num_units: got 1, allowed: 2 to 65536"),
        ({"num_units": 65537}, "num_units"),
        ({"num_levels": 0}, "num_levels: got 0"),
        ({"threads": 0}, "threads: got 0"),
    ],
)
def test_bad_arguments(mixture: Mixture, changes: dict[str, Any], message: str) -> None:
    heldout = changes.pop("heldout", None)
    with pytest.raises(UsageError, match=message):
        fit(mixture(2000, seed=1), mixture(10) if heldout is None else heldout, **changes)
    with pytest.raises(UnknownNameError, match="Did you mean 'spherical'"):
        FitOptions(trainer="sperical")
    with pytest.raises(UsageError, match="as many rows as dimensions"):
        fit(mixture(40, dim=64), mixture(10, dim=64), trainer="progressive")


def test_few_rows_are_a_warning(mixture: Mixture, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fit(mixture(39 * 32, seed=1), mixture(300, seed=2), num_levels=1)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        fit(mixture(39 * 32 - 1, seed=1), mixture(300, seed=2), num_levels=1)
    assert re.search("only 39.0 sample rows per unit", caplog.text)


def test_cluster_sums_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9000, 3)).astype(np.float32)
    ids = np.where(rng.random(9000) < 0.6, 2, rng.integers(0, 5, 9000)).astype(np.uint16)
    sums, counts = cluster_sums(x, ids, 7)
    for unit in range(7):
        np.testing.assert_allclose(sums[unit], x[ids == unit].sum(axis=0, dtype=np.float64), atol=1e-9)
    assert counts.tolist() == np.bincount(ids, minlength=7).tolist()


_KILLED = """
import os, signal, sys
import numpy as np
from lcm_data.quantize import checkpoint
from lcm_data.quantize.codebook import Provenance
from lcm_data.quantize.engines import ENGINES, load_engine
from lcm_data.quantize.fit import FitOptions, fit_codebook
folder, engine, trainer, stop, stop_step = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
save = checkpoint.LevelSteps.save
def save_and_die(steps, step, centroids):
    save(steps, step, centroids)
    if stop_step and (steps._level, step) == (stop, stop_step):
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.LevelSteps.save = save_and_die
data = np.load(folder + "/data.npz")
def progress(level):
    if not stop_step and level.level == stop:
        os.kill(os.getpid(), signal.SIGKILL)
options = FitOptions(num_levels=4, num_units=32, iterations=6, threads=1, engine=engine, trainer=trainer)
codebook = fit_codebook(data["train"], data["heldout"], options, Provenance(encoder="x"), progress=progress,
                        checkpoint_dir=os.path.join(folder, sys.argv[6]), step_seconds=0)
print(codebook.fingerprint)
"""


@pytest.mark.parametrize(
    ("engine", "trainer"),
    [("torch", "growing"), ("faiss", "progressive")],
)
def test_a_killed_fit_resumes_to_the_same_bytes(mixture: Mixture, tmp_path: Path, engine: str, trainer: str) -> None:
    """Killed after a level, and then inside one."""
    train, heldout = mixture(2000, dim=80, seed=1), mixture(300, dim=80, seed=2)
    np.savez(tmp_path / "data.npz", train=train, heldout=heldout)

    def run(stop: int, step: int = 0, checkpoint: str = "checkpoint") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _KILLED, str(tmp_path), engine, trainer, str(stop), str(step), checkpoint]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    assert run(2).returncode == -9
    finished = ["level-0000.safetensors", "level-0001.safetensors"]
    assert sorted(os.listdir(tmp_path / "checkpoint")) == finished
    before = {name: os.stat(tmp_path / "checkpoint" / name).st_mtime_ns for name in finished}
    assert run(2, step=4).returncode == -9
    assert sorted(os.listdir(tmp_path / "checkpoint")) == [*finished, "level-0002.step.safetensors"]
    resumed = run(0).stdout.strip()
    for name, time in before.items():
        assert os.stat(tmp_path / "checkpoint" / name).st_mtime_ns == time
    assert len(os.listdir(tmp_path / "checkpoint")) == 4  # no steps are left behind
    # In a process of its own, too: this one may have loaded FAISS with other kernels, which round differently.
    undisturbed = run(0, checkpoint="undisturbed").stdout.strip()
    assert len(undisturbed) == 64
    assert resumed == undisturbed


@pytest.mark.parametrize("trainer", ["growing", "spherical", "progressive"])
def test_a_level_goes_on_from_any_step(mixture: Mixture, trainer: str) -> None:
    """Every state that a trainer keeps leads to the same centroids, and none of the steps before is done again."""
    engine, x = load_engine("faiss"), mixture(1500, dim=70, seed=1)
    train = resolve(TRAINERS, trainer, "trainer")
    states: list[tuple[int, Array]] = []

    class Steps:
        def __init__(self, state: tuple[int, Array] | None) -> None:
            self.state = state

        def load(self) -> tuple[int, Array] | None:
            return self.state

        def save(self, step: int, centroids: Array) -> None:
            states.append((step, centroids.copy()))

    whole = train(engine, x, 20, 4, 7, Steps(None))
    kept = [*states]
    assert [step for step, _ in kept] == list(range(1, len(kept) + 1))
    for state in kept:
        states.clear()
        np.testing.assert_array_equal(train(engine, x, 20, 4, 7, Steps(state)), whole)
        assert [step for step, _ in states] == list(range(state[0] + 1, len(kept) + 1))


def test_a_checkpoint_of_another_fit_is_refused(mixture: Mixture, tmp_path: Path) -> None:
    train, heldout = mixture(2000, seed=1), mixture(300, seed=2)
    fit(train, heldout, checkpoint_dir=tmp_path)
    with pytest.raises(PlanMismatchError, match="another options"):
        fit(train, heldout, checkpoint_dir=tmp_path, iterations=7)
    train[5, 3] += 1
    with pytest.raises(PlanMismatchError, match="another train_hash"):
        fit(train, heldout, checkpoint_dir=tmp_path)


def test_progress_reports_every_level_also_from_a_checkpoint(mixture: Mixture, tmp_path: Path) -> None:
    train, heldout = mixture(2000, seed=1), mixture(300, seed=2)
    first: list[LevelQuality] = []
    again: list[LevelQuality] = []
    fit(train, heldout, checkpoint_dir=tmp_path, progress=first.append)
    fit(train, heldout, checkpoint_dir=tmp_path, progress=again.append)
    assert [level.level for level in first] == [1, 2, 3]
    assert again == first
