"""What every variant promises, checked for each entry of the table: a new one is tested by being added."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toylcm import (
    DENOISING,
    DIM,
    GENERATIVE,
    QUANTIZED,
    documents,
    packed,
    quick,
    toy_model,
    with_codes,
)

from lcm_data.errors import UsageError
from lcm_models import LCMS, build_model
from lcm_models.diffusion.model import DiffusionModel
from lcm_models.interleaved import InterleavedTower
from lcm_models.model import Batch, ConceptModel, Draws

variants = pytest.mark.parametrize("variant", LCMS)
PARTS = documents(4, 1, 6, 3)


def given(batch: Batch, model: ConceptModel) -> Batch:
    return with_codes(batch) if model.needs_codes else batch


def draws_for(model: ConceptModel, batch: Batch, seed: int = 0) -> Draws | None:
    return model.draw(batch, torch.Generator().manual_seed(seed))


def cut(draws: Draws | None, row: int, columns: slice) -> Draws | None:
    """The part of some draws that belongs to one document."""
    return None if draws is None else Draws(*(None if d is None else d[row : row + 1, columns] for d in draws))  # type: ignore[arg-type]


def loss_at_each(model: ConceptModel, batch: Batch, draws: Draws | None) -> list[float]:
    """Loss of every place of the first row."""
    num = batch.doc_BS.shape[1]
    one_hot = torch.eye(num, dtype=torch.bool)
    with torch.no_grad():
        return [
            float(model(batch._replace(target_BS=one_hot[n].expand_as(batch.doc_BS)), draws).total) for n in range(num)
        ]


# -- documents do not see each other, nor the future -------------------------------------------------------------------


@variants
def test_packed_documents_are_as_if_alone(variant: str) -> None:
    model = toy_model(variant)
    row = given(packed(PARTS), model)
    draws = draws_for(model, row)
    together, begin = model(row, draws), 0
    total, targets = 0.0, 0.0
    for part in PARTS:
        columns = slice(begin, begin + len(part))
        alone = model(given(Batch.of([part]), model), cut(draws, 0, columns))
        total, targets, begin = total + float(alone.total.detach()), targets + float(alone.num_targets), columns.stop
    assert float(together.total.detach()) == pytest.approx(total, rel=1e-5)
    assert float(together.num_targets) == targets == (14 if variant != "base" else 10)


@variants
def test_predictions_of_packed_documents_are_as_if_alone(variant: str) -> None:
    model = toy_model(variant)
    row = packed(PARTS)
    together, begin = model.predict(row, quick(model), seeds=[3]), 0
    noiseless = variant == "base"
    for part in PARTS[:1] if not noiseless else PARTS:  # the first has the same noise alone and packed
        alone = model.predict(Batch.of([part]), quick(model), seeds=[3])
        assert torch.allclose(together[0, begin : begin + len(part)], alone[0], atol=1e-6)
        begin += len(part)
    assert not together[0, -2:].any()  # padding


@variants
def test_the_future_changes_nothing(variant: str) -> None:
    model = toy_model(variant)
    batch = given(Batch.of(documents(7)), model)
    changed = batch.x_BSD.clone()
    changed[0, 4] += 0.05
    other = batch._replace(x_BSD=changed)
    before, after = (model.predict(b, quick(model)) for b in (batch, other))
    assert torch.equal(before[0, :5], after[0, :5])
    assert (before[0, 5:] != after[0, 5:]).any()

    draws = draws_for(model, batch)
    if draws is not None:  # all places see their context
        draws = draws._replace(drop_BS=torch.zeros_like(draws.drop_BS))
    losses, others = (loss_at_each(model, b, draws) for b in (batch, other))
    assert losses[:4] == others[:4]
    assert all(one != two for one, two in zip(losses[5:], others[5:], strict=True))


@variants
def test_padding_and_prompts_do_not_count(variant: str) -> None:
    model = toy_model(variant)
    batch = given(Batch.of(documents(5, 3)), model)
    draws = draws_for(model, batch)
    loss = model(batch, draws)
    assert float(loss.num_targets) == (8 if variant != "base" else 6)
    garbage = batch.x_BSD.clone()
    garbage[1, 3:] = 7.0
    assert torch.equal(model(batch._replace(x_BSD=garbage), draws).total, loss.total)
    answers = torch.tensor([[False, False, True, True, True], [False, True, True, True, True]])
    assert float(model(batch._replace(target_BS=answers), draws).num_targets) == 5
    nothing = model(batch._replace(target_BS=torch.zeros_like(answers)), draws)
    assert not torch.stack([nothing.num_targets, nothing.total, nothing.mean()]).any()


# -- one concept at a time ---------------------------------------------------------------------------------------------


@variants
def test_step_by_step_is_as_all_at_once(variant: str) -> None:
    """Concepts read one by one through the caches, against all places in one pass, with the same noise."""
    model = toy_model(variant)
    batch, settings = Batch.of(documents(7, 7)), quick(model)
    first = model.min_context
    expected = model.predict(batch, settings, seeds=[5, 6])
    state = model.start([row[:first] for row in batch.x_BSD], seeds=[5, 6])
    for place in range(first, 7):
        found = model.next_concepts(state, settings)
        assert torch.allclose(found, expected[:, place], atol=1e-5 * 0.01)  # concepts are about 0.01 in size
        model.extend(state, batch.x_BSD[:, place])


@pytest.mark.parametrize("variant", DENOISING)
def test_sampling_networks_are_those_of_training(variant: str) -> None:
    """The network's output in the training pass and through the caches, for the same noisy concepts."""
    model = toy_model(variant)
    assert isinstance(model, DiffusionModel)
    batch = Batch.of(documents(6))
    x_BSD = model.scaler.normalize(batch.x_BSD)
    noisy_BSD, level_BS = torch.randn(1, 6, DIM), torch.full((1, 6), 42)
    drop_BS = torch.tensor([[False, True, False, False, True, False]])
    trained = model._denoise_all(x_BSD, noisy_BSD, level_BS, drop_BS, batch.doc_BS)
    state = model.start([batch.x_BSD[0, :0]])
    for place in range(6):
        allowed_BQS = torch.full((1, 1, place), not drop_BS[0, place])
        with torch.no_grad():
            found = model._denoise(state, noisy_BSD[:, place, None], 42, allowed_BQS, torch.tensor([[place]]))
        assert torch.allclose(found[:, 0], trained[:, place], atol=1e-5)
        model.extend(state, batch.x_BSD[:, place])


@pytest.mark.parametrize("variant", QUANTIZED)
def test_completing_networks_are_those_of_training(variant: str) -> None:
    model = toy_model(variant)
    network: InterleavedTower = model.network  # type: ignore[assignment]
    batch, table = Batch.of(documents(6)), model.embed_level.weight  # type: ignore[union-attr]
    x_BSD, begun_BSD = model.scaler.normalize(batch.x_BSD), torch.randn(1, 6, DIM)
    level_BS, drop_BS = torch.full((1, 6), 2), torch.zeros(1, 6, dtype=torch.bool)
    trained = network(x_BSD, begun_BSD, level_BS, table, drop_BS, batch.doc_BS)
    state = model.start([batch.x_BSD[0, :4]])
    with torch.no_grad():
        allowed = torch.ones(1, 1, 4, dtype=torch.bool)
        found = network.complete(state.context, begun_BSD[:, 4:5], 2, table, allowed, torch.tensor([[4]]))
    assert torch.allclose(found[:, 0], trained[:, 4], atol=1e-5)


def generated(model: ConceptModel, prefixes: list[Tensor], seeds: list[int], steps: int = 4) -> Tensor:
    state = model.start(prefixes, seeds)
    return torch.stack([model.step(state, quick(model)) for _ in range(steps)], dim=1)


@variants
def test_a_request_does_not_depend_on_its_batch(variant: str) -> None:
    model, prefixes = toy_model(variant), documents(5, 2, 9)
    together = generated(model, prefixes, [11, 12, 13])
    for row, (prefix, seed) in enumerate(zip(prefixes, [11, 12, 13], strict=True)):
        assert torch.allclose(generated(model, [prefix], [seed])[0], together[row], atol=1e-6)
    if variant != "base":
        assert not torch.allclose(generated(model, prefixes[:1], [99])[0], together[0], atol=1e-3)


@variants
def test_finished_rows_leave(variant: str) -> None:
    model, prefixes = toy_model(variant), documents(3, 6, 2)
    expected = generated(model, prefixes, [1, 2, 3])
    state = model.start(prefixes, [1, 2, 3])
    for _ in range(2):
        model.step(state, quick(model))
    state.select([2, 0])
    assert (state.num_rows, state.lengths) == (2, [4, 5])
    for number in (2, 3):
        assert torch.allclose(model.step(state, quick(model)), expected[[2, 0], number], atol=1e-6)


@pytest.mark.parametrize("variant", GENERATIVE)
def test_documents_may_begin_with_nothing(variant: str) -> None:
    model = toy_model(variant)
    found = generated(model, [torch.empty(0, DIM), documents(2)[0]], [1, 2])
    assert torch.allclose(generated(model, [torch.empty(0, DIM)], [1])[0], found[0], atol=1e-6)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("variant", ["two-tower"])
def test_no_context_is_the_empty_context(variant: str) -> None:
    """A dropped context, guidance 0 and an empty prefix are the same thing where positions do not matter."""
    model, (prefix,) = toy_model(variant), documents(5)
    ignoring = quick(model, guidance=0.0, rescale=0.0)
    plain = quick(model, guidance=1.0)
    with_prefix = model.next_concepts(model.start([prefix], [7]), ignoring)
    without = model.next_concepts(model.start([prefix[:0]], [7]), plain)
    assert torch.allclose(with_prefix, without, atol=1e-5)
    assert not torch.allclose(model.next_concepts(model.start([prefix], [7]), plain), without, atol=1e-4)


@pytest.mark.parametrize("variant", GENERATIVE)
def test_dropped_places_ignore_the_context(variant: str) -> None:
    model = toy_model(variant)
    batch = given(Batch.of(documents(5)), model)
    draws = draws_for(model, batch)
    assert draws is not None
    everywhere = draws._replace(drop_BS=torch.ones_like(draws.drop_BS))
    changed = batch.x_BSD.clone()
    changed[0, :3] += 0.03
    other = batch._replace(x_BSD=changed)
    assert loss_at_each(model, batch, everywhere)[3:] == loss_at_each(model, other, everywhere)[3:]
    nowhere = draws._replace(drop_BS=torch.zeros_like(draws.drop_BS))
    assert loss_at_each(model, batch, nowhere)[3:] != loss_at_each(model, other, nowhere)[3:]


@variants
def test_guidance_one_needs_no_second_pass(variant: str) -> None:
    """g = 1 is no guidance, and close to it little changes."""
    if variant == "base":
        assert "guidance" not in toy_model(variant).sampling_type.model_fields
        return
    model, (prefix,) = toy_model(variant), documents(5)
    exact: dict[str, Any] = {"rescale": 0.0} if variant in DENOISING else {"temperature": 0.0}
    one, near = (
        model.next_concepts(model.start([prefix], [7]), quick(model, guidance=g, **exact)) for g in (1.0, 1.0 + 1e-6)
    )
    assert torch.allclose(one, near, atol=1e-5)


# -- training --------------------------------------------------------------------------------------------------------


@variants
def test_every_weight_learns(variant: str) -> None:
    """No unused parameter, which distributed training would stumble over; frozen ones are those without effect."""
    model = toy_model(variant).train()
    batch = given(Batch.of(documents(5, 4)), model)
    draws = draws_for(model, batch)
    model(batch, draws).mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    frozen = {
        name.split(".")[-3] + "." + name.split(".")[-2] for name, p in model.named_parameters() if not p.requires_grad
    }
    assert frozen == ({"self_attention.q_proj", "self_attention.k_proj"} if variant == "two-tower" else set())


@variants
def test_recomputed_activations_give_the_same_gradients(variant: str) -> None:
    grads = []
    for recompute in (False, True):
        model = toy_model(variant, activation_checkpointing=recompute, dropout=0.1).train()
        batch = given(Batch.of(documents(5, 4)), model)
        draws = draws_for(model, batch)
        torch.manual_seed(3)
        model(batch, draws).mean().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(*grads, strict=True))


@variants
def test_bfloat16(variant: str) -> None:
    """Autocast trains close to float32; weights in bfloat16 sample, with exact tables."""
    model = toy_model(variant)
    batch = given(Batch.of(documents(5, 4)), model)
    draws = draws_for(model, batch)
    exact = model(batch, draws)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(batch, draws)
        assert torch.isfinite(model.step(model.start(documents(3)), quick(model))).all()
    assert mixed.total.dtype == torch.float32
    assert float(mixed.total.detach()) == pytest.approx(float(exact.total.detach()), rel=0.05)
    mixed.total.backward()
    half = model.to(torch.bfloat16)
    assert half.scaler.scale_D.dtype == torch.float32
    assert float(half(batch, draws).total.detach()) == pytest.approx(float(exact.total.detach()), rel=0.05)
    found = half.step(half.start(documents(3)), quick(model))
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()


@pytest.mark.slow
@variants
def test_compiles_as_one_graph(variant: str) -> None:
    model = toy_model(variant).train()
    batch = given(packed(PARTS), model)
    draws = draws_for(model, batch)
    torch._dynamo.reset()  # it counts compilations of a function over all tests
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(batch, draws).total, model(batch, draws).total, rtol=1e-6)
    assert torch.isfinite(compiled(batch).total)


@variants
def test_a_model_made_without_memory_is_filled_later(variant: str) -> None:
    """Made on the meta device, materialised, initialised: tables, zeros and spreads are as in one made at once."""
    small: dict[str, Any] = {"concept_dim": DIM, "width": 32, "num_heads": 2}
    torch.manual_seed(0)
    direct = build_model(variant, "tiny", small)
    with torch.device("meta"):
        later = build_model(variant, "tiny", small)
    later.to_empty(device="cpu")
    for tensor in (*later.parameters(), *later.buffers()):
        tensor.data.fill_(float("nan"))
    later.init_weights()
    for (name, one), (_, two) in zip(direct.named_parameters(), later.named_parameters(), strict=True):
        assert two.mean().item() == pytest.approx(one.mean().item(), abs=0.1), name
        assert two.float().std().item() == pytest.approx(one.float().std().item(), abs=0.1), name
    for (name, one), (_, two) in zip(direct.named_buffers(), later.named_buffers(), strict=True):
        assert torch.equal(one, two) or "tables" in name, name


@variants
def test_weights_travel_with_the_normaliser(variant: str) -> None:
    model, copy = toy_model(variant), toy_model(variant, shake=0.2)
    copy.scaler.reset_parameters()
    copy.load_state_dict(model.state_dict())
    batch = given(Batch.of(documents(4)), model)
    draws = draws_for(model, batch)
    assert torch.equal(copy(batch, draws).total, model(batch, draws).total)
    expected = {"scaler.center_D", "scaler.scale_D", "scaler.clip_min_D", "scaler.clip_max_D"}
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()} | expected


# -- what is refused ---------------------------------------------------------------------------------------------------


@variants
def test_other_widths_and_lengths_are_refused(variant: str) -> None:
    model = toy_model(variant, max_len=8)
    with pytest.raises(UsageError, match="concepts of 17 dimensions given to a model for 16: set concept_dim"):
        model(Batch(torch.zeros(1, 3, 17), torch.zeros(1, 3, dtype=torch.long)))
    with pytest.raises(UsageError, match="9 concepts in a row, the model takes 8"):
        model(given(Batch.of(documents(9)), model))
    with pytest.raises(UsageError, match="of 17 dimensions"):
        model.start([torch.zeros(2, 17)])
    state = model.start(documents(7))
    model.step(state, quick(model))
    with pytest.raises(UsageError, match="9 concepts in a row"):
        model.step(state, quick(model))


def test_a_regression_needs_context() -> None:
    with pytest.raises(UsageError, match="at least 1 concept of context: give a prefix"):
        toy_model("base").start([torch.zeros(0, DIM)])


@variants
def test_seeds_must_match(variant: str) -> None:
    with pytest.raises(UsageError, match="2 prefixes with 1 seeds"):
        toy_model(variant).start(documents(2, 3), [1])


def test_batches_move_and_pad() -> None:
    batch = with_codes(Batch.of(documents(3, 1)))
    assert batch.doc_BS.tolist() == [[0, 0, 0], [0, -1, -1]]
    assert not batch.x_BSD[1, 1:].any()
    moved = batch.to("meta")
    assert moved.codes_BSL is not None
    assert (moved.x_BSD.device.type, moved.codes_BSL.device.type, moved.target_BS) == ("meta", "meta", None)
