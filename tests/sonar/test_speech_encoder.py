from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lcm_data.errors import UsageError
from lcm_data.sonar import speech_encoder
from lcm_data.sonar.random_speech import random_speech_state
from lcm_data.sonar.speech_config import SpeechEncoderConfig
from lcm_data.sonar.speech_encoder import SpeechEncoder, distances
from lcm_data.sonar.speech_pooler import _OneQueryAttention

SIZES = SpeechEncoderConfig(
    model_dim=32, num_layers=2, num_heads=4, ffn_dim=48, kernel_size=7, pooler_layers=2, pooler_heads=2,
    pooler_ffn_dim=40, pooler_vocab=5, embedding_dim=24, max_positions=90,
)  # fmt: skip
LENGTHS = [37, 1, 64, 20]


@pytest.fixture
def network() -> SpeechEncoder:
    network = SpeechEncoder(SIZES)
    network.load_state_dict(random_speech_state(SIZES, seed=1))
    return network.requires_grad_(False).eval()


@pytest.fixture
def features() -> Tensor:
    return torch.randn(len(LENGTHS), max(LENGTHS), 160, generator=torch.Generator().manual_seed(0))


def test_a_clip_does_not_depend_on_its_neighbours(network: SpeechEncoder, features: Tensor) -> None:
    together = network(features, LENGTHS)
    assert together.shape == (4, 24)
    for row, length in enumerate(LENGTHS):
        alone = network(features[row : row + 1, :length], [length])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-6, rtol=0)


def test_what_lies_behind_a_clip_does_not_matter(network: SpeechEncoder, features: Tensor) -> None:
    other = features.clone()
    for row, length in enumerate(LENGTHS):
        other[row, length:] = 1000.0
    torch.testing.assert_close(network(other, LENGTHS), network(features, LENGTHS), atol=1e-6, rtol=0)


def test_packed_weights_give_the_same(network: SpeechEncoder, features: Tensor) -> None:
    wanted = network(features, LENGTHS)
    network.pack()
    with torch.inference_mode():
        torch.testing.assert_close(network(features, LENGTHS), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("block", [1, 5, 63, 64])
def test_blocks_of_queries_give_the_same(
    network: SpeechEncoder, features: Tensor, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = network(features, LENGTHS)
    monkeypatch.setattr(speech_encoder, "_QUERIES", block)
    torch.testing.assert_close(network(features, LENGTHS), wanted, atol=1e-6, rtol=0)


def test_attention_is_the_formula(network: SpeechEncoder) -> None:
    """Every pair of positions by itself."""
    attention = network.encoder.layers[0].self_attn
    x = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(3))
    q, k, v = (layer(x)[0].view(9, 4, 8) for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
    u_bias, v_bias, r_proj = attention.sdpa.u_bias, attention.sdpa.v_bias, attention.sdpa.r_proj
    mixed = torch.empty(9, 4, 8)
    for i in range(9):
        scores = torch.empty(9, 4)
        for j in range(9):
            angles = (i - j) * torch.exp(torch.arange(0, 32, 2) * (-math.log(10000) / 32))
            code = torch.stack([angles.sin(), angles.cos()], dim=1).flatten()
            by_place = (q[i] + v_bias) * r_proj(code).view(4, 8)
            scores[j] = ((q[i] + u_bias) * k[j] + by_place).sum(dim=1) / math.sqrt(8)
        mixed[i] = torch.einsum("jh,jhk->hk", scores.softmax(dim=0), v)
    wanted = attention.output_proj(mixed.flatten(1))
    torch.testing.assert_close(attention(x, distances(9, 32), None)[0], wanted, atol=1e-6, rtol=0)


def test_convolution_is_torchs_own(network: SpeechEncoder) -> None:
    conv = network.encoder.layers[1].conv
    norm = torch.nn.BatchNorm1d(32).eval()
    norm.load_state_dict({**conv.batch_norm.state_dict(), "num_batches_tracked": torch.tensor(1)})
    x = torch.randn(2, 11, 32, generator=torch.Generator().manual_seed(4))
    gated = F.glu(conv.pointwise_conv1(x.transpose(1, 2)), dim=1)
    wanted = conv.pointwise_conv2(F.silu(norm(F.conv1d(gated, conv.depthwise_conv.weight, padding=3, groups=32))))
    torch.testing.assert_close(conv(x, None), wanted.transpose(1, 2), atol=1e-6, rtol=0)


def test_attention_with_one_query_is_torchs_own() -> None:
    torch.manual_seed(5)
    ours = _OneQueryAttention(SIZES).requires_grad_(False)
    theirs = torch.nn.MultiheadAttention(32, 2, batch_first=True).requires_grad_(False)
    layers = (ours.q_proj, ours.k_proj, ours.v_proj)
    theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
    theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    theirs.out_proj.load_state_dict(ours.output_proj.state_dict())
    x, memory = torch.randn(3, 32), torch.randn(3, 10, 32)
    padding = torch.arange(10) >= torch.tensor([[10], [4], [1]])
    wanted = theirs(x.unsqueeze(1), memory, memory, key_padding_mask=padding)[0].squeeze(1)
    torch.testing.assert_close(ours(x, memory, padding), wanted, atol=1e-6, rtol=0)


def test_order_in_time_matters(network: SpeechEncoder, features: Tensor) -> None:
    clip = features[:1, :30]
    assert (network(clip, [30]) - network(clip.flip(1), [30])).abs().max() > 1e-3


def test_gradients_flow(features: Tensor) -> None:
    network = SpeechEncoder(SIZES)
    network.load_state_dict(random_speech_state(SIZES, seed=1))
    network(features, LENGTHS).sum().backward()
    without = [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()]
    assert sorted({name.split(".", 4)[-1] for name in without}) == ["encoder_decoder_attn.k_proj.bias"]


@pytest.mark.parametrize(
    ("shape", "lengths", "match"),
    [
        ((2, 5), [5], "one length for each of 2 clips"),
        ((0, 5), [], "at least one, got 0"),
        ((2, 5), [5, 0], "1 to 5 positions, got 0 to 5"),
        ((2, 5), [5, 6], "1 to 5 positions, got 5 to 6"),
        ((1, 91), [91], "1 to 90 positions, got 91 to 91 in a batch of 91. Cut long clips first"),
    ],
)
def test_lengths_that_do_not_fit(
    network: SpeechEncoder, shape: tuple[int, int], lengths: list[int], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        network(torch.zeros(*shape, 160), lengths)


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        ({"model_dim": 30}, "multiple of num_heads, got model_dim=30 with num_heads=16"),
        ({"pooler_heads": 3}, "multiple of pooler_heads"),
        ({"kernel_size": 30}, "kernel_size must be odd, got 30"),
        ({"num_layers": 0}, "num_layers must be a positive integer, got 0"),
        ({"pooler_vocab": 2}, "pooler_vocab must be at least 3"),
    ],
)
def test_sizes_that_do_not_fit(sizes: dict[str, int], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        SpeechEncoderConfig(**sizes)
