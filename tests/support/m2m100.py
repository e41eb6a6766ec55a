"""SONAR networks as transformers' M2M100 classes, a third implementation of the same mathematics to compare with.

Needs transformers. Ids and embedding rows are in Hugging Face's order, which differs in the first four.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]

_NAMES = {
    "self_attn.output_proj": "self_attn.out_proj",
    "encoder_decoder_attn.output_proj": "encoder_decoder_attn.out_proj",
    "encoder_decoder_attn": "encoder_attn",
    "ffn.inner_proj": "fc1",
    "ffn.output_proj": "fc2",
    "ffn_layer_norm": "final_layer_norm",
}
_OURS_OF_THEIRS = [2, 0, 3, 1]
_THEIRS_OF_OURS = [1, 3, 0, 2]


def hf_ids(ids: Tensor) -> Tensor:
    """Token ids in Hugging Face's numbering."""
    moved = ids.clone()
    for ours, theirs in enumerate(_THEIRS_OF_OURS):
        moved[ids == ours] = theirs
    return moved


def encoder_state(state: State) -> dict[str, Tensor]:
    """An encoder's tensors as ``M2M100Encoder`` names and orders them (``state`` has fairseq2's names)."""
    return _renamed(state, "encoder.", "encoder_frontend.embed.weight")


def m2m100_encoder(state: State, num_heads: int) -> nn.Module:
    """The network of an encoder's state dict."""
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

    theirs = encoder_state(state)
    ffn_dim = theirs["layers.0.fc1.weight"].shape[0]
    network = M2M100Encoder(
        _config(theirs, encoder_layers=_depth(theirs), encoder_attention_heads=num_heads, encoder_ffn_dim=ffn_dim)
    )
    network.load_state_dict(theirs)
    return network.eval()


def m2m100_decoder(full_state: State, num_heads: int) -> nn.Module:
    """The network of a decoder's state dict with all names, of which the output projection is the embedding."""
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Decoder

    theirs = _renamed(full_state, "decoder.", "decoder_frontend.embed.weight")
    theirs.pop("final_proj.weight")
    ffn_dim = theirs["layers.0.fc1.weight"].shape[0]
    network = M2M100Decoder(
        _config(theirs, decoder_layers=_depth(theirs), decoder_attention_heads=num_heads, decoder_ffn_dim=ffn_dim)
    )
    network.load_state_dict(theirs)
    return network.eval()


def decoder_logits(network: nn.Module, emb_PD: Tensor, ids_PT: Tensor) -> Tensor:
    """Logits [P, T, V] in our order of the vocabulary, for prefixes in our ids."""
    with torch.inference_mode():
        hidden = network(input_ids=hf_ids(ids_PT), encoder_hidden_states=emb_PD[:, None]).last_hidden_state
        logits = hidden @ network.embed_tokens.weight.T
    return logits[..., hf_ids(torch.arange(logits.shape[-1]))]


def _renamed(state: State, prefix: str, embedding: str) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        hf = name.removeprefix(prefix)
        for ours, theirs in _NAMES.items():
            hf = hf.replace(ours, theirs)
        if name == embedding:
            hf, tensor = "embed_tokens.weight", tensor.clone()
            tensor[:4] = tensor[_OURS_OF_THEIRS]
        renamed[hf] = tensor
    return renamed


def _depth(state: State) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers."))


def _config(state: State, **sizes: int) -> Any:
    from transformers import M2M100Config

    vocab_size, dim = state["embed_tokens.weight"].shape
    return M2M100Config(
        vocab_size=vocab_size,
        d_model=dim,
        max_position_embeddings=1024,
        scale_embedding=True,
        activation_function="relu",
        **sizes,
    )
