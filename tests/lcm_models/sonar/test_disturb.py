"""Disturbed vectors: the noise of the paper's formula, sums of the first codes, and training on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lcm_data.errors import UsageError
from lcm_data.normalize import Normalizer
from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_models.sonar.batches import SonarLoader
from lcm_models.sonar.config import BatchConfig, SonarConfig
from lcm_models.sonar.disturb import Disturbance
from lcm_models.sonar.prepared import Prepared
from lcm_models.sonar.task import SonarTask

DIM, LEVELS = 64, 6


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    return 3 + 0.5 * torch.randn(2000, DIM, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def normalizer(vectors: torch.Tensor) -> Normalizer:
    return Normalizer.fit(vectors.numpy(), method="standard")


@pytest.fixture(scope="module")
def codebook() -> Codebook:
    tables = np.random.default_rng(0).standard_normal((LEVELS, 8, DIM)).astype(np.float32)
    return Codebook.build(tables, Provenance(encoder="toy"))


def config(**settings: float) -> SonarConfig:
    return SonarConfig(**{**SonarConfig.presets["tiny"], **settings})


def test_noise_of_every_level(vectors: torch.Tensor, normalizer: Normalizer) -> None:
    """In normalised space a noised vector has still variance 1, and a mean cosine of E[sqrt(1 - a)]."""
    torch.manual_seed(0)
    noised = Disturbance(config(noise=0.8), normalizer, None).noised(vectors)
    before, after = (normalizer.normalize(x.numpy()) for x in (vectors, noised))
    assert after.std() == pytest.approx(1, abs=0.02)
    cosines = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    levels = np.linspace(0, 0.8, 1001)
    assert cosines.mean() == pytest.approx(np.sqrt(1 - levels).mean(), abs=0.02)


def test_shares(vectors: torch.Tensor, normalizer: Normalizer, codebook: Codebook) -> None:
    torch.manual_seed(0)
    disturb = Disturbance(config(noise=0.5, noise_share=0.5, quantized_share=0.2), normalizer, codebook)
    changed = (disturb(vectors) != vectors).any(dim=1).float().mean()
    assert float(changed) == pytest.approx(0.2 + 0.8 * 0.5, abs=0.05)


def test_codes_of_all_or_of_two_thirds_of_the_levels(vectors: torch.Tensor, codebook: Codebook) -> None:
    torch.manual_seed(0)
    found = Disturbance(config(quantized_share=1, partial_share=0.5), None, codebook).quantized(vectors)
    codes, _ = codebook.encode(vectors.numpy())
    sums = [torch.from_numpy(codebook.decode(codes, levels)) for levels in range(1, LEVELS + 1)]
    matches = torch.stack([(found - each).abs().amax(dim=1) < 1e-4 for each in sums], dim=1)
    assert bool(matches.any(dim=1).all())
    shares = matches.float().mean(dim=0).tolist()
    assert shares[:3] == [0, 0, 0]
    assert shares[3:5] == pytest.approx([1 / 6, 1 / 6], abs=0.04)


def test_the_decoder_learns_from_disturbed_vectors_only_in_training(
    prepared: Prepared, normalizer: Normalizer, tmp_path: Path
) -> None:
    normalizer.save(tmp_path / "normalizer.safetensors")
    batches = BatchConfig(path=str(prepared.folder), batch_tokens=200)
    task = SonarTask(config(noise=0.5, freeze_encoder=True), batches, str(tmp_path / "normalizer.safetensors"))
    model, batch = task.build(), next(iter(SonarLoader(prepared, batches)))
    assert float(model(batch).total) != float(model(batch).total)
    model.eval()
    assert float(model(batch).total) == float(model(batch).total)
    assert task.identity()["model"]["normalizer"] == normalizer.fingerprint


def test_what_is_missing(prepared: Prepared, normalizer: Normalizer, tmp_path: Path) -> None:
    batches = BatchConfig(path=str(prepared.folder))
    with pytest.raises(UsageError, match=r"set model\.normalizer"):
        SonarTask(config(noise=0.5), batches).disturbance()
    with pytest.raises(UsageError, match=r"set model\.codebook"):
        SonarTask(config(quantized_share=0.5), batches).disturbance()
    normalizer.save(tmp_path / "n.safetensors")
    with pytest.raises(UsageError, match="for 64 dimensions, the space has 128"):
        SonarTask(config(noise=0.5, width=128), batches, str(tmp_path / "n.safetensors")).disturbance()
