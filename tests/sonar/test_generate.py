from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data.errors import UnknownNameError, UsageError
from lcm_data.sonar.config import TextDecoderConfig
from lcm_data.sonar.decoder_layout import EMBED
from lcm_data.sonar.generate import _LOOK_EVERY, generate, stream
from lcm_data.sonar.random_model import random_decoder_state
from lcm_data.sonar.sampling import uniforms
from lcm_data.sonar.scores import _LOGITS_AT_ONCE, likeliest, log_probs
from lcm_data.sonar.settings import Generation, Hypothesis
from lcm_data.sonar.text_decoder import TextDecoder

LANG, EOS = 55, 3
CONFIG = TextDecoderConfig(model_dim=16, num_layers=2, num_heads=2, ffn_dim=32, vocab_size=60, max_tokens=24)


@pytest.fixture(scope="module")
def decoder() -> TextDecoder:
    """A random decoder that ends some sentences early."""
    network = TextDecoder(CONFIG)
    state = random_decoder_state(CONFIG, 5)
    network.load_state_dict(
        {name: tensor for name, tensor in state.items() if name in network.state_dict()}, strict=False
    )
    eos = state[EMBED][EOS]
    network.decoder.layer_norm.bias.data = 6 * eos / eos.square().sum()
    return network.requires_grad_(False).eval()


def vectors(num: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(num, 16, generator=torch.Generator().manual_seed(seed))


def plain_log_probs(decoder: TextDecoder, emb: torch.Tensor, ids: list[int], how: Generation) -> torch.Tensor:
    with torch.inference_mode():
        logits = decoder(emb[None], torch.tensor([ids]))[0, -1]
    return torch.log_softmax(logits / how.temperature, -1)


def allowed(lprobs: torch.Tensor, how: Generation, length: int, limit: int) -> torch.Tensor:
    lprobs = lprobs.clone()
    if length == limit - 1:
        keep = lprobs[EOS].clone()
        lprobs[:] = -math.inf
        lprobs[EOS] = keep
        return lprobs
    lprobs[0] = -math.inf
    lprobs[1] -= how.unk_penalty
    if length - 2 < how.min_tokens - 1:
        lprobs[EOS] = -math.inf
    return lprobs


def plain_beam_search(decoder: TextDecoder, emb: torch.Tensor, how: Generation) -> list[tuple[list[int], float]]:
    """One sentence, one hypothesis at a time, no cache: fairseq2's rules in lists."""
    limit, beam = how.limit(CONFIG.max_tokens), how.beam_size
    alive = [([EOS, LANG], float(plain_log_probs(decoder, emb, [EOS], how)[LANG]))]
    done: list[tuple[list[int], float]] = []
    for length in range(2, limit):
        candidates = []
        for ids, score in alive:
            lprobs = allowed(plain_log_probs(decoder, emb, ids, how), how, length, limit)
            candidates += [(ids, token, score + lprob) for token, lprob in enumerate(lprobs.tolist())]
        best = sorted(candidates, key=lambda candidate: -candidate[2])[: 2 * beam]
        for ids, token, score in best[:beam]:
            if token == EOS and len(done) < beam:
                done.append(([*ids, token], score / length**how.len_penalty))
        if len(done) == beam:
            break
        alive = [([*ids, token], score) for ids, token, score in best if token != EOS][:beam]
    return [(ids[2:], score) for ids, score in sorted(done, key=lambda one: -one[1])]


@settings(max_examples=20)
@given(
    beam_size=st.integers(1, 6),
    max_tokens=st.integers(3, 14),
    min_tokens=st.integers(1, 4),
    temperature=st.sampled_from([1.0, 0.6, 1.7]),
    len_penalty=st.sampled_from([1.0, 0.0, 2.0]),
    unk_penalty=st.sampled_from([0.0, 3.0, -6.0]),
    seed=st.integers(0, 1000),
)
def test_beam_search_by_the_book(decoder: TextDecoder, seed: int, **values: Any) -> None:
    how, emb = Generation(**values), vectors(4, seed)
    for row, found in enumerate(generate(decoder, emb, LANG, how)):
        wanted = plain_beam_search(decoder, emb[row], how)
        assert [one.ids for one in found] == [ids for ids, _ in wanted]
        np.testing.assert_allclose([one.score for one in found], [score for _, score in wanted], atol=1e-4)
        assert [one.at_limit for one in found] == [len(ids) + 2 == how.max_tokens for ids, _ in wanted]


def test_sentences_end_at_different_times(decoder: TextDecoder) -> None:
    """So the tests above and below see batches that shrink."""
    lengths = {len(best[0].ids) for best in generate(decoder, vectors(40), LANG)}
    assert len(lengths) > 5


def same(a: list[list[Hypothesis]], b: list[list[Hypothesis]]) -> None:
    assert [[one.ids for one in best] for best in a] == [[one.ids for one in best] for best in b]
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose([one.score for one in x], [one.score for one in y], atol=1e-5)


@pytest.mark.parametrize("mode", ["beam", "greedy", "sample"])
def test_company_does_not_matter(decoder: TextDecoder, mode: str) -> None:
    emb, how = vectors(30), Generation(mode=mode, seed=3, **({"top_p": 0.95} if mode == "sample" else {}))
    keys = [7 * n - 50 for n in range(30)]
    whole = generate(decoder, emb, LANG, how, keys)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1)).tolist()
    mixed = generate(decoder, emb[order], LANG, how, [keys[n] for n in order])
    same([whole[n] for n in order], mixed)
    same(whole[4:5], generate(decoder, emb[4:5], LANG, how, keys[4:5]))


@settings(max_examples=8)
@given(
    seats=st.integers(1, 12),
    mode=st.sampled_from(["beam", "greedy", "sample"]),
    look=st.sampled_from([1, 3]),
    max_tokens=st.sampled_from([3, 14]),
)
def test_seats_that_change_hands_do_not_matter(
    decoder: TextDecoder, seats: int, mode: str, look: int, max_tokens: int
) -> None:
    emb, how, keys = vectors(15), Generation(mode=mode, seed=3, max_tokens=max_tokens), range(100, 115)
    whole = generate(decoder, emb, LANG, how, keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_LOOK_EVERY, "cpu", look)
        same(generate(decoder, emb, LANG, how, keys, seats), whole)
        came = [row for row, _ in stream(decoder, emb, LANG, how, keys, seats)]
    assert sorted(came) == list(range(15))


def test_empty_seats_run_on_beyond_the_limit(decoder: TextDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the last seats, and a few of them are not worth removing."""
    emb = vectors(40)
    monkeypatch.setattr("lcm_data.sonar.generate._SHRINK_SHARE", 1.0)
    for mode in ("beam", "greedy", "sample"):
        how = Generation(mode=mode, max_tokens=10)
        whole = generate(decoder, emb, LANG, how)
        same(generate(decoder, emb, LANG, how, seats=23), whole)


def test_a_newcomer_is_not_harmed_by_what_was_not_finite(decoder: TextDecoder) -> None:
    emb = vectors(12)
    emb[::3] = math.nan
    found = generate(decoder, emb, LANG, Generation(max_tokens=12), seats=4)
    assert [math.isnan(best[0].score) for best in found] == [row % 3 == 0 for row in range(12)]
    sound = [row for row in range(12) if row % 3]
    same([found[row] for row in sound], generate(decoder, emb[sound], LANG, Generation(max_tokens=12)))


@settings(max_examples=30)
@given(
    vocab=st.integers(60, 700),
    rows=st.integers(1, 6),
    num=st.integers(1, 12),
    at_once=st.sampled_from([1, 1 << 30]),
    temperature=st.sampled_from([1.0, 0.6]),
    seed=st.integers(0, 99),
    level=st.sampled_from([0.0, 90.0]),
)
def test_the_likeliest_by_slices(
    vocab: int, rows: int, num: int, at_once: int, temperature: float, seed: int, level: float
) -> None:
    """Against all log probabilities at once; slices are 4,096 tokens at least, so there are more than one, too."""
    chance = torch.Generator().manual_seed(seed)
    vocab *= 13
    hidden = torch.randn(rows, 8, generator=chance)
    weight = torch.randn(vocab, 8, generator=chance)
    weight[:, 0] += level
    lengths = torch.randint(2, 10, (rows,), generator=chance).numpy()
    how = Generation(min_tokens=3, unk_penalty=-2.0, temperature=temperature)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(_LOGITS_AT_ONCE, "cpu", at_once)
        values, found = likeliest(hidden, weight, num, how, lengths, 10)
        lprobs = log_probs(hidden @ weight.T, how, lengths, 10)
    wanted = lprobs.topk(num, dim=1).values
    np.testing.assert_allclose(values, wanted, atol=2e-4 if level else 2e-5)
    sure = values > -torch.inf
    np.testing.assert_allclose(lprobs.gather(1, found)[sure], values[sure], atol=2e-4 if level else 2e-5)


def test_greedy_is_a_beam_of_one(decoder: TextDecoder) -> None:
    emb = vectors(30)
    greedy = generate(decoder, emb, LANG, Generation(mode="greedy", max_tokens=15))
    same(greedy, generate(decoder, emb, LANG, Generation(beam_size=1, max_tokens=15)))
    how = Generation(mode="greedy")
    ids = [EOS, LANG]
    while len(ids) < 10 and ids[2:][-1:] != [EOS]:
        ids.append(int(allowed(plain_log_probs(decoder, emb[0], ids, how), how, len(ids), 15).argmax()))
    assert greedy[0][0].ids[:8] == ids[2:]


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}])
def test_no_choice_is_greedy(decoder: TextDecoder, cut: dict[str, Any]) -> None:
    emb = vectors(20)
    same(
        generate(decoder, emb, LANG, Generation(mode="sample", **cut)),
        generate(decoder, emb, LANG, Generation(mode="greedy")),
    )


def first_tokens(decoder: TextDecoder, num: int, **cut: Any) -> tuple[np.ndarray, torch.Tensor]:
    """First tokens drawn for one vector under many keys, and their probabilities without a cut."""
    emb = vectors(1, 4)
    how = Generation(mode="sample", max_tokens=4, temperature=1.5, **cut)
    found = generate(decoder, emb.expand(num, -1), LANG, how, range(num))
    probs = plain_log_probs(decoder, emb[0], [EOS, LANG], how).exp()
    probs[0] = 0
    return np.array([best[0].ids[0] for best in found]), probs / probs.sum()


@pytest.mark.parametrize("cut", [{}, {"top_p": 1.0}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 8, "top_p": 0.6}])
def test_draws_follow_the_distribution(decoder: TextDecoder, cut: dict[str, Any]) -> None:
    num = 4000
    drawn, probs = first_tokens(decoder, num, **cut)
    order = probs.argsort(descending=True)
    if "top_k" in cut:
        probs[order[cut["top_k"] :]] = 0
        probs /= probs.sum()
    if "top_p" in cut:
        before = probs[order].cumsum(0) - probs[order]
        probs[order[before > cut["top_p"]]] = 0
        probs /= probs.sum()
    counts = np.bincount(drawn, minlength=60)
    wanted = probs.double().numpy() * num
    assert (counts[wanted == 0] == 0).all()
    assert (np.abs(counts - wanted) < 5 * np.sqrt(wanted + 1)).all()
    assert (counts > 0).sum() > 2


def test_a_wide_nucleus_is_found_too(decoder: TextDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    emb, how = vectors(20), Generation(mode="sample", top_p=0.97, temperature=2.0)
    wanted = generate(decoder, emb, LANG, how)
    monkeypatch.setattr("lcm_data.sonar.sampling._FIRST_CANDIDATES", 1)
    same(generate(decoder, emb, LANG, how), wanted)


def test_seed_and_key_decide(decoder: TextDecoder) -> None:
    emb = vectors(1).expand(50, -1)

    def texts(seed: int, keys: list[int] | None = None) -> list[tuple[int, ...]]:
        how = Generation(mode="sample", temperature=2.0, seed=seed)
        return [tuple(best[0].ids) for best in generate(decoder, emb, LANG, how, keys)]

    assert texts(1) == texts(1, list(range(50)))
    assert texts(1) != texts(2)
    assert len(set(texts(1))) > 40
    assert len(set(texts(1, [9] * 50))) == 1


def test_the_score_of_a_draw_is_its_log_probability(decoder: TextDecoder) -> None:
    how = Generation(mode="sample", temperature=0.8, top_k=3, len_penalty=0.0)
    (found,) = generate(decoder, vectors(1), LANG, how)[0]
    ids, total = [EOS], 0.0
    for token in [LANG, *found.ids]:
        total += float(plain_log_probs(decoder, vectors(1)[0], ids, how)[token])
        ids.append(token)
    assert found.score == pytest.approx(total, abs=1e-4)


def test_uniforms_are_pinned() -> None:
    """Texts drawn with a seed are part of corpora: these numbers must never change."""
    got = uniforms(1, [0, 7, -1], 3)
    again = uniforms(1, [-1], 3)
    assert np.array_equal(got[2:], again)
    assert uniforms(0, [0], 2).tolist() == [[0.9711020828012883, 0.2778328726049074]]
    many = uniforms(5, range(500), 200)
    assert many.min() >= 0
    assert many.max() < 1
    assert abs(many.mean() - 0.5) < 0.005
    assert np.abs(np.corrcoef(many[:, :5].T) - np.eye(5)).max() < 0.2
    assert len(np.unique(many)) == many.size


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "beem"}, "unknown mode 'beem'. Did you mean 'beam'"),
        ({"beam_size": 0}, "beam_size must be at least 1, got 0"),
        ({"max_tokens": 2}, "max_tokens must be at least 3, got 2"),
        ({"min_tokens": 0}, "min_tokens must be at least 1"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": math.nan}, "temperature must be positive"),
        ({"mode": "sample", "top_p": 1.5}, "top_p must be above 0 and at most 1"),
        ({"mode": "sample", "top_k": 0}, "top_k must be at least 1"),
        ({"top_k": 4}, "top_k only has a meaning with mode='sample'"),
    ],
)
def test_settings_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, UnknownNameError), match=message):
        Generation(**values)


def test_what_cannot_be_generated_is_refused(decoder: TextDecoder) -> None:
    with pytest.raises(UsageError, match="2 keys for 3 vectors"):
        generate(decoder, vectors(3), LANG, None, [1, 2])
    with pytest.raises(UsageError, match=r"shape \[N, 16\]"):
        generate(decoder, torch.zeros(2, 8), LANG)
    with pytest.raises(UsageError, match="too large for 60 tokens"):
        generate(decoder, vectors(1), LANG, Generation(beam_size=31))
    with pytest.raises(UsageError, match=f"max_tokens 1000 is more than the decoder's maximum of {CONFIG.max_tokens}"):
        generate(decoder, vectors(1), LANG, Generation(max_tokens=1000))
    assert generate(decoder, vectors(0), LANG) == []


def test_the_limit_of_the_network_holds(decoder: TextDecoder) -> None:
    for mode in ("beam", "greedy", "sample"):
        for best in generate(decoder, vectors(20), LANG, Generation(mode=mode)):
            assert len(best[0].ids) <= CONFIG.max_tokens - 2
            assert best[0].ids[-1] == EOS
            assert EOS not in best[0].ids[:-1]
            assert best[0].at_limit == (len(best[0].ids) == CONFIG.max_tokens - 2)


def test_vectors_that_are_not_finite_end_in_scores_that_are_not(decoder: TextDecoder) -> None:
    emb = vectors(3)
    emb[1, 2] = math.nan
    for mode in ("beam", "greedy", "sample"):
        found = generate(decoder, emb, LANG, Generation(mode=mode, max_tokens=8))
        assert [math.isnan(best[0].score) for best in found] == [False, True, False]
