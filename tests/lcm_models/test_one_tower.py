"""One-Tower: training all places of a document at once equals training each on its own."""

from __future__ import annotations

import torch
from toylcm import DIM, documents, toy_model

from lcm_models.attention import causal_rule, dense_mask
from lcm_models.model import Batch
from lcm_models.one_tower import OneTower


def test_interleaving_equals_separate_sequences() -> None:
    """Place n alone: the n clean concepts before it and the noisy one, in one plainly causal sequence."""
    model = toy_model("one-tower")
    assert isinstance(model, OneTower)
    num = 6
    x_BSD = model.scaler.normalize(Batch.of(documents(num)).x_BSD)
    noisy_BSD = torch.randn(1, num, DIM)
    level_BS = torch.tensor([[3, 99, 0, 50, 17, 80]])
    drop_BS = torch.tensor([[False, False, True, False, False, False]])
    doc_BS = torch.zeros(1, num, dtype=torch.long)
    together = model._denoise_all(x_BSD, noisy_BSD, level_BS, drop_BS, doc_BS)
    network, table = model.network, model._levels()
    for place in range(num):
        clean = 0 if drop_BS[0, place] else place
        sequence = torch.cat([x_BSD[:, :clean], noisy_BSD[:, place, None]], dim=1)
        level = torch.tensor([[0] * clean + [int(level_BS[0, place]) + 1]])
        position = torch.tensor([[*range(clean), place]])
        mask = dense_mask(causal_rule(torch.zeros(1, clean + 1)), 1, clean + 1, clean + 1, x_BSD.device)
        alone = network.postnet(network.tower(network._enter(sequence, level, table, position), mask))[:, -1]
        assert torch.allclose(alone, together[:, place], atol=1e-5)


def test_clean_is_not_the_least_noisy_level() -> None:
    """Level 0 of the schedule has a little noise; clean context has an embedding of its own."""
    model = toy_model("one-tower")
    assert isinstance(model, OneTower)
    table = model._levels()
    assert len(table) == model.schedule.num_levels + 1
    assert not torch.equal(table[0], table[1])


def test_the_noisy_concept_knows_its_level() -> None:
    model = toy_model("one-tower")
    assert isinstance(model, OneTower)
    x, doc, drop = torch.randn(1, 3, DIM), torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 3, dtype=torch.bool)
    low, high = (model._denoise_all(x, x, torch.full((1, 3), level), drop, doc) for level in (0, 99))
    assert not torch.allclose(low, high, atol=1e-3)
