"""Checkpoints of speech encoders as they are published: fairseq's names, under "model", with what nobody needs."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lcm_data.sonar.speech_layout import fairseq_name

IDLE = ("self_attn.q_proj.weight", "self_attn.q_proj.bias", "self_attn.k_proj.weight", "self_attn.k_proj.bias")


def fairseq_checkpoint(state: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """What ``spenc.eng.pt`` holds, made of tensors under our names."""
    tensors = {fairseq_name(name): tensor for name, tensor in state.items()}
    width = len(state["layer_norm.weight"])
    poolers = {name.split(".")[3] for name in state if name.startswith("encoder_pooler.decoder.layers.")}
    for number in poolers:
        for name in IDLE:
            shape = (width, width) if name.endswith("weight") else (width,)
            tensors[f"decoder.layers.{number}.{name}"] = torch.randn(shape)
    layers = {name.split(".")[2] for name in state if name.startswith("encoder.layers.")}
    for number in layers:
        place = f"encoder.w2v_model.encoder.layers.{number}.conv_module.batch_norm.num_batches_tracked"
        tensors[place] = torch.tensor(7)
    tensors["encoder.w2v_model.mask_emb"] = torch.randn(width)
    for name in ("bias", "weight_g", "weight_v"):
        tensors[f"encoder.w2v_model.encoder.pos_conv.0.{name}"] = torch.randn(3)
    tensors["decoder.version"] = torch.tensor([3.0])
    tensors["decoder.embed_positions._float_tensor"] = torch.zeros(1)
    return {"model": tensors}
