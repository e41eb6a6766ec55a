from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from m2m100 import decoder_logits, m2m100_decoder

from lcm_data.errors import UsageError
from lcm_data.sonar.decoder_layout import EMBED, OUTPUT, decoder_shapes
from lcm_data.sonar.text_decoder import DecoderState, TextDecoder, TextDecoderConfig

CONFIG = TextDecoderConfig(model_dim=24, num_layers=2, num_heads=3, ffn_dim=40, vocab_size=50, max_tokens=20)


@pytest.fixture(scope="module")
def decoder() -> TextDecoder:
    torch.manual_seed(0)
    network = TextDecoder(CONFIG)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)  # biases and gains that matter
    network.decoder_frontend.embed.weight.data *= 0.2
    return network.eval()


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def by_the_book(decoder: TextDecoder, emb_D: torch.Tensor, ids_T: torch.Tensor) -> torch.Tensor:
    """Logits in float64, from the published recipe; attention to the vector is spelled out, with q, k and norm."""
    w = {name: tensor.double() for name, tensor in decoder.full_state().items()}
    for number, name in enumerate(w):
        if "encoder_decoder_attn" in name and name not in decoder.state_dict():
            w[name] = numbers(number, *w[name].shape).double()
    d, heads, num = CONFIG.model_dim, CONFIG.num_heads, len(ids_T)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def attention(x: torch.Tensor, memory: torch.Tensor, name: str, mask: torch.Tensor) -> torch.Tensor:
        q = linear(x, f"{name}.q_proj").view(num, heads, -1).transpose(0, 1)
        k, v = (linear(memory, f"{name}.{p}_proj").view(len(memory), heads, -1).transpose(0, 1) for p in "kv")
        mixed = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(d / heads) + mask, -1) @ v
        return linear(mixed.transpose(0, 1).reshape(num, d), f"{name}.output_proj")

    x = w[EMBED][ids_T] * math.sqrt(d)
    for p in range(num):
        for i in range(d // 2):
            angle = (p + 2) * math.exp(-i * math.log(10000) / (d // 2 - 1))
            x[p, i] += math.sin(angle)
            x[p, d // 2 + i] += math.cos(angle)
    causal = torch.full((num, num), -torch.inf).triu(1).double()
    for n in range(CONFIG.num_layers):
        layer = f"decoder.layers.{n}"
        y = norm(x, f"{layer}.self_attn_layer_norm")
        x = x + attention(y, y, f"{layer}.self_attn", causal)
        y = norm(x, f"{layer}.encoder_decoder_attn_layer_norm")
        x = x + attention(y, emb_D.double()[None], f"{layer}.encoder_decoder_attn", torch.zeros(()))
        y = norm(x, f"{layer}.ffn_layer_norm")
        x = x + linear(torch.relu(linear(y, f"{layer}.ffn.inner_proj")), f"{layer}.ffn.output_proj")
    return norm(x, "decoder.layer_norm") @ w[OUTPUT].T


def test_a_batch_is_each_sentence_by_the_book(decoder: TextDecoder) -> None:
    emb, ids = numbers(1, 3, 24), tokens(2, 3, 11)
    with torch.inference_mode():
        logits = decoder(emb, ids)
    assert logits.shape == (3, 11, 50)
    for row in range(3):
        wanted = by_the_book(decoder, emb[row], ids[row])
        torch.testing.assert_close(logits[row].double(), wanted, atol=1e-5, rtol=0)


@settings(max_examples=25)
@given(
    prompt_length=st.integers(1, 3), beam_size=st.integers(1, 4), num_steps=st.integers(1, 17), seed=st.integers(0, 99)
)
def test_steps_agree_with_whole_sequences(
    decoder: TextDecoder, prompt_length: int, beam_size: int, num_steps: int, seed: int
) -> None:
    """Whatever is continued, doubled or dropped on the way, hypotheses and sentences alike."""
    chance = torch.Generator().manual_seed(seed)

    def integers(most: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, most, shape, generator=chance)

    with torch.inference_mode():
        emb, ids = numbers(seed, 5, 24), tokens(seed, 5, prompt_length)
        hidden, state = decoder.start(emb, ids)
        torch.testing.assert_close(decoder.project(hidden), decoder(emb, ids), atol=1e-5, rtol=0)
        ids_PBT = ids[:, None]
        for step in range(num_steps):
            parents = integers(ids_PBT.shape[1], len(emb), beam_size)
            state.reorder(parents)
            new = integers(CONFIG.vocab_size, len(emb), beam_size)
            ids_PBT = torch.cat(
                [ids_PBT.gather(1, parents[..., None].expand(-1, -1, ids_PBT.shape[2])), new[..., None]], 2
            )
            if step % 4 == 3:
                rows = integers(len(emb), max(1, len(emb) - 1)).sort().values
                emb, ids_PBT, new = emb[rows], ids_PBT[rows], new[rows]
                state.keep(rows)
            logits_PBV = decoder.project(decoder.step(new, state))
            whole = decoder(emb.repeat_interleave(beam_size, 0), ids_PBT.flatten(0, 1))[:, -1]
            torch.testing.assert_close(logits_PBV.flatten(0, 1), whole, atol=1e-5, rtol=0)
    assert (state.num_tokens == prompt_length + num_steps).all()


def test_slots_nobody_sees_are_given_up(decoder: TextDecoder) -> None:
    one_parent = torch.zeros(2, 4, dtype=torch.int64)
    with torch.inference_mode():
        _, state = decoder.start(numbers(1, 2, 24), tokens(1, 2, 2))
        most = 0
        for step in range(18):
            state.reorder(one_parent)
            decoder.step(tokens(step, 2, 4), state)
            most = max(most, state.num_slots)
    assert most > 2 + 15 * 4
    assert state.num_slots == 2 + 17 + 4  # the past they share, and one each


@settings(max_examples=25)
@given(steps=st.lists(st.integers(1, 5), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_newcomers_among_older_sentences(decoder: TextDecoder, steps: list[int], seed: int) -> None:
    """Seats change hands after each stretch of ``steps``; what a sentence becomes must not depend on it."""
    chance = torch.Generator().manual_seed(seed)
    with torch.inference_mode():

        def start(beam_size: int) -> tuple[torch.Tensor, torch.Tensor, DecoderState]:
            emb, ids = torch.randn(4, 24, generator=chance), torch.randint(0, 50, (4, 2), generator=chance)
            _, state = decoder.start(emb, ids)
            state.reorder(torch.zeros(4, beam_size, dtype=torch.int64))
            return emb, ids[:, None].expand(-1, beam_size, -1), state

        emb, ids_PBT, state = start(3)
        told = [ids_PBT[row] for row in range(4)]
        for number, num in enumerate(steps):
            for _ in range(num):
                if state.num_tokens.max() == CONFIG.max_tokens:
                    return
                parents = torch.randint(0, 3, (4, 3), generator=chance)
                new = torch.randint(0, 50, (4, 3), generator=chance)
                state.reorder(parents)
                told = [torch.cat([told[row][parents[row]], new[row, :, None]], 1) for row in range(4)]
                logits_PBV = decoder.project(decoder.step(new, state))
                for row in range(4):
                    whole = decoder(emb[row].expand(3, -1), told[row])[:, -1]
                    torch.testing.assert_close(logits_PBV[row], whole, atol=1e-5, rtol=0)
            other_emb, other_ids, other = start(3)
            rows, picks = torch.tensor([number % 4, (number + 2) % 4]), torch.tensor([3, 1])
            state.admit(rows, other, picks)
            emb[rows] = other_emb[picks]
            for row, pick in zip(rows.tolist(), picks.tolist(), strict=True):
                told[row] = other_ids[pick]


def test_packing_changes_nothing(decoder: TextDecoder) -> None:
    fast = TextDecoder(CONFIG)
    fast.load_state_dict(decoder.state_dict())
    fast.requires_grad_(False).eval().pack()
    emb, ids = numbers(8, 3, 24), tokens(8, 3, 9)
    with torch.inference_mode():
        torch.testing.assert_close(fast(emb, ids), decoder(emb, ids), atol=1e-5, rtol=0)
    assert not any("q_proj" in name for name in fast.state_dict())


def test_inference_and_training_paths_agree(decoder: TextDecoder) -> None:
    emb, ids = numbers(3, 2, 24), tokens(3, 2, 7)
    with torch.inference_mode():
        fast = decoder(emb, ids)  # oneDNN where there is one
    emb.requires_grad_(True)
    slow = decoder(emb, ids)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0)
    slow.logsumexp(-1).sum().backward()
    assert emb.grad is not None
    assert emb.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in decoder.parameters())
    decoder.zero_grad(set_to_none=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_is_close(decoder: TextDecoder, dtype: torch.dtype, tolerance: float) -> None:
    half = TextDecoder(CONFIG)
    half.load_state_dict(decoder.state_dict())
    for parameter in half.parameters():
        parameter.data = parameter.data.to(dtype)
    emb, ids = numbers(4, 2, 24), tokens(4, 2, 9)
    with torch.inference_mode():
        logits, exact = half(emb, ids), decoder(emb, ids)
        hidden, state = half.start(emb, ids[:, :2])
        steps = half.project(hidden)
        step = half.project(half.step(ids[:, 2:3], state))
    assert logits.dtype == steps.dtype == step.dtype == dtype
    assert half.position_table.dtype == torch.float32
    assert float((logits.float() - exact).norm() / exact.norm()) < tolerance
    assert float((step[:, 0].float() - exact[:, 2]).norm() / exact[:, 2].norm()) < tolerance


def test_the_output_is_the_embedding(decoder: TextDecoder) -> None:
    assert decoder.final_proj.weight is decoder.decoder_frontend.embed.weight


def test_full_state_has_the_names_of_fairseq2(decoder: TextDecoder) -> None:
    state = decoder.full_state()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == decoder_shapes(CONFIG)
    assert torch.equal(state[EMBED], state[OUTPUT])
    assert set(decoder.state_dict()) <= set(state)


def test_default_config_is_the_published_model() -> None:
    config = TextDecoderConfig()
    shapes = decoder_shapes(config)
    count = sum(math.prod(shape) for name, shape in shapes.items() if name != OUTPUT)
    assert config.num_parameters == count
    assert round(count / 1e6, 1) == 866.9
    assert config.max_tokens == 512


def test_what_cannot_be_decoded_is_refused(decoder: TextDecoder) -> None:
    with pytest.raises(UsageError, match="1 to 20 tokens, got 21"):
        decoder(numbers(0, 1, 24), tokens(0, 1, 21))
    with pytest.raises(UsageError, match=r"shape \[N, 24\], got \(1, 23\)"):
        decoder.start(numbers(0, 1, 23), tokens(0, 1, 2))
    with torch.inference_mode():
        _, state = decoder.start(numbers(0, 1, 24), tokens(0, 1, 20))
        with pytest.raises(UsageError, match="at most 20 tokens"):
            decoder.step(tokens(0, 1, 1), state)


def test_a_state_knows_its_size() -> None:
    state = DecoderState(torch.zeros(2, 5, 24), num_heads=3)
    assert (state.num_sentences, state.beam_size, state.num_tokens.tolist()) == (5, 1, [0] * 5)


def test_transformers_computes_the_same(decoder: TextDecoder) -> None:
    pytest.importorskip("transformers")
    state = decoder.full_state()
    for number, name in enumerate(state):
        if "encoder_decoder_attn" in name and name not in decoder.state_dict():
            state[name] = numbers(number, *state[name].shape)  # no influence, so anything will do
    emb, ids = numbers(5, 4, 24), tokens(5, 4, 12).clamp(min=1)  # padding would be masked there
    with torch.inference_mode():
        wanted = decoder_logits(m2m100_decoder(state, CONFIG.num_heads), emb, ids)
        torch.testing.assert_close(decoder(emb, ids), wanted, atol=1e-5, rtol=0)
