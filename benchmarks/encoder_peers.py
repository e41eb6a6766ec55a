"""The same weights in the networks of others, for ``benchmarks/encoder.py``: transformers and sonar-space's pipeline.

Each maker returns ``run(batch_size) -> float32 [N, D]``. Tokenising is left out of all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch

from lcm_data.sonar.text_encoder import TextEncoder

Peer = Callable[[int], np.ndarray]


def transformers_peer(network: TextEncoder, ids: np.ndarray, lengths: np.ndarray, *, length_sorted: bool) -> Peer:
    """transformers' M2M100Encoder with masked mean pooling over padded batches, in input order or sorted by length."""
    from transformers import M2M100Config
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

    c, weight = network.config, network.layer_norm.weight
    sizes = {"vocab_size": c.vocab_size, "d_model": c.model_dim, "encoder_layers": c.num_layers}
    sizes |= {"encoder_attention_heads": c.num_heads, "encoder_ffn_dim": c.ffn_dim}
    config = M2M100Config(**sizes, max_position_embeddings=1024, activation_function="relu", pad_token_id=1)
    with torch.device("meta"):
        peer = M2M100Encoder(config)
    names = {
        "encoder_frontend.embed": "embed_tokens",
        "encoder.layers": "layers",
        "self_attn.output_proj": "self_attn.out_proj",
        "ffn.inner_proj": "fc1",
        "ffn.output_proj": "fc2",
        "ffn_layer_norm": "final_layer_norm",
    }
    state = {}
    for name, tensor in network.state_dict().items():
        for mine, theirs in names.items():
            name = name.replace(mine, theirs)
        state[name] = tensor
    peer.load_state_dict(state, assign=True)
    positions = M2M100Encoder(M2M100Config(**{**sizes, "encoder_layers": 0, "vocab_size": 8})).embed_positions
    peer.embed_positions = positions.to(weight.device, weight.dtype)
    peer.eval()
    rows = [torch.from_numpy(row).long() for row in np.split(ids, np.cumsum(lengths)[:-1])]
    order = np.argsort(lengths, kind="stable") if length_sorted else np.arange(len(lengths))

    def forward(batch: np.ndarray) -> torch.Tensor:
        counts_N = torch.from_numpy(lengths[batch])
        padded_NL = torch.nn.utils.rnn.pad_sequence([rows[i] for i in batch], batch_first=True, padding_value=1)
        mask_NL = (torch.arange(padded_NL.shape[1])[None] < counts_N[:, None]).to(weight.device)
        hidden = peer(input_ids=padded_NL.to(weight.device), attention_mask=mask_NL.long()).last_hidden_state
        means: torch.Tensor = (hidden * mask_NL[..., None]).float().sum(1) / (mask_NL.sum(1, keepdim=True) + 1e-7)
        return means

    def run(batch_size: int) -> np.ndarray:
        out = np.empty((len(order), c.model_dim), np.float32)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            out[batch] = forward(batch).cpu().numpy()
        return out

    return run


class _Rows:
    """A tokenizer whose texts begin with the number of a row of ids known beforehand."""

    vocab_info = SimpleNamespace(pad_idx=0)

    def __init__(self, rows: list[np.ndarray]) -> None:
        self._rows = [torch.from_numpy(row).long() for row in rows]

    def create_encoder(
        self, lang: str | None = None, device: torch.device | None = None
    ) -> Callable[[str], torch.Tensor]:
        return lambda text: self._rows[int(text.split(" ", 1)[0])].to(device)


def sonar_space_peer(network: TextEncoder, ids: np.ndarray, lengths: np.ndarray) -> Peer:
    """sonar-space's own network in its own pipeline, which sorts by the number of characters and pads."""
    from lcm_data.encode.sonar_space import reference_network

    weight = network.layer_norm.weight
    peer = reference_network(network.config, network.state_dict(), weight.dtype).to(weight.device)
    from sonar.inference_pipelines.text import TextToEmbeddingModelPipeline

    noise = np.random.default_rng(1).normal(0, 0.15, len(lengths))  # characters follow tokens only roughly
    num_chars = np.maximum(lengths * 4.5 * np.exp(noise), 1).astype(int)
    texts = [f"{row} ".ljust(8 + count, "x") for row, count in enumerate(num_chars.tolist())]
    tokenizer = _Rows(np.split(ids, np.cumsum(lengths)[:-1]))
    pipeline = TextToEmbeddingModelPipeline(peer, tokenizer, device=weight.device, dtype=weight.dtype)

    def run(batch_size: int) -> np.ndarray:
        vectors: np.ndarray = (
            pipeline.predict(texts, source_lang="eng_Latn", batch_size=batch_size).float().cpu().numpy()
        )
        return vectors

    return run
