"""The loss of a speech encoder: what it measures, that padding changes nothing, and that it teaches."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
import torch

from lcm_models.speech.batches import SpeechBatch, SpeechBatches, SpeechLoader
from lcm_models.speech.config import SpeechBatchConfig, SpeechConfig
from lcm_models.speech.model import SpeechModel, told_apart
from lcm_models.speech.prepared import PreparedClips
from lcm_models.speech.task import SpeechTask

TINY = SpeechConfig.presets["tiny"]


STILL = {"speed": 0, "voice": 0, "noise_share": 0, "mask_channels": 0, "mask_time": 0}


def task(prepared: PreparedClips, **model: float) -> SpeechTask:
    batches = SpeechBatchConfig(path=str(prepared.folder), batch_seconds=8, **STILL)  # type: ignore[arg-type]
    return SpeechTask(SpeechConfig(**{**TINY, "ctc": 0.0, "contrast": 0.0, **model}), batches)


def some_batch(prepared: PreparedClips) -> SpeechBatch:
    return next(iter(SpeechLoader(prepared, SpeechBatchConfig(path="-", batch_seconds=8))))


def test_a_network_that_says_the_mean_explains_nothing(prepared: PreparedClips) -> None:
    model = task(prepared).build()
    targets_ND = torch.from_numpy(np.asarray(prepared.targets_ND[~np.asarray(prepared.held_out_N)]))
    distance = (targets_ND.mean(dim=0) - targets_ND).square().mean() / model.variance
    assert float(distance) == pytest.approx(1.0, rel=1e-4)
    loss = model(some_batch(prepared))
    assert float(loss.total.detach()) == pytest.approx(float(loss.sums["unexplained"]))


@pytest.mark.parametrize("settings", [{"mse": 1.0}, {"mse": 0.0, "ctc": 1.0}, {"mse": 0.5, "ctc": 0.5}])
def test_padding_changes_nothing(prepared: PreparedClips, settings: dict[str, float]) -> None:
    batches = SpeechBatches(prepared, SpeechBatchConfig(path="-", batch_seconds=8))
    clips = np.array([0, 1, 5])
    model = task(prepared, **settings).build().double()
    together = model(batches.make(clips, None))
    alone = [model(batches.make(clips[place : place + 1], None)).total for place in range(3)]
    assert float(together.total.detach()) == pytest.approx(float(sum(alone)), rel=1e-5)
    assert float(together.num_targets) == 3


def test_spelling_costs_what_the_paths_cost(prepared: PreparedClips) -> None:
    """With an even choice at every position, the chance of a text is the number of its paths over those of all."""
    model = task(prepared, mse=0.0, ctc=1.0).build()
    assert model.speller is not None
    torch.nn.init.zeros_(model.speller.weight)
    target_BD, letters_L, num_letters_B = torch.zeros(2, 256), torch.tensor([1, 2]), torch.tensor([2, 0])
    batch = SpeechBatch(torch.randn(2, 3, 160), [3, 3], target_BD, target_BD[:0], letters_L, num_letters_B)
    num_classes = 1 + len(prepared.characters)
    # In 3 positions "ab" can be spelled aab, abb, ab-, a-b and -ab; the second clip has no transcript.
    expected = -math.log(5 / num_classes**3) / 2
    assert float(model(batch).total.detach()) == pytest.approx(expected, rel=1e-5)


def test_telling_apart_by_hand() -> None:
    """The clip points where its target does; another target lies across it, and a negative opposite."""
    across, along = torch.tensor([0.0, 3.0]), torch.tensor([2.0, 0.0])
    target_BD = torch.stack([along, across])
    found_B = told_apart(target_BD / 7, target_BD, torch.stack([-along, along, across]), scale=5.0)
    # The two last negatives are the targets themselves: what says the same is nothing to tell apart.
    assert found_B.tolist() == pytest.approx(
        [math.log1p(math.exp(-5) + math.exp(-5) + math.exp(-10)), math.log1p(3 * math.exp(-5))], rel=1e-5
    )


def test_clips_that_say_the_same_are_not_told_apart() -> None:
    target_BD = torch.ones(3, 4)
    assert told_apart(torch.randn(3, 4), target_BD, torch.ones(5, 4), scale=20.0).tolist() == [0.0] * 3


def test_every_weight_that_learns_gets_a_gradient(prepared: PreparedClips) -> None:
    model = task(prepared, ctc=0.5, contrast=0.5).build()
    model(some_batch(prepared)).total.backward()
    silent = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent
    assert sum(not p.requires_grad for p in model.parameters()) == 1  # the bias of the pooler's keys


def test_dropout_is_for_training(prepared: PreparedClips) -> None:
    model, batch = task(prepared, dropout=0.5).build(), some_batch(prepared)
    model.train()
    assert float(model(batch).total) != float(model(batch).total)
    model.eval()
    assert float(model(batch).total) == float(model(batch).total)


def test_it_learns(prepared: PreparedClips) -> None:
    torch.manual_seed(0)
    job = task(prepared, ctc=0.3, contrast=0.1)
    model = job.build()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.9, 0.98))
    for batch in islice(iter(job.loader(0, 1)), 150):
        loss = model(batch)
        optimizer.zero_grad()
        (loss.total / loss.num_targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.inference_mode():
        found = [model.eval()(batch) for batch in job.validation()]
    unexplained = sum(float(loss.sums["unexplained"]) for loss in found) / sum(float(x.num_targets) for x in found)
    assert unexplained < 0.9  # of sentences it never heard
    assert isinstance(model, SpeechModel)
