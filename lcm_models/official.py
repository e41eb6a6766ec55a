"""Checkpoints of the official code, github.com/facebookresearch/large_concept_model: read, and written for it.

It has Base-LCM and Two-Tower in the architectures the paper names; ``NAMES`` maps their weights. Everything else a
checkpoint of its trainer holds (optimiser, data pipeline) stays there. Normalisers in files of their own are the
business of ``lcm_data.normalize``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcm_data.errors import CheckpointError, StorageError, UsageError
from lcm_models import LCMS, build_model
from lcm_models.config import merge_settings
from lcm_models.diffusion.model import DiffusionModel
from lcm_models.diffusion.schedules import Schedule
from lcm_models.model import ConceptModel

_BLOCK = {
    "attention_norm": "self_attn_layer_norm",
    "attention": "self_attn",
    "ffn_norm": "ffn_layer_norm",
    "ffn": "ffn",
}
_DENOISER_LAYER = {
    "adaln.proj": "modulator.fc",
    "self_norm": "self_attn_layer_norm",
    "self_attention": "self_attn",
    "cross_norm": "cross_attention_layer_norm",
    "cross_attention": "cross_attention",
    "ffn_norm": "ffn_layer_norm",
    "ffn": "ffn",
}
_NORMALIZER = {"center_D": "center", "scale_D": "scale", "clip_min_D": "clip_min", "clip_max_D": "clip_max"}


def _inside(here: str, there: str, names: Mapping[str, str]) -> dict[str, str]:
    return {f"{here}.{ours}": f"{there}.{theirs}" for ours, theirs in names.items()}


NAMES: dict[str, dict[str, str]] = {
    "base": {
        **_inside("scaler", "frontend.sonar_normalizer", _NORMALIZER),
        "prenet": "frontend.pre_linear",
        **_inside("tower.layers.#", "lcm.layers.#", _BLOCK),
        "tower.norm": "lcm.layer_norm",
        "postnet": "postnet.fc",
    },
    "two-tower": {
        **_inside("scaler", "sonar_normalizer", _NORMALIZER),
        "context_prenet": "encoder_frontend.pre_linear",
        **_inside("contextualizer.layers.#", "context_encoder.layers.#", _BLOCK),
        "contextualizer.norm": "context_encoder.layer_norm",
        "embed_level.inner_proj": "denoiser.embed_time.fc1",
        "embed_level.output_proj": "denoiser.embed_time.fc2",
        "prenet": "denoiser.initial_proj.fc",
        **_inside("denoiser.#", "denoiser.layers.#", _DENOISER_LAYER),
        "norm": "denoiser.layer_norm",
        "postnet": "denoiser.final_proj.fc",
    },
}
"""By variant: our name of a module or buffer, and the official one; # is the number of a layer.

Inside attention (``q_proj``, ``k_proj``, ``v_proj``, ``output_proj``) and feed-forward (``gate_proj``, ``inner_proj``,
``output_proj``) names are the same, and so are the orders of rows: heads, rotary pairs, shift, scale and gate.
"""

HEAD_DIM = 128
"""Width of a head in all official architectures; a checkpoint does not tell."""

_CONFIG = "lcm_models_config"
_OPTIONAL = re.compile(r"scaler\.clip_m(in|ax)_D")


def load_official(path: str | Path, settings: Mapping[str, Any] | None = None) -> ConceptModel:
    """A model with the weights, and the normaliser, of an official checkpoint; weights become float32.

    Variant and sizes are read off the file. What it does not tell comes from ``settings``, as for ``build_model``:
    ``num_heads`` (default: heads of 128), the noise schedule (default: cosine, 100 levels), ``official_compat``.
    A Base-LCM trained without normaliser gets none.

    Args:
        path: what the trainer wrote: a torch file ``{"model": weights}``, or the weights themselves.

    Raises:
        CheckpointError: missing, damaged, of another architecture, or made with options that no variant here has.
        UsageError: a setting does not fit.
    """
    weights, config = _read(path)
    variant = next((name for name in NAMES if _first(name) in weights), None)
    if variant is None:
        raise CheckpointError(
            f"{path} is no checkpoint of the official Base-LCM or Two-Tower: it begins with {_some(weights)}."
        )
    with torch.device("meta"):  # without memory, and without drawing weights that are to be replaced
        sizes = merge_settings(_sizes(variant, weights), config)
        model = build_model(variant, settings=merge_settings(sizes, settings or {}))
    renamed = _renamed(path, model, variant, weights)
    model.scaler.to_empty(device="cpu").reset_parameters()
    if isinstance(model, DiffusionModel):
        model.schedule = Schedule(model.schedule.config)
    model.load_state_dict({**_prefixed("scaler", model.scaler.state_dict()), **renamed}, assign=True)
    return model


def save_official(model: ConceptModel, path: str | Path) -> None:
    """Write a checkpoint ``{"model": weights}`` that the official code loads; ``load_official`` also finds the config.

    Raises:
        UsageError: the official code has no such variant, or no such feed-forward.
        StorageError: the file cannot be written.
    """
    state = {"model": official_state(model), _CONFIG: model.config.model_dump(mode="json")}
    temporary = Path(path).with_name(f".{Path(path).name}.tmp")
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a missing folder as RuntimeError
        raise StorageError(f"cannot write {path}: {error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def official_state(model: ConceptModel) -> dict[str, Tensor]:
    """The weights, on the CPU, under their official names; bounds of the normaliser only if it has any.

    Raises:
        UsageError: the official code has no such variant, or no such feed-forward.
    """
    variant = next((name for name in NAMES if LCMS[name].endswith(f":{type(model).__name__}")), None)
    if variant is None or model.config.feed_forward != "swiglu":
        raise UsageError(
            f"{type(model).__name__} with feed_forward {model.config.feed_forward!r} is not in the official code: "
            f"it has {' and '.join(NAMES)}, with 'swiglu'."
        )
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    return {
        official_name(variant, name): tensor
        for name, tensor in state.items()
        if not _OPTIONAL.fullmatch(name) or bool(tensor.isfinite().all())
    }


def official_name(variant: str, name: str) -> str:
    """The official name of one of our tensors."""
    layers = re.findall(r"\.(\d+)\.", name)
    general = re.sub(r"\.\d+\.", ".#.", name)
    module = max((part for part in NAMES[variant] if general == part or general.startswith(f"{part}.")), key=len)
    theirs = NAMES[variant][module] + general.removeprefix(module)
    return theirs.replace("#", layers[0]) if layers else theirs


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of a torch file, without the prefix of DistributedDataParallel, and the config if we wrote it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.") from error
    except Exception as error:  # whatever unpickling a foreign file raises
        first = str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")
        raise CheckpointError(
            f"{path} cannot be read as weights alone: {first}. If it holds more than tensors, "
            "save its part 'model' by itself."
        ) from error
    weights = content.get(content.get("model_key", "model"), content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(w, Tensor) for w in weights.values()):
        raise CheckpointError(f"{path} holds no weights: expected a dictionary of tensors, alone or under 'model'.")
    config = content.get(_CONFIG, {}) if weights is not content else {}
    return {name.removeprefix("module."): tensor for name, tensor in weights.items()}, config


def _sizes(variant: str, weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Settings that the shapes and names of the weights tell."""
    width, concept_dim = weights[_first(variant)].shape
    sizes = {"width": width, "concept_dim": concept_dim, "num_heads": max(1, width // HEAD_DIM)}
    stacks = {"num_layers": "lcm.layers"}
    if variant == "two-tower":
        stacks = {"num_context_layers": "context_encoder.layers", "num_denoiser_layers": "denoiser.layers"}
    for setting, stack in stacks.items():
        numbers = [int(found[1]) for name in weights if (found := re.match(rf"{stack}\.(\d+)\.", name))]
        sizes[setting] = 1 + max(numbers, default=0)
    return sizes


def _first(variant: str) -> str:
    """The official name of the weight by which a variant is known, and whose shape tells its widths."""
    return official_name(variant, "prenet.weight" if variant == "base" else "context_prenet.weight")


def _renamed(path: str | Path, model: ConceptModel, variant: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names, copied as float32; every one of them is used."""
    ours = {official_name(variant, name): name for name in model.state_dict()}
    optional = [there for there, name in ours.items() if _OPTIONAL.fullmatch(name)]
    if variant == "base" and not any("sonar_normalizer" in name for name in weights):
        optional += [there for there, name in ours.items() if name.startswith("scaler.")]
    if missing := sorted(ours.keys() - weights.keys() - set(optional)):
        raise CheckpointError(f"{path} lacks {len(missing)} weights of a {variant} model: {_some(missing)}.")
    if unknown := sorted(weights.keys() - ours.keys()):
        raise CheckpointError(
            f"{path} was made with options that {variant} has not (learned positions, norms of queries and keys, "
            f"weight normalisation or others): nothing here takes {_some(unknown)}."
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for there, weight in weights.items():
        if tuple(weight.shape) != shapes[ours[there]]:
            raise CheckpointError(
                f"{path} is of another architecture: {there} is {tuple(weight.shape)}, expected {shapes[ours[there]]}."
            )
    return {ours[there]: weight.to(torch.float32, copy=True) for there, weight in weights.items()}


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
