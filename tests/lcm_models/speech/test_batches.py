"""Batches of clips: their size, what an epoch holds, resuming, several processes, and what varies a clip."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcm_models.speech.augment import mask, vary
from lcm_models.speech.batches import SpeechBatch, SpeechBatches, SpeechLoader, cut
from lcm_models.speech.config import SpeechBatchConfig
from lcm_models.speech.prepared import PreparedClips


def config(**settings: object) -> SpeechBatchConfig:
    return SpeechBatchConfig(**{"path": "-", "batch_seconds": 6, **settings})  # type: ignore[arg-type]


def same(first: SpeechBatch, second: SpeechBatch) -> bool:
    return first.lengths == second.lengths and all(
        torch.equal(getattr(first, name), getattr(second, name)) for name in ("features_BSF", "negative_ND")
    )


def test_an_epoch_holds_what_is_learned_and_nothing_held_out(prepared: PreparedClips) -> None:
    clips = np.concatenate(SpeechBatches(prepared, config(temperature=1)).epoch(0))
    assert sorted(clips) == np.flatnonzero(~prepared.held_out_N).tolist()
    shown = sum(len(batch.lengths) for batch in SpeechBatches(prepared, config()).held_out())
    assert shown == prepared.held_out_N.sum()


def test_what_a_batch_holds(prepared: PreparedClips) -> None:
    batches = SpeechBatches(prepared, config())
    for clips_B in batches.epoch(0)[:3]:
        batch = batches.make(clips_B, None)
        assert batch.features_BSF.shape == (len(clips_B), max(batch.lengths), 160)
        assert max(batch.lengths) * len(clips_B) <= 6 * 50
        assert np.array_equal(batch.target_BD.numpy(), prepared.targets_ND[clips_B])
        spelled = [prepared.spelling(clip) for clip in clips_B.tolist()]
        assert batch.letters_L.tolist() == np.concatenate(spelled).tolist()
        assert batch.num_letters_B.tolist() == list(map(len, spelled))
        first = batch.features_BSF[0, : batch.lengths[0]].reshape(-1, 80)
        assert torch.allclose(first.mean(dim=0), torch.zeros(80), atol=0.1)


@pytest.mark.parametrize("wanted", [0, 7, 10**6])
def test_negatives_are_targets_to_learn_each_once(prepared: PreparedClips, wanted: int) -> None:
    batches = SpeechBatches(prepared, config(negatives=wanted))
    learned = [vector.tobytes() for vector in np.asarray(prepared.targets_ND)[~np.asarray(prepared.held_out_N)]]
    drawn = [batches.make(np.array([0]), rng).negative_ND for rng in (None, np.random.default_rng(1))]
    for negative_ND in drawn:
        assert negative_ND.shape == (min(wanted, len(learned)), prepared.dim)
        rest = list(learned)
        for vector in negative_ND.numpy():
            rest.remove(vector.tobytes())
    assert wanted != 7 or not torch.equal(*drawn)


def test_a_loader_goes_on_where_it_was(prepared: PreparedClips) -> None:
    loader = SpeechLoader(prepared, config())
    stream = iter(loader)
    for _ in range(9):
        next(stream)
    state = loader.state_dict()
    again = SpeechLoader(prepared, config())
    again.load_state_dict(state)
    assert all(same(a, b) for a, b in islice(zip(stream, again, strict=False), 9))


def test_two_processes_share_out_what_one_reads(prepared: PreparedClips) -> None:
    whole = list(islice(iter(SpeechLoader(prepared, config())), 8))
    shares = [iter(SpeechLoader(prepared, config(), rank, 2)) for rank in range(2)]
    assert all(same(batch, next(shares[number % 2])) for number, batch in enumerate(whole))


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=60), st.integers(100, 4000))
def test_cut(lengths: list[int], budget: int) -> None:
    clips_N, lengths_N = np.arange(len(lengths)), np.array(lengths)
    parts = cut(clips_N, lengths_N, budget)
    assert np.array_equal(np.concatenate(parts), clips_N)
    for part in parts:
        assert len(part) == 1 or max(lengths_N[part]) * len(part) <= budget
    for part, following in pairwise(parts):  # none could have been longer
        with_next = [*part, following[0]]
        assert max(lengths_N[with_next]) * len(with_next) > budget


BANK = torch.randn(200, 80, generator=torch.Generator().manual_seed(0)) * 2 + 8
STILL = {"speed": 0, "voice": 0, "noise_share": 0, "mask_channels": 0, "mask_time": 0}


def test_nothing_varies_if_nothing_shall() -> None:
    rng = np.random.default_rng(0)
    assert torch.equal(mask(vary(BANK, config(**STILL), rng), config(**STILL), rng), BANK)


def test_speed_changes_the_length_and_little_else() -> None:
    settings = config(**{**STILL, "speed": 0.2})
    lengths = {len(vary(BANK, settings, np.random.default_rng(seed))) for seed in range(50)}
    assert 160 <= min(lengths) < 185
    assert 220 < max(lengths) <= 251
    slope_FC = torch.linspace(0, 1, 200).unsqueeze(1).expand(200, 80)
    varied = vary(slope_FC, settings, np.random.default_rng(1))
    assert torch.allclose(varied[:, 0], torch.linspace(0, 1, len(varied)), atol=1e-5)


def test_a_higher_voice_moves_energy_up() -> None:
    bank_FC = torch.zeros(10, 80)
    bank_FC[:, 40] = 9.0
    peaks = [
        int(vary(bank_FC, config(**{**STILL, "voice": 0.2}), np.random.default_rng(seed))[0].argmax())
        for seed in range(40)
    ]
    assert 32 <= min(peaks) < 37
    assert 43 < max(peaks) <= 48


def test_noise_adds_energy() -> None:
    for seed in range(20):
        noisy = vary(BANK, config(**{**STILL, "noise_share": 1}), np.random.default_rng(seed))
        assert (noisy >= BANK - 1e-5).all()
        added = (noisy.exp() - BANK.exp()).mean().log() - BANK.exp().mean().log()
        assert -7.5 < float(added) < 0.6  # 30 to 0 dB below


@pytest.mark.parametrize(("name", "value"), [("mask_channels", 20), ("mask_time", 0.2)])
def test_masks_leave_out(name: str, value: float) -> None:
    left_out = [
        float((mask(BANK, config(**{**STILL, name: value}), np.random.default_rng(seed)) == 0).float().mean())
        for seed in range(50)
    ]
    assert 0.3 < max(left_out) <= 0.5 or name == "mask_time"
    assert 0.1 < sum(left_out) / 50 < 0.3
