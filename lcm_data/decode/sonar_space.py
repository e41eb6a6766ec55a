"""The reference backend: Meta's sonar-space decoder and fairseq2's generators, for comparison and for its own cards.

It needs the extra ``sonar-space``. A model is a card name, loaded by sonar-space itself, or a path or Hub name of ours,
read by ``lcm_data.sonar.checkpoint`` and run through sonar-space's own network and tokenizer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lcm_data.decode.base import Decoded, DecoderOptions, check_vectors
from lcm_data.encode.sonar_space import _DEFAULT_LANG, _import_sonar, _is_card
from lcm_data.errors import CheckpointError, UsageError
from lcm_data.sonar.checkpoint import read_decoder_state, resolve_device
from lcm_data.sonar.files import ModelFiles, find_model
from lcm_data.sonar.settings import PROMPT_LENGTH, Generation

if TYPE_CHECKING:
    import torch

    from lcm_data.sonar.config import TextDecoderConfig

BATCH_ROWS = {"cpu": 25, "cuda": 320}
"""Hypotheses at once; 25 is the pipeline's own 5 sentences of 5 beams."""


class SonarSpaceDecoder:
    """``lcm_data.decode.base.Decoder`` over ``EmbeddingToTextModelPipeline`` and its generators."""

    def __init__(self, options: DecoderOptions) -> None:
        _import_sonar()
        import torch
        from sonar.inference_pipelines.text import EmbeddingToTextModelPipeline

        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self._how = options.generation
        if self._how.top_k is not None and self._how.top_p is not None:
            raise UsageError("fairseq2 samples by top_p or by top_k, not by both. Leave one out.")
        self._device = resolve_device(options.device)
        self._dtype = getattr(torch, options.dtype)
        if _is_card(options.model):
            model, tokenizer = options.model, options.model
        else:
            model, tokenizer = reference_decoder(find_model(options.model, "decoder"), self._dtype)
            model.to(device=self._device)
        self._pipeline = EmbeddingToTextModelPipeline(model, tokenizer, device=self._device, dtype=self._dtype)
        rows = options.batch_rows or BATCH_ROWS.get(self._device.type, BATCH_ROWS["cpu"])
        self._batch_size = max(1, rows // self._how.width)
        described = self.describe(options)
        self.dim = int(described["dim"])
        self._limit = self._how.limit(int(described["max_seq_len"]))
        self.busy_seconds = 0.0
        self.num_ooms = 0
        self.provenance = {**described, "device": self._device.type, "batch_rows": str(rows)}

    @staticmethod
    def describe(options: DecoderOptions) -> dict[str, str]:
        """See ``Decoder.describe``."""
        version = _import_sonar()
        is_card = _is_card(options.model)
        files = _card_files(options.model) if is_card else find_model(options.model, "decoder")
        identity = files.identity("decoder")
        options.generation.check_fits(files.layout("decoder").config.vocab_size, int(identity["max_seq_len"]))
        if is_card:
            identity.pop("num_heads")
        backend = {"decoder_backend": "sonar-space", "decoder_backend_version": version}
        return {**identity, **backend, "compute_dtype": options.dtype, **options.describe()}

    def decode(
        self, emb: npt.NDArray[np.floating[Any]], lang: str, keys: npt.NDArray[np.int64] | None = None
    ) -> Decoded:
        """See ``Decoder.decode``. Sentences are drawn one by one: fairseq2's draws depend on the batch."""
        vectors, names = check_vectors(emb, keys, self.dim)
        convert = self._converter(lang)
        texts, scores = [""] * len(vectors), np.full(len(vectors), np.nan, np.float32)
        num_tokens, truncated = np.zeros(len(vectors), np.int32), np.zeros(len(vectors), np.bool_)
        sound = np.flatnonzero(np.isfinite(vectors).all(axis=1))
        size = 1 if self._how.mode == "sample" else self._batch_size
        started = time.perf_counter()
        for start in range(0, len(sound), size):
            rows = sound[start : start + size]
            said, hypotheses = convert(vectors[rows], int(names[rows[0]]))
            for row, text, best in zip(rows, said, hypotheses, strict=True):
                texts[row], scores[row], num_tokens[row] = text, float(best[0].score), len(best[0].seq)
                truncated[row] = num_tokens[row] + PROMPT_LENGTH == self._limit
        self.busy_seconds += time.perf_counter() - started
        return Decoded(texts=texts, scores=scores, num_tokens=num_tokens, truncated=truncated)

    def _converter(self, lang: str) -> Callable[[npt.NDArray[np.float32], int], tuple[list[str], Any]]:
        """A batch of vectors and the key of the first to texts and n-best lists, with the network in one language."""
        import torch
        from fairseq2.error import NotSupportedError
        from fairseq2.generation.text import SequenceToTextConverter
        from fairseq2.nn import BatchLayout

        pipeline = self._pipeline
        generator = reference_generator(pipeline.model, pipeline.tokenizer.vocab_info, self._how, self._limit)
        try:
            converter = SequenceToTextConverter(generator, pipeline.tokenizer, task="translation", target_lang=lang)
        except NotSupportedError as error:
            raise UsageError(f"language {lang!r} is unknown to the model: {error}") from error

        def run(vectors: npt.NDArray[np.float32], key: int) -> tuple[list[str], Any]:
            emb = torch.from_numpy(vectors).to(device=self._device, dtype=self._dtype)
            with torch.inference_mode(), torch.random.fork_rng():
                torch.manual_seed((self._how.seed * 1_000_003 + key) % 2**63)
                texts, output = converter.batch_convert(emb, BatchLayout.of(emb))
            return texts, output.hypotheses

        return run


def reference_generator(model: Any, vocab_info: Any, how: Generation, limit: int) -> Any:
    """fairseq2's generator with our settings."""
    from fairseq2.generation.beam_search import BeamSearchSeq2SeqGenerator
    from fairseq2.generation.sampling import SamplingSeq2SeqGenerator, TopKSampler, TopPSampler

    common = {
        "max_gen_len": (0.0, limit),
        "max_seq_len": limit,
        "min_gen_len": how.min_tokens,
        "temperature": how.temperature,
        "unk_penalty": how.unk_penalty,
        "len_penalty": how.len_penalty,
    }
    if how.mode != "sample":
        return BeamSearchSeq2SeqGenerator(model, vocab_info, beam_size=how.width, **common)
    sampler = TopPSampler(1.0 if how.top_p is None else how.top_p) if how.top_k is None else TopKSampler(how.top_k)
    return SamplingSeq2SeqGenerator(model, vocab_info, sampler, compute_scores=True, **common)


def reference_decoder(files: ModelFiles, dtype: Any) -> tuple[Any, Any]:
    """sonar-space's own decoder and tokenizer, holding the weights of ``files`` (on the CPU)."""
    _import_sonar()
    from fairseq2.models.nllb.tokenizer import NllbTokenizerConfig, load_nllb_tokenizer

    layout = files.layout("decoder")
    network = reference_decoder_network(layout.config, read_decoder_state(files.weights, layout), dtype)
    tokenizer_config = NllbTokenizerConfig(langs=list(files.languages), default_lang=_DEFAULT_LANG)
    return network, load_nllb_tokenizer(files.tokenizer, tokenizer_config)


def reference_decoder_network(sizes: TextDecoderConfig, state: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """sonar-space's own decoder from its own factory, with the tensors of ``state`` (fairseq2's names).

    Weights without influence (query, key and norm of the attention to one vector) may be missing and stay random.
    """
    _import_sonar()
    from fairseq2.data.tokenizers import VocabularyInfo
    from sonar.models.sonar_text.config import SonarTextDecoderConfig
    from sonar.models.sonar_text.factory import SonarTextDecoderFactory

    config = SonarTextDecoderConfig(
        model_dim=sizes.model_dim,
        max_seq_len=sizes.max_tokens,
        vocab_info=VocabularyInfo(size=sizes.vocab_size, unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=1),
        activation_fn="ReLU",
        no_scale_embedding=False,
        no_token_positional_embeddings=False,
        learned_pos=False,
        emb_dropout_p=0.1,
        attention_dropout_p=0.1,
        activation_dropout_p=0.1,
        normalize_before=True,
        num_encoder_layers=sizes.num_layers,
        num_decoder_layers=sizes.num_layers,
        num_encoder_attn_heads=sizes.num_heads,
        num_decoder_attn_heads=sizes.num_heads,
        ffn_inner_dim=sizes.ffn_dim,
    )
    network = SonarTextDecoderFactory(config).create_model()
    left = network.load_state_dict(state, strict=False)
    influential = [name for name in left.missing_keys if "encoder_decoder_attn" not in name]
    assert not influential, f"missing: {influential}"
    assert not left.unexpected_keys, f"unexpected: {left.unexpected_keys}"
    for parameter in network.parameters():  # not .to(dtype): that would round the position table too
        parameter.data = parameter.data.to(dtype)
    return network.eval()


def _card_files(name: str) -> ModelFiles:
    """The files behind a card, downloaded by fairseq2 if need be."""
    from fairseq2.assets import AssetNotFoundError, get_asset_download_manager, get_asset_store

    try:
        card = get_asset_store().retrieve_card(name)
        manager = get_asset_download_manager()
        weights = Path(manager.download_model(card.field("checkpoint").as_uri(), name))
        tokenizer = Path(manager.download_tokenizer(card.field("tokenizer").as_uri(), name))
    except AssetNotFoundError as error:
        raise CheckpointError(f"model {name}: no such file or folder, and no card of sonar-space ({error}).") from error
    except Exception as error:
        raise CheckpointError(f"cannot get the files of sonar-space's card {name} ({error}).") from error
    # Only the width and the maximum are read off here; the card, not we, knows the heads.
    return ModelFiles(name=name, weights=weights, tokenizer=tokenizer, hints={"num_heads": 1})
