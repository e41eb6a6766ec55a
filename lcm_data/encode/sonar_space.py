"""The reference backend: Meta's sonar-space pipeline, for comparison and for cards that only it understands.

It needs the extra ``sonar-space`` (fairseq2 pins one exact torch, so usually an environment of its own). A model is a
card name, loaded by sonar-space itself, or a path or Hub name of ours, read by ``lcm_data.sonar.checkpoint`` and run
through sonar-space's own network, tokenizer and pipeline.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lcm_data.encode.base import EncoderOptions, Prepared
from lcm_data.errors import CheckpointError, MissingExtraError, UsageError
from lcm_data.sonar.checkpoint import read_encoder_state, resolve_device
from lcm_data.sonar.files import ModelFiles, find_model
from lcm_data.sonar.fingerprint import file_sha256

if TYPE_CHECKING:
    import torch

    from lcm_data.sonar.config import TextEncoderConfig

logger = logging.getLogger(__name__)

TOKEN_BUDGETS = {"cpu": 256, "cuda": 8192}
"""Real tokens of a batch; sonar-space pads on top of it, which small batches keep cheap on a CPU."""

_DEFAULT_LANG = "eng_Latn"


class SonarSpaceEncoder:
    """``lcm_data.encode.base.Encoder`` over ``TextToEmbeddingModelPipeline``."""

    def __init__(self, options: EncoderOptions) -> None:
        _import_sonar()
        import torch
        from sonar.inference_pipelines.text import TextToEmbeddingModelPipeline

        if options.threads is not None:
            torch.set_num_threads(options.threads)
        device = resolve_device(options.device)
        dtype = getattr(torch, options.dtype)
        if _is_card(options.model):
            model, tokenizer = options.model, options.model
        else:
            model, tokenizer = reference_model(find_model(options.model), dtype)
            model.to(device=device)
        self._pipeline = TextToEmbeddingModelPipeline(model, tokenizer, device=device, dtype=dtype)
        self._max_tokens = int(self._pipeline.model.encoder_frontend.pos_encoder.max_seq_len)
        self._budget = options.token_budget or TOKEN_BUDGETS.get(device.type, TOKEN_BUDGETS["cpu"])
        described = self.describe(options)
        self.dim = int(described["dim"])
        self.busy_seconds = 0.0
        self.num_ooms = 0
        self.provenance = {
            **described,
            "device": device.type,
            "token_budget": str(self._budget),
        }

    @staticmethod
    def describe(options: EncoderOptions) -> dict[str, str]:
        """See ``Encoder.describe``."""
        version = _import_sonar()
        identity = _card_identity(options.model) if _is_card(options.model) else find_model(options.model).identity()
        backend = {"encoder_backend": "sonar-space", "encoder_backend_version": version}
        return {**identity, **backend, "compute_dtype": options.dtype}

    def prepare(self, texts: Sequence[str], lang: str) -> Prepared:
        """See ``Encoder.prepare``. Tokenises for the counts only; the pipeline tokenises again by itself."""
        from fairseq2.error import NotSupportedError

        try:
            encode = self._pipeline.tokenizer.create_encoder(lang=lang)
        except NotSupportedError as error:
            raise UsageError(f"language {lang!r} is unknown to the model: {error}") from error
        unknown = self._pipeline.tokenizer.vocab_info.unk_idx
        full, num_unknown = np.zeros(len(texts), np.int32), np.zeros(len(texts), np.int32)
        for row, text in enumerate(texts):
            ids = encode(text)
            full[row], num_unknown[row] = len(ids), int((ids[: self._max_tokens] == unknown).sum())
        num_tokens = np.minimum(full, self._max_tokens).astype(np.int32)
        return Prepared(num_tokens, full > num_tokens, num_unknown, payload=(list(texts), lang))

    def embed(self, prepared: Prepared, rows: npt.NDArray[np.integer[Any]] | None = None) -> npt.NDArray[np.float32]:
        """See ``Encoder.embed``."""
        texts, lang = prepared.payload
        chosen = texts if rows is None else [texts[row] for row in rows.tolist()]
        if not chosen:  # the pipeline refuses an empty list
            return np.zeros((0, self.dim), np.float32)
        started = time.perf_counter()
        vectors = self._predict(chosen, lang, self._budget)
        self.busy_seconds += time.perf_counter() - started
        return vectors

    def _predict(self, texts: list[str], lang: str, budget: int) -> npt.NDArray[np.float32]:
        """Run the pipeline; out of GPU memory, again with half the tokens in a batch."""
        import torch

        try:
            with warnings.catch_warnings():  # truncation is reported by row in Prepared
                warnings.filterwarnings("ignore", message=".*length was truncated.*")
                vectors = self._pipeline.predict(
                    texts, source_lang=lang, batch_size=None, batch_max_tokens=budget, target_device=torch.device("cpu")
                )
            array: npt.NDArray[np.float32] = vectors.float().numpy()
            return array
        except RuntimeError as error:
            # fairseq2's data pipeline wraps the error, so its text is all there is to go by.
            chain = f"{error} {error.__cause__} {error.__context__}".lower()
            if budget < 2 or "out of memory" not in chain:
                raise
        self.num_ooms += 1
        logger.warning("batches of %d tokens did not fit into memory, trying %d", budget, budget // 2)
        torch.cuda.empty_cache()
        return self._predict(texts, lang, budget // 2)


def reference_model(files: ModelFiles, dtype: Any) -> tuple[Any, Any]:
    """sonar-space's own network and tokenizer, holding the weights of ``files`` (on the CPU)."""
    _import_sonar()
    from fairseq2.models.nllb.tokenizer import NllbTokenizerConfig, load_nllb_tokenizer

    layout = files.layout()
    network = reference_network(layout.config, read_encoder_state(files.weights, layout), dtype)
    tokenizer_config = NllbTokenizerConfig(langs=list(files.languages), default_lang=_DEFAULT_LANG)
    return network, load_nllb_tokenizer(files.tokenizer, tokenizer_config)


def reference_network(sizes: TextEncoderConfig, state: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """sonar-space's own network from its own factory, with the tensors of ``state`` (fairseq2's names)."""
    _import_sonar()
    from fairseq2.data.tokenizers import VocabularyInfo
    from sonar.models.sonar_text.config import SonarTextEncoderConfig
    from sonar.models.sonar_text.factory import SonarTextEncoderFactory

    # The network adds pad_idx + 1 = 2 positions to max_seq_len, in the config object itself: never use one twice.
    config = SonarTextEncoderConfig(
        model_dim=sizes.model_dim,
        max_seq_len=sizes.max_tokens - 2,
        vocab_info=VocabularyInfo(size=sizes.vocab_size, unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=1),
        num_encoder_layers=sizes.num_layers,
        num_decoder_layers=sizes.num_layers,
        num_encoder_attn_heads=sizes.num_heads,
        num_decoder_attn_heads=sizes.num_heads,
        ffn_inner_dim=sizes.ffn_dim,
        pooling="mean",
        _from_fairseq=True,
    )
    network = SonarTextEncoderFactory(config).create_model()
    network.load_state_dict(state)
    for parameter in network.parameters():  # not .to(dtype): that would round the position table too
        parameter.data = parameter.data.to(dtype)
    return network.eval()


def _import_sonar() -> str:
    """Import sonar-space and return its version.

    soundfile first: its wheel brings the libsndfile that fairseq2's native library looks for.
    """
    from importlib.metadata import version

    with contextlib.suppress(ImportError, OSError):
        import soundfile  # noqa: F401
    try:
        import sonar.inference_pipelines.text  # noqa: F401
    except (ImportError, OSError) as error:
        raise MissingExtraError(f"the encoder backend sonar-space ({error})", "sonar-space", "sonar-space") from error
    return version("sonar-space")


def _is_card(name: str) -> bool:
    """Names with neither a path nor an owner belong to sonar-space's own cards."""
    return not Path(name).expanduser().exists() and "/" not in name


def _card_identity(name: str) -> dict[str, str]:
    """Hashes of the files behind a card, downloaded by fairseq2 if need be."""
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
    files = ModelFiles(name=name, weights=weights, tokenizer=tokenizer, hints={"num_heads": 1})
    layout = files.layout()
    return {
        "encoder": name,
        "encoder_revision": file_sha256(weights),
        "tokenizer_revision": file_sha256(tokenizer),
        "dim": str(layout.config.model_dim),
        "max_seq_len": str(layout.config.max_tokens),
        "pooling": "mean",
        "normalized": "false",
        "trained": "true",
        "space": files.space,
    }
