"""Checkpoints of the official code: names and shapes, numbers against networks written plainly, errors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark import benchmark
from torch import Tensor
from toylcm import DIM, documents, normalizer, quick, toy_model

from lcm_data.errors import CheckpointError, StorageError, UsageError
from lcm_models import build_model
from lcm_models.diffusion.model import DiffusionModel
from lcm_models.diffusion.sampler import sampling_levels
from lcm_models.model import Batch, ConceptModel
from lcm_models.official import NAMES, load_official, official_name, official_state, save_official
from lcm_models.two_tower import SelfOnly

variants = pytest.mark.parametrize("variant", NAMES)


def official_shapes(variant: str, width: int, layers: tuple[int, ...], dim: int = 1024) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of the official architectures, written down from their modules."""
    shapes: dict[str, tuple[int, ...]] = {}
    inner = 256 * math.ceil(int(4 * width * 2 / 3) / 256)

    def linear(name: str, given: int, made: int) -> None:
        shapes.update({f"{name}.weight": (made, given), f"{name}.bias": (made,)})

    def attention(name: str) -> None:
        for part in ("q_proj", "k_proj", "v_proj", "output_proj"):
            linear(f"{name}.{part}", width, width)
        shapes[f"{name}_layer_norm.weight"] = (width,)

    def feed_forward(name: str) -> None:
        linear(f"{name}.ffn.gate_proj", width, inner)
        linear(f"{name}.ffn.inner_proj", width, inner)
        linear(f"{name}.ffn.output_proj", inner, width)
        shapes[f"{name}.ffn_layer_norm.weight"] = (width,)

    def decoder(name: str, num_layers: int) -> None:
        for layer in range(num_layers):
            attention(f"{name}.layers.{layer}.self_attn")
            feed_forward(f"{name}.layers.{layer}")
        shapes[f"{name}.layer_norm.weight"] = (width,)

    home = "frontend.sonar_normalizer" if variant == "base" else "sonar_normalizer"
    shapes |= {f"{home}.center": (dim,), f"{home}.scale": (dim,)}
    if variant == "base":
        linear("frontend.pre_linear", dim, width)
        decoder("lcm", layers[0])
        linear("postnet.fc", width, dim)
        return shapes
    linear("encoder_frontend.pre_linear", dim, width)
    decoder("context_encoder", layers[0])
    linear("denoiser.embed_time.fc1", 256, width)
    linear("denoiser.embed_time.fc2", width, width)
    linear("denoiser.initial_proj.fc", dim, width)
    for layer in range(layers[1]):
        attention(f"denoiser.layers.{layer}.self_attn")
        attention(f"denoiser.layers.{layer}.cross_attention")
        feed_forward(f"denoiser.layers.{layer}")
        linear(f"denoiser.layers.{layer}.modulator.fc", width, 9 * width)
    shapes["denoiser.layer_norm.weight"] = (width,)
    linear("denoiser.final_proj.fc", width, dim)
    return shapes


SMALL = {"base": (64, (2,)), "two-tower": (64, (1, 2))}


def official_weights(variant: str, **changes: Tensor) -> dict[str, Tensor]:
    """A small checkpoint with random weights."""
    generator = torch.Generator().manual_seed(0)
    width, layers = SMALL[variant]
    shapes = official_shapes(variant, width, layers, DIM)
    weights = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name in weights:
        if name.endswith("sonar_normalizer.scale"):
            weights[name] = 0.01 + weights[name].abs()
    return weights | changes


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("variant", "preset", "width", "layers", "num_parameters"),
    [
        ("base", "1.6b", 2048, (32,), 1_649_185_792),
        ("two-tower", "1.6b", 2048, (5, 13), 1_645_538_304),
        ("two-tower", "7b", 4096, (5, 14), 6_930_781_696),
    ],
)
def test_every_weight_of_the_published_architectures_has_its_place(
    variant: str, preset: str, width: int, layers: tuple[int, ...], num_parameters: int
) -> None:
    shapes = official_shapes(variant, width, layers)
    counted = sum(math.prod(shape) for name, shape in shapes.items() if "sonar_normalizer" not in name)
    assert counted == num_parameters
    with torch.device("meta"):
        model = build_model(variant, preset)
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if ".clip_" not in name}
    renamed = {official_name(variant, name): shape for name, shape in ours.items()}
    assert len(renamed) == len(ours)
    assert renamed == shapes


@variants
@pytest.mark.parametrize("wrapped", ["model", "keyed", "bare", "ddp"])
def test_a_checkpoint_is_read_whole(variant: str, wrapped: str, tmp_path: Path) -> None:
    weights = official_weights(variant)
    content: dict[str, Any] = {
        "model": {"model": weights},
        "keyed": {"model_key": "weights", "weights": weights, "step": 3},
        "bare": weights,
        "ddp": {"model": {f"module.{name}": tensor.half() for name, tensor in weights.items()}},
    }[wrapped]
    model = load_official(saved(tmp_path / "model.pt", content), {"num_heads": 2})
    back = official_state(model)
    assert back.keys() == weights.keys()
    for name, tensor in back.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, weights[name].half().float() if wrapped == "ddp" else weights[name]), name
    config = model.config.model_dump()
    assert (config["width"], config["concept_dim"], config["num_heads"]) == (64, DIM, 2)
    trains = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    frozen = {n for n, m in model.named_modules() if isinstance(m, SelfOnly)}
    assert {name.rsplit(".", 2)[0] for name in trains} == frozen
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def plain_of(model: ConceptModel) -> Any:
    """The plain network with the weights of a model, through the official names."""
    plain, config = benchmark("plain_lcm"), model.config.model_dump()
    sizes = (config["concept_dim"], config["width"], config["num_heads"])
    if isinstance(model, DiffusionModel):
        network = plain.PlainTwoTower(*sizes, (config["num_context_layers"], config["num_denoiser_layers"]))
    else:
        network = plain.PlainBase(*sizes, config["num_layers"])
    network.load_state_dict(official_state(model))
    return network.eval()


def test_base_computes_what_the_plain_network_computes() -> None:
    model = toy_model("base")
    plain, batch = plain_of(model), Batch.of(documents(9, 9))
    assert torch.allclose(plain.loss(batch.x_BSD), model(batch).mean(), rtol=1e-5)
    found = model.next_concepts(model.start(list(batch.x_BSD)))
    assert torch.allclose(plain.next_concepts(batch.x_BSD), found, atol=1e-7)


def test_two_tower_computes_what_the_plain_network_computes() -> None:
    """Loss at levels of their own with contexts dropped, and sampling with guidance, rescaled, from the same noise."""
    model = toy_model("two-tower")
    assert isinstance(model, DiffusionModel)
    plain, batch = plain_of(model), Batch.of(documents(9, 9))
    draws = model.draw(batch, torch.Generator().manual_seed(1))
    drop_BS = draws.drop_BS.clone()
    drop_BS[0, 3:6] = True
    draws = draws._replace(drop_BS=drop_BS)
    tables = (model.schedule.alpha_T, model.schedule.sigma_T)
    loss = plain.loss(batch.x_BSD, draws.level_BS, draws.drop_BS, draws.noise_BSD, *tables)
    assert torch.allclose(loss, model(batch, draws).mean(), rtol=1e-5)

    noise_BD = torch.cat([torch.randn(1, DIM, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)])
    found = model.next_concepts(model.start(list(batch.x_BSD), [5, 6]), quick(model, steps=40))
    expected = plain.next_concepts(batch.x_BSD, noise_BD, sampling_levels(100, 40), *tables)
    assert torch.allclose(found, expected, atol=1e-4 * float(normalizer().scale.mean()))


@variants
def test_what_is_written_is_read_again(variant: str, tmp_path: Path) -> None:
    model = toy_model(variant, **({"diffusion": {"prediction": "v"}} if variant == "two-tower" else {}))
    save_official(model, tmp_path / "model.pt")
    again = load_official(tmp_path / "model.pt").eval()  # what the weights do not tell stands beside them
    assert again.config == model.config
    assert load_official(tmp_path / "model.pt", {"max_len": 7}).config.max_len == 7
    prefixes = documents(5, 3)
    assert torch.equal(again.step(again.start(prefixes)), model.step(model.start(prefixes)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt"]


@variants
def test_bounds_of_the_normaliser_travel(variant: str, tmp_path: Path) -> None:
    model = toy_model(variant)
    assert not any("clip" in name for name in official_state(model))
    model.scaler.clip_min_D.fill_(-3)
    model.scaler.clip_max_D.fill_(4)
    save_official(model, tmp_path / "model.pt")
    again = load_official(tmp_path / "model.pt")
    assert torch.equal(again.scaler.clip_min_D, model.scaler.clip_min_D)
    assert torch.equal(again.scaler.clip_max_D, model.scaler.clip_max_D)


def test_a_base_model_may_have_no_normaliser(tmp_path: Path) -> None:
    weights = {name: w for name, w in official_weights("base").items() if "sonar_normalizer" not in name}
    model = load_official(saved(tmp_path / "model.pt", weights), {"num_heads": 2})
    assert torch.equal(model.scaler.normalize(torch.ones(DIM)), torch.ones(DIM))
    weights = {name: w for name, w in official_weights("two-tower").items() if "sonar_normalizer" not in name}
    with pytest.raises(CheckpointError, match=r"lacks 2 weights of a two-tower model: sonar_normalizer\.center"):
        load_official(saved(tmp_path / "other.pt", weights))


@variants
def test_other_options_of_the_official_code_are_refused(variant: str, tmp_path: Path) -> None:
    stack = "lcm" if variant == "base" else "context_encoder"
    home = "frontend" if variant == "base" else "encoder_frontend"
    for name in (f"{stack}.layers.0.self_attn.q_layer_norm.weight", f"{home}.pos_encoder.weight"):
        path = saved(tmp_path / "model.pt", official_weights(variant, **{name: torch.ones(64)}))
        with pytest.raises(CheckpointError, match=f"was made with options .* nothing here takes {name}"):
            load_official(path)
    wide = {f"{stack}.layers.0.ffn.inner_proj.weight": torch.ones(100, 64)}
    with pytest.raises(CheckpointError, match=r"inner_proj.weight is \(100, 64\), expected \(256, 64\)"):
        load_official(saved(tmp_path / "model.pt", official_weights(variant, **wide)))


def test_other_files_are_refused(tmp_path: Path) -> None:
    for content, message in (
        ({"model": {"weight": torch.ones(2)}}, "no checkpoint of the official Base-LCM or Two-Tower: .*weight"),
        ({"step": 3}, "holds no weights"),
        ([1, 2], "holds no weights"),
        ({"model": Path("x")}, "cannot be read as weights alone"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_official(saved(tmp_path / "model.pt", content))
    (tmp_path / "model.pt").write_bytes(b"no torch file")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_official(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_official(tmp_path / "none.pt")


def test_what_the_official_code_has_not_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"OneTower .* not in the official code: it has base and two-tower"):
        save_official(toy_model("one-tower"), tmp_path / "model.pt")
    with pytest.raises(UsageError, match="feed_forward 'plain' is not in the official code"):
        save_official(toy_model("base", feed_forward="plain"), tmp_path / "model.pt")
    with pytest.raises(StorageError, match="cannot write"):
        save_official(toy_model("base"), tmp_path / "none" / "model.pt")
