"""Two-Tower: adaptive norms that begin closed, the zero vector, the attention that is none."""

from __future__ import annotations

import torch
from toylcm import DIM, documents, toy_model

from lcm_models import build_model
from lcm_models.attention import dense_mask
from lcm_models.model import Batch
from lcm_models.two_tower import DenoiserLayer, SelfOnly, TwoTower


def denoised(model: TwoTower, noisy: torch.Tensor, level: int, x: torch.Tensor) -> torch.Tensor:
    doc_BS = torch.zeros(x.shape[:2], dtype=torch.long)
    drop_BS = torch.zeros_like(doc_BS, dtype=torch.bool)
    return model._denoise_all(x, noisy, torch.full_like(doc_BS, level), drop_BS, doc_BS)


def test_an_untrained_denoiser_passes_its_input_on() -> None:
    """Gates of zero: neither the level nor the context makes a difference yet, and blocks are the identity."""
    model = build_model("two-tower", "tiny", {"concept_dim": DIM, "width": 32, "num_heads": 2})
    assert isinstance(model, TwoTower)
    noisy, x, other = torch.randn(3, 2, 5, DIM)
    found = denoised(model, noisy, 7, x)
    assert torch.equal(found, denoised(model, noisy, 93, other))
    assert torch.allclose(found, model.postnet(model.norm(model.prenet(noisy))))


def test_a_trained_denoiser_uses_level_and_context() -> None:
    model = toy_model("two-tower")
    assert isinstance(model, TwoTower)
    noisy, x, other = torch.randn(3, 2, 5, DIM)
    found = denoised(model, noisy, 7, x)
    assert not torch.allclose(found, denoised(model, noisy, 93, x), atol=1e-3)
    assert not torch.allclose(found[:, 1:], denoised(model, noisy, 7, other)[:, 1:], atol=1e-3)
    assert torch.allclose(found[:, 0], denoised(model, noisy, 7, other)[:, 0])  # the first has only the zero vector


def test_attention_to_itself_alone_needs_no_attention() -> None:
    layer, x = SelfOnly(16, 2), torch.randn(2, 5, 16)
    diagonal = dense_mask(lambda row, head, query, key: query == key, 2, 5, 5, x.device)
    assert torch.allclose(layer.alone(x), layer(x, diagonal), atol=1e-6)


def test_no_context_is_learned() -> None:
    """The zero vector gives values through the bias of its projection: without biases it would be nothing at all."""
    model = toy_model("two-tower")
    assert isinstance(model, TwoTower)
    layer = model.denoiser[0]
    assert isinstance(layer, DenoiserLayer)
    keys, values = layer.cross_attention.keys_values(torch.zeros(1, 1, 32))
    assert torch.equal(values.flatten(), layer.cross_attention.v_proj.bias)
    assert torch.equal(keys.flatten(), layer.cross_attention.k_proj.bias)


def test_what_can_be_kept_is_computed_once() -> None:
    """Keys and values of the context and the modulations are made when concepts are read, not when sampling."""
    model = toy_model("two-tower")
    assert isinstance(model, TwoTower)
    state = model.start(documents(5, 3))
    calls: dict[str, int] = {}

    def count(name: str) -> None:
        calls[name] = calls.get(name, 0) + 1

    for index, layer in enumerate(model._layers()):
        for name in ("adaln", "cross_attention.k_proj", "cross_attention.v_proj", "cross_attention.q_proj"):
            layer.get_submodule(name).register_forward_hook(lambda *_, name=name: count(name))
        assert state.cross[index].length == 6
    model.contextualizer.register_forward_hook(lambda *_: count("contextualizer"))
    model.next_concepts(state)
    assert calls == {"cross_attention.q_proj": 40 * 2}
    model.extend(state, Batch.of(documents(1, 1)).x_BSD[:, 0])
    assert calls["contextualizer"] == 1
    assert calls["cross_attention.k_proj"] == 2
    assert "adaln" not in calls
