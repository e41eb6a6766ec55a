"""The reference backend for speech: Meta's sonar-space pipeline, for comparison and for cards that only it understands.

As ``lcm_data.encode.sonar_space`` otherwise: a model is a card name, loaded by sonar-space itself, or a path or Hub
name of ours, read by ``lcm_data.sonar.speech_checkpoint`` and run through sonar-space's own filter bank and network.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lcm_data.encode.base import EncoderOptions, Prepared
from lcm_data.encode.batching import Indices, padded_batches
from lcm_data.encode.halving import run_halving
from lcm_data.encode.sonar_space import _import_sonar, _is_card
from lcm_data.encode.speech import Float32, prepare_waves
from lcm_data.errors import CheckpointError, UsageError
from lcm_data.sonar.checkpoint import resolve_device
from lcm_data.sonar.speech_checkpoint import SpeechFiles, find_speech_model, read_speech_state
from lcm_data.sonar.speech_config import SpeechEncoderConfig

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

POSITION_BUDGETS = {"cpu": 1024, "cuda": 8192}
"""Positions of a batch, padding included; its attention holds all distances at once, so long clips need room."""


class SonarSpaceSpeechEncoder:
    """``lcm_data.encode.speech.SpeechEncoder`` over ``SpeechToEmbeddingModelPipeline``."""

    def __init__(self, options: EncoderOptions) -> None:
        _import_sonar()
        import torch
        from sonar.inference_pipelines.speech import SpeechToEmbeddingModelPipeline

        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self._device = resolve_device(options.device)
        self._dtype = getattr(torch, options.dtype)
        described = self.describe(options)
        if _is_card(options.model):
            self._pipeline = SpeechToEmbeddingModelPipeline(options.model, device=self._device)
        else:
            network = reference_speech_model(find_speech_model(options.model))
            self._pipeline = SpeechToEmbeddingModelPipeline(network, device=self._device)
        # Features are made in float32 and cast, as ours; the pipeline would compute the filter bank in half precision.
        self._pipeline.model.to(dtype=self._dtype)
        self._pipeline.model.register_forward_pre_hook(self._cast)
        self._budget = options.token_budget or POSITION_BUDGETS.get(self._device.type, POSITION_BUDGETS["cpu"])
        self._max_positions = int(described["max_seq_len"])
        self.dim = int(described["dim"])
        self.busy_seconds = 0.0
        self.num_ooms = 0
        self.provenance = {**described, "device": self._device.type, "token_budget": str(self._budget)}

    @staticmethod
    def describe(options: EncoderOptions) -> dict[str, str]:
        """See ``SpeechEncoder.describe``."""
        version = _import_sonar()
        card = _is_card(options.model)
        identity = _card_identity(options.model) if card else find_speech_model(options.model).identity()
        backend = {"encoder_backend": "sonar-space", "encoder_backend_version": version}
        return {**identity, **backend, "compute_dtype": options.dtype}

    def prepare(self, waves: Sequence[Float32]) -> Prepared:
        """See ``SpeechEncoder.prepare``."""
        return prepare_waves(waves, self._max_positions)

    def embed(self, prepared: Prepared, rows: npt.NDArray[np.integer[Any]] | None = None) -> Float32:
        """See ``SpeechEncoder.embed``."""
        chosen = np.arange(len(prepared)) if rows is None else np.asarray(rows, dtype=np.int64)
        vectors_NE = np.empty((len(chosen), self.dim), np.float32)

        def run(batch: Indices) -> None:
            vectors_NE[batch] = self._predict([prepared.payload[row] for row in chosen[batch]])

        started = time.perf_counter()
        for batch in padded_batches(prepared.num_tokens[chosen], self._budget):
            run_halving(run, batch, self._did_not_fit)
        self.busy_seconds += time.perf_counter() - started
        return vectors_NE

    def _predict(self, waves: list[Float32]) -> Float32:
        """Vectors [B, E] of some clips, as one padded batch."""
        import torch

        clips = [torch.from_numpy(wave).unsqueeze(0) for wave in waves]
        vectors: Float32 = self._pipeline.predict(clips, batch_size=len(clips)).float().cpu().numpy()
        return vectors

    def _cast(self, _network: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        features, layout = inputs
        return features.to(self._dtype), layout

    def _did_not_fit(self, batch: Indices) -> None:
        import torch

        self.num_ooms += 1
        logger.warning("a batch of %d clips did not fit into memory and runs in halves", len(batch))
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def reference_speech_model(files: SpeechFiles) -> Any:
    """sonar-space's own network, holding the weights of ``files`` (float32, on the CPU)."""
    layout = files.layout()
    return reference_speech_network(layout.config, read_speech_state(files.weights, layout))


def reference_speech_network(sizes: SpeechEncoderConfig, state: dict[str, torch.Tensor]) -> Any:
    """sonar-space's own network from its own factory, with the tensors of ``state`` (our names, which are fairseq2's).

    Raises:
        UsageError: sizes that sonar-space cannot have.
    """
    _import_sonar()
    from fairseq2.models.transformer import TransformerNormOrder
    from fairseq2.models.w2vbert import W2VBertConfig
    from sonar.models.sonar_speech import SonarSpeechEncoderConfig, SonarSpeechEncoderFactory

    if {sizes.pooler_vocab, sizes.embedding_dim} != {sizes.model_dim}:
        raise UsageError(
            f"sonar-space has one width for everything, got model_dim={sizes.model_dim}, embedding_dim="
            f"{sizes.embedding_dim} and pooler_vocab={sizes.pooler_vocab}. Use the backend native."
        )
    encoder = W2VBertConfig().w2v2_config.encoder_config
    encoder.model_dim = sizes.model_dim
    encoder.max_seq_len = sizes.max_positions
    encoder.feature_dim = sizes.num_features
    encoder.num_encoder_layers = sizes.num_layers
    encoder.num_encoder_attn_heads = sizes.num_heads
    encoder.ffn_inner_dim = sizes.ffn_dim
    encoder.depthwise_conv_kernel_size = sizes.kernel_size
    config = SonarSpeechEncoderConfig(
        w2v2_encoder_config=encoder,
        final_dropout_p=0.1,
        model_dim=sizes.model_dim,
        max_seq_len=1024,
        pad_idx=1,
        bos_idx=2,
        num_decoder_layers=sizes.pooler_layers,
        num_decoder_attn_heads=sizes.pooler_heads,
        decoder_norm_order=TransformerNormOrder.POST,
        ffn_inner_dim=sizes.pooler_ffn_dim,
        dropout_p=0.1,
    )
    network = SonarSpeechEncoderFactory(config).create_model().eval()
    # What no result depends on is not read: query and key of the pooler's self-attention, and counters.
    missing, unexpected = network.load_state_dict(state, strict=False)
    idle = ("self_attn.q_proj.weight", "self_attn.q_proj.bias", "self_attn.k_proj.weight", "self_attn.k_proj.bias")
    unset = [name for name in missing if not (name.startswith("encoder_pooler.") and name.endswith(idle))]
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in unset), unset
    return network


def _card_identity(name: str) -> dict[str, str]:
    """Hashes of the file behind a card, downloaded by fairseq2 if need be."""
    from fairseq2.assets import AssetNotFoundError, get_asset_download_manager, get_asset_store

    try:
        card = get_asset_store().retrieve_card(name)
        weights = Path(get_asset_download_manager().download_model(card.field("checkpoint").as_uri(), name))
    except AssetNotFoundError as error:
        raise CheckpointError(f"model {name}: no such file or folder, and no card of sonar-space ({error}).") from error
    except Exception as error:
        raise CheckpointError(f"cannot get the files of sonar-space's card {name} ({error}).") from error
    return SpeechFiles(name=name, weights=weights, hints={}).identity()
