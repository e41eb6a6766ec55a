"""The loss of a SONAR space: equal to transformers' networks, right for packed sentences, and it is learned from."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from m2m100 import hf_ids, m2m100_decoder, m2m100_encoder
from torch import nn

from lcm_models.sonar.batches import SonarBatch, SonarLoader
from lcm_models.sonar.config import BatchConfig, SonarConfig
from lcm_models.sonar.model import SonarModel, contrastive
from lcm_models.sonar.prepared import Prepared

TINY = SonarConfig(**SonarConfig.presets["tiny"])


@pytest.fixture
def batch(prepared: Prepared) -> SonarBatch:
    return next(iter(SonarLoader(prepared, BatchConfig(path="-", batch_tokens=200))))


def model(prepared: Prepared, **settings: object) -> SonarModel:
    torch.manual_seed(0)
    return SonarModel(TINY.model_copy(update=settings), prepared.vocab_size)


def test_the_loss_of_transformers_networks(prepared: Prepared, batch: SonarBatch) -> None:
    pytest.importorskip("transformers")
    ours = model(prepared, mse=0.7).eval()
    loss = ours(batch)
    encoder = m2m100_encoder(ours.encoder.state_dict(), 1)
    decoder = m2m100_decoder(ours.decoder.full_state(), 1)
    rows = nn.utils.rnn.pad_sequence(list(batch.source_T.split(batch.source_lengths)), batch_first=True)
    lengths = torch.tensor(batch.source_lengths)
    mask = torch.arange(rows.shape[1]) < lengths.unsqueeze(1)
    hidden = encoder(input_ids=hf_ids(rows), attention_mask=mask.long()).last_hidden_state
    emb = (hidden * mask.unsqueeze(-1)).sum(1) / lengths.unsqueeze(1)
    inputs = nn.utils.rnn.pad_sequence(list(batch.input_U.split(batch.target_lengths)), batch_first=True)
    said = decoder(input_ids=hf_ids(inputs), encoder_hidden_states=emb[batch.from_M].unsqueeze(1)).last_hidden_state
    logits = torch.cat([row[:length] for row, length in zip(said, batch.target_lengths, strict=True)])
    logits = logits @ ours.decoder.final_proj.weight.t()
    entropy = F.cross_entropy(logits, batch.target_U, reduction="sum")
    distance = F.mse_loss(emb[batch.pair_P2[:, 0]], emb[batch.pair_P2[:, 1]])
    assert float(loss.sums["cross_entropy"]) == pytest.approx(float(entropy), rel=1e-4)
    assert float(loss.total) == pytest.approx(float(entropy + 0.7 * distance * len(batch.target_U)), rel=1e-4)
    assert int(loss.num_targets) == len(batch.target_U)


def test_contrast_finds_translations_among_those_of_the_batch(prepared: Prepared, batch: SonarBatch) -> None:
    """Zero weight leaves the loss alone; lengths of vectors do not matter; all alike is chance, apart nothing."""
    plain, told = model(prepared)(batch), model(prepared, contrast=0.3)(batch)
    emb = model(prepared).encoder(batch.source_T, batch.source_lengths)
    first, second = emb[batch.pair_P2[:, 0]], emb[batch.pair_P2[:, 1]]
    score = 20 * F.cosine_similarity(first.unsqueeze(1), second.unsqueeze(0), dim=2)
    expected = -(score.log_softmax(1).diagonal() + score.log_softmax(0).diagonal()).mean() / 2
    assert "contrast" not in plain.sums
    assert float(told.sums["contrast"] / told.num_targets) == pytest.approx(float(expected), rel=1e-4)
    assert float(told.total - plain.total) == pytest.approx(float(0.3 * expected * told.num_targets), rel=1e-3)
    assert float(contrastive(3 * first, second / 2, 20)) == pytest.approx(float(expected), rel=1e-4)
    assert float(contrastive(torch.ones(8, 4), torch.ones(8, 4), 20)) == pytest.approx(math.log(8))
    assert float(contrastive(torch.eye(8), torch.eye(8), 50)) < 1e-6
    assert float(contrastive(torch.ones(0, 4), torch.ones(0, 4), 20)) == 0


def test_gradients_do_not_depend_on_the_packing(
    prepared: Prepared, batch: SonarBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of equal length on a CPU, padded rows on a GPU: here both on a CPU."""
    from lcm_data.sonar.packing import Padded
    from lcm_models.sonar import model as module

    ours = model(prepared)
    ours(batch).total.backward()
    expected = {
        name: parameter.grad.clone() for name, parameter in ours.named_parameters() if parameter.grad is not None
    }
    ours.zero_grad()
    monkeypatch.setattr(module, "_packing", lambda lengths, device, causal=False: Padded(lengths, device, causal))
    ours(batch).total.backward()
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-3, atol=1e-3), name


def test_one_embedding(prepared: Prepared) -> None:
    ours = model(prepared)
    table = ours.encoder.encoder_frontend.embed.weight
    assert ours.decoder.final_proj.weight is table
    assert ours.decoder.decoder_frontend.embed.weight is table
    assert sum(parameter is table for parameter in ours.parameters()) == 1


def test_compared_with_some_tokens_only(prepared: Prepared, batch: SonarBatch) -> None:
    """Fewer candidates give a smaller loss, all of them the exact one; scoring always takes all."""
    exact = model(prepared, sampled_softmax=0)
    some = model(prepared, sampled_softmax=200)
    every = model(prepared, sampled_softmax=100_000)
    assert float(some(batch).total) < float(exact(batch).total)
    assert float(every(batch).total) == float(exact(batch).total)
    assert float(some.eval()(batch).total) == float(exact.eval()(batch).total)


def test_rare_tokens_are_not_too_likely_for_being_compared_seldom(prepared: Prepared) -> None:
    """Where the model knows the true shares, sampled comparisons push it nowhere; without their bias they would."""
    ours = model(prepared)
    vocab = prepared.vocab_size
    share = 1 / (torch.arange(vocab) + 10.0)
    share /= share.sum()
    drift = dict.fromkeys((True, False), torch.zeros(vocab))
    for _ in range(1500):
        targets = torch.multinomial(share, 60, replacement=True)
        for is_corrected in drift:
            ours.token_share_V = share if is_corrected else None
            chosen, target, bias = ours._candidates(targets, 80)
            assert (chosen[target] == targets).all()
            logits = share[chosen].log() + (0 if bias is None else bias)
            gradient = 60 * logits.softmax(0)
            gradient.index_add_(0, target, -torch.ones(60))
            drift[is_corrected] = drift[is_corrected].index_add(0, chosen, gradient)
    rare = slice(vocab // 2, None)
    counted = 1500 * 60 * float(share[rare].sum())
    assert abs(float(drift[True][rare].sum())) < 0.03 * counted
    assert abs(float(drift[False][rare].sum())) > 0.2 * counted


def test_a_frozen_encoder_stays(prepared: Prepared, batch: SonarBatch) -> None:
    ours = model(prepared, freeze_encoder=True)
    ours(batch).total.backward()
    assert all(parameter.grad is None for parameter in ours.encoder.parameters())
    learning = [name for name, parameter in ours.named_parameters() if parameter.requires_grad]
    assert learning
    assert all(name.startswith("decoder.") and "embed" not in name for name in learning)


def test_dropout_drops_in_training_only(prepared: Prepared, batch: SonarBatch) -> None:
    ours = model(prepared, dropout=0.5)
    assert float(ours(batch).total) != float(ours(batch).total)
    ours.eval()
    assert float(ours(batch).total) == float(ours(batch).total)


def test_it_learns(prepared: Prepared) -> None:
    """After seconds the tokens of toy sentences are far likelier, and translations lie nearest to each other."""
    ours = model(prepared, mse=0.1)
    optimizer = torch.optim.AdamW(ours.parameters(), lr=5e-3)
    stream = iter(SonarLoader(prepared, BatchConfig(path="-", batch_tokens=300, noised=0)))
    first = last = 0.0
    for batch in islice(stream, 150):
        loss = ours(batch)
        loss.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        last = float(loss.mean().detach())
        first = first or last
    assert last < 0.2 * first


def test_scored_in_bfloat16_without_gradients(prepared: Prepared, batch: SonarBatch) -> None:
    """As validation does: float32 weights, autocast, and no gradients to keep."""
    ours = model(prepared).eval()
    exact = ours(batch)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = ours(batch)
    assert float(rounded.total) == pytest.approx(float(exact.total), rel=2e-2)
