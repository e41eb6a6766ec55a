from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data.errors import UsageError
from lcm_data.sonar.layers import sinusoid
from lcm_data.sonar.text_encoder import TextEncoder, TextEncoderConfig

CONFIG = TextEncoderConfig(model_dim=24, num_layers=2, num_heads=3, ffn_dim=40, vocab_size=50, max_tokens=20)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    network = TextEncoder(CONFIG)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)  # biases and gains that matter
    return network.eval()


def ids(lengths: list[int]) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, (sum(lengths),), generator=torch.Generator().manual_seed(len(lengths)))


def by_the_book(encoder: TextEncoder, ids_L: torch.Tensor) -> torch.Tensor:
    """One sentence, in float64, written from the published recipe with nothing but matrix products."""
    w = {name: tensor.double() for name, tensor in encoder.state_dict().items()}
    d, heads = CONFIG.model_dim, CONFIG.num_heads

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["encoder_frontend.embed.weight"][ids_L] * math.sqrt(d)
    for p in range(len(ids_L)):
        for i in range(d // 2):
            angle = (p + 2) * math.exp(-i * math.log(10000) / (d // 2 - 1))
            x[p, i] += math.sin(angle)
            x[p, d // 2 + i] += math.cos(angle)
    for n in range(CONFIG.num_layers):
        layer = f"encoder.layers.{n}"
        y = norm(x, f"{layer}.self_attn_layer_norm")
        q, k, v = (linear(y, f"{layer}.self_attn.{p}_proj").view(len(x), heads, -1).transpose(0, 1) for p in "qkv")
        mixed = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(d / heads), -1) @ v
        x = x + linear(mixed.transpose(0, 1).reshape(len(x), d), f"{layer}.self_attn.output_proj")
        y = torch.relu(linear(norm(x, f"{layer}.ffn_layer_norm"), f"{layer}.ffn.inner_proj"))
        x = x + linear(y, f"{layer}.ffn.output_proj")
    return norm(x, "layer_norm").sum(0) / (len(x) + 1e-7)


@settings(deadline=None, max_examples=20)
@given(lengths=st.lists(st.integers(1, CONFIG.max_tokens), min_size=1, max_size=7))
def test_a_packed_batch_is_each_sentence_by_the_book(encoder: TextEncoder, lengths: list[int]) -> None:
    tokens = ids(lengths)
    with torch.inference_mode():
        vectors = encoder(tokens, lengths)
    assert vectors.shape == (len(lengths), CONFIG.model_dim)
    for vector, sentence in zip(vectors, tokens.split(lengths), strict=True):
        torch.testing.assert_close(vector.double(), by_the_book(encoder, sentence), atol=2e-6, rtol=0)


def test_inference_and_training_paths_agree(encoder: TextEncoder) -> None:
    lengths = [3, 3, 8]
    with torch.inference_mode():
        fast = encoder(ids(lengths), lengths)  # oneDNN where there is one
    slow = encoder(ids(lengths), lengths)
    torch.testing.assert_close(fast, slow, atol=1e-6, rtol=0)
    slow.sum().backward()
    assert encoder.encoder_frontend.embed.weight.grad is not None
    encoder.zero_grad(set_to_none=True)


@settings(deadline=None, max_examples=20)
@given(lengths=st.lists(st.integers(1, CONFIG.max_tokens), min_size=1, max_size=7))
def test_rearranged_weights_change_nothing_but_rounding(encoder: TextEncoder, lengths: list[int]) -> None:
    fast = copy.deepcopy(encoder)
    fast.pack()
    with torch.inference_mode():
        torch.testing.assert_close(fast(ids(lengths), lengths), encoder(ids(lengths), lengths), atol=2e-6, rtol=0)


def test_int8_is_close_to_float32(encoder: TextEncoder) -> None:
    lengths = [5, 5, 20]
    fast = copy.deepcopy(encoder)
    fast.pack(int8=True)
    with torch.inference_mode():
        exact = encoder(ids(lengths), lengths)
        cosine = torch.cosine_similarity(fast(ids(lengths), lengths), exact)
    assert float(cosine.min()) > 0.999


def test_sinusoid_is_sines_then_cosines_from_angle_two() -> None:
    table = sinusoid(3, 8)
    assert table.dtype == torch.float32
    frequencies = [math.exp(-i * math.log(10000) / 3) for i in range(4)]
    for p in range(3):
        wanted = [math.sin((p + 2) * f) for f in frequencies] + [math.cos((p + 2) * f) for f in frequencies]
        torch.testing.assert_close(table[p], torch.tensor(wanted), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_is_close_and_returns_float32(
    encoder: TextEncoder, dtype: torch.dtype, tolerance: float
) -> None:
    lengths = [5, 5, 20]
    half = TextEncoder(CONFIG)
    half.load_state_dict(encoder.state_dict())
    for parameter in half.parameters():
        parameter.data = parameter.data.to(dtype)
    with torch.inference_mode():
        vectors = half(ids(lengths), lengths)
        exact = encoder(ids(lengths), lengths)
    assert vectors.dtype == torch.float32
    assert half.position_table.dtype == torch.float32
    assert float((vectors - exact).norm() / exact.norm()) < tolerance


@pytest.mark.parametrize("lengths", [[], [0, 3], [CONFIG.max_tokens + 1]])
def test_lengths_out_of_range_are_refused(encoder: TextEncoder, lengths: list[int]) -> None:
    with pytest.raises(UsageError, match="must have 1 to 20 tokens"):
        encoder(ids(lengths), lengths)


def test_lengths_must_cover_the_ids(encoder: TextEncoder) -> None:
    with pytest.raises(UsageError, match="sum to 4 but there are 5"):
        encoder(ids([5]), [2, 2])


def test_default_config_is_the_published_model() -> None:
    config = TextEncoderConfig()
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in TextEncoder(config).parameters())
    assert count == config.num_parameters == 766_091_264


@pytest.mark.parametrize("bad", [{"num_heads": 5}, {"model_dim": 0}, {"num_layers": 1.5}])
def test_impossible_sizes_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        TextEncoderConfig(**bad)
