"""Generation: documents do not feel each other, end when they should, and take each other's seats."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lcm_data.errors import UsageError
from lcm_models import LCMS, build_model
from lcm_models.config import Frozen
from lcm_models.generate import Request, StopRules, generate
from lcm_models.generate.seats import join
from lcm_models.model import ConceptModel

DIM, MAX_LEN = 12, 40
FREE = StopRules(max_new=5, repetition=None)


@pytest.fixture(params=sorted(LCMS))
def model(request: pytest.FixtureRequest) -> ConceptModel:
    """Each variant with random weights that make its guesses depend on what it sees."""
    return make(request.param)


def make(variant: str) -> ConceptModel:
    torch.manual_seed(1)
    sizes = {"concept_dim": DIM, "width": 16, "num_heads": 2, "max_len": MAX_LEN}
    quant = {"num_levels": 3, "num_units": 8} if variant.startswith("quant") else {}
    made = build_model(variant, "tiny", {**sizes, **quant}).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if quant:
        made.centroids.tables_LVD = torch.randn(3, 8, DIM)  # type: ignore[union-attr]
        made.centroids.loaded = True  # type: ignore[union-attr]
    return made


def quick(model: ConceptModel) -> Frozen:
    """Sampling in few steps."""
    return model.sampling_type(**({"steps": 4} if "steps" in model.sampling_type.model_fields else {}))


def requests(model: ConceptModel, lengths: tuple[int, ...] = (1, 6, 3, 0, MAX_LEN - 2, 2)) -> list[Request]:
    generator = torch.Generator().manual_seed(0)
    return [
        Request(torch.randn(max(length, model.min_context), DIM, generator=generator), seed=10 + number)
        for number, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("max_rows", [2, 64])
def test_a_document_does_not_feel_the_others(model: ConceptModel, max_rows: int) -> None:
    """Also where seats are refilled, and documents end at different times."""
    asked, sampling = requests(model), quick(model)
    alone = [next(generate(model, [request], FREE, sampling)) for request in asked]
    together = list(generate(model, asked, FREE, sampling, max_rows=max_rows))
    assert {each.stop for each in together} == {"max_new", "max_len"}
    assert [each.stop for each in together] == [each.stop for each in alone]
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.x_ND, other.x_ND, atol=1e-4, rtol=1e-4)


def test_it_is_what_the_model_says_step_by_step(model: ConceptModel) -> None:
    asked = requests(model)[1]
    state = model.start([asked.prefix_SD], [asked.seed])
    expected = [model.step(state, quick(model))[0] for _ in range(5)]
    (made,) = generate(model, [asked], FREE, quick(model))
    torch.testing.assert_close(made.x_ND, torch.stack(expected))
    assert made.stop == "max_new"


def test_joined_states_are_the_state_of_all(model: ConceptModel) -> None:
    """And no column is kept that none of them needs."""
    long, short, fresh = requests(model, (9, 3, 5))
    sampling = quick(model)
    state = model.start([long.prefix_SD, short.prefix_SD], [1, 2])
    model.step(state, sampling)
    model.step(state, sampling)
    state.select([1])
    added = torch.randn(1, DIM)
    model.extend(state, added)
    joined = join(state, model.start([fresh.prefix_SD], [3]))
    assert joined.lengths == [6, 5]
    assert joined.doc_BS.shape[1] == 6
    alone = model.start([fresh.prefix_SD], [3])
    found_BD, expected_BD = model.next_concepts(joined, sampling), model.next_concepts(alone, sampling)
    torch.testing.assert_close(found_BD[1:], expected_BD, atol=1e-5, rtol=1e-4)


def test_seeds_decide_what_is_drawn() -> None:
    model = make("two-tower")
    prefix_SD = torch.randn(3, DIM)
    one, again, other = generate(model, [Request(prefix_SD, seed) for seed in (5, 5, 6)], FREE, quick(model))
    assert torch.equal(one.x_ND, again.x_ND)
    assert not torch.allclose(one.x_ND, other.x_ND, atol=1e-3)


def test_requests_are_fetched_when_there_is_a_seat() -> None:
    model = make("base")
    fetched = 0

    def endless() -> Iterator[Request]:
        nonlocal fetched
        while True:
            fetched += 1
            yield Request(torch.randn(2, DIM), fetched)

    found = generate(model, endless(), FREE, max_rows=3)
    for _ in range(7):
        next(found)
    assert fetched <= 12
    assert list(generate(model, [], FREE)) == []


def test_a_document_ends_where_the_model_ends() -> None:
    model = make("base")
    (made,) = generate(model, [Request(torch.randn(MAX_LEN - 2, DIM), 0)], FREE)
    assert (made.stop, len(made.x_ND)) == ("max_len", 2)
    with pytest.raises(UsageError, match=f"a prefix of {MAX_LEN} concepts leaves no room"):
        list(generate(model, [Request(torch.randn(MAX_LEN, DIM), 0)], FREE))
    with pytest.raises(UsageError, match="at least 1 concept"):
        list(generate(model, [Request(torch.zeros(0, DIM), 0)], FREE))


# --- stop rules ------------------------------------------------------------------------------------------------------

UP, RIGHT, SLANT = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])


def reason(
    rules: StopRules, x_D: Tensor, previous_D: Tensor | None, count: int = 3, end_D: Tensor | None = UP
) -> object:
    before = torch.zeros(2) if previous_D is None else previous_D
    (found,) = rules.reasons(x_D[None], before[None], [previous_D is not None], [count], end_D)
    return found


def test_thresholds_are_cosines() -> None:
    """SLANT has the cosine 0.8 with UP and 0.6 with RIGHT."""
    assert reason(StopRules(end_of_text=0.79), SLANT, RIGHT) == "end_of_text"
    assert reason(StopRules(end_of_text=0.81), SLANT, RIGHT) is None
    assert reason(StopRules(repetition=0.59), SLANT, RIGHT) == "repetition"
    assert reason(StopRules(repetition=0.61), SLANT, RIGHT) is None
    assert reason(StopRules(end_of_text=0.79, repetition=0.1), SLANT, RIGHT) == "end_of_text"


def test_rules_can_be_missing() -> None:
    assert reason(StopRules(end_of_text=None), UP, RIGHT) is None
    assert reason(StopRules(), UP, RIGHT, end_D=None) is None
    assert reason(StopRules(repetition=None), RIGHT, RIGHT) is None
    assert reason(StopRules(repetition=-1), RIGHT, None) is None  # the first concept repeats nothing
    assert reason(StopRules(min_new=4), UP, UP) is None
    assert reason(StopRules(min_new=3), UP, UP) == "end_of_text"


def test_what_is_not_finite_ends_a_document() -> None:
    assert reason(StopRules(min_new=9), torch.tensor([torch.nan, 0.0]), RIGHT) == "not_finite"


def test_the_concept_that_ends_a_document_is_not_part_of_it() -> None:
    model = make("quant-d")
    asked = next(each for each in requests(model) if each.seed == 12)
    (free,) = generate(model, [asked], FREE)
    end_D = free.x_ND[2]
    rules = StopRules(max_new=5, repetition=None, end_of_text=0.9999)
    (made,) = generate(model, [asked], rules, None, end_D)
    first = next(n for n, x_D in enumerate(free.x_ND) if torch.equal(x_D, end_D))
    assert (made.stop, len(made.x_ND)) == ("end_of_text", first)
    assert torch.equal(made.x_ND, free.x_ND[:first])
    (at_once,) = generate(model, [asked], StopRules(repetition=-1, end_of_text=None))
    assert (at_once.stop, at_once.x_ND.shape) == ("repetition", (0, DIM))
