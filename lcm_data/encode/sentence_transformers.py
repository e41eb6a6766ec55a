"""The backend for any sentence encoder in the sentence-transformers format, by folder or Hugging Face repository.

It needs the extra ``sentence-transformers``. The library loads and runs the model; tokenising once, batches of a fixed
number of tokens and the counts of what was cut or unknown are ours. Such models take no language: all are accepted.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lcm_data.encode.base import EncoderOptions, Prepared
from lcm_data.encode.batching import Indices, gather_tokens, token_batches
from lcm_data.encode.halving import run_halving
from lcm_data.encode.sentence_hub import find_sentence_model
from lcm_data.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

TOKEN_BUDGETS = {"cpu": 1024, "cuda": 16384}
"""Tokens of a batch by device, padding aside (there is little: sentences of a batch are of similar length)."""


class SentenceTransformersEncoder:
    """``lcm_data.encode.base.Encoder`` over ``sentence_transformers.SentenceTransformer``.

    Vectors are those of its ``encode``, prompt included.
    """

    def __init__(self, options: EncoderOptions) -> None:
        from lcm_data.sonar.checkpoint import resolve_device

        described = self.describe(options)
        _set_threads(options.threads)
        self._device = resolve_device(options.device)
        self._prompt = described.get("prompt", "")
        self._max_tokens = int(described["max_seq_len"])
        self._budget = options.token_budget or TOKEN_BUDGETS.get(self._device.type, TOKEN_BUDGETS["cpu"])
        self._model = _load(find_sentence_model(options.model).path, self._device, options.dtype)
        self._model.max_seq_length = self._max_tokens
        self._tokenizer = self._model.tokenizer
        self._tokenizing = threading.Lock()  # switching its truncation on and off is no matter for two threads at once
        self._constants = self._plain_text_features(options.model)
        self.dim = int(described["dim"])
        self.busy_seconds = 0.0
        self.num_ooms = 0
        self.provenance = {**described, "device": self._device.type, "token_budget": str(self._budget)}

    @staticmethod
    def describe(options: EncoderOptions) -> dict[str, str]:
        """See ``Encoder.describe``. Reads the small files of the folder, and hashes the weights."""
        name = "sentence-transformers"
        if importlib.util.find_spec("sentence_transformers") is None:
            raise MissingExtraError(f"the encoder backend {name}", "sentence-transformers", "sentence-transformers")
        backend = {"encoder_backend": name, "compute_dtype": options.dtype}
        return {**find_sentence_model(options.model).describe(options.prompt), **backend}

    def prepare(self, texts: Sequence[str], lang: str) -> Prepared:
        """See ``Encoder.prepare``."""
        given = [self._prompt + text for text in texts]
        with self._tokenizing:
            ids = self._tokenize(given, truncation=False)
            truncated = np.array([len(row) > self._max_tokens for row in ids], np.bool_)
            cut = np.flatnonzero(truncated).tolist()
            for row, short in zip(cut, self._tokenize([given[row] for row in cut], truncation=True), strict=True):
                ids[row] = short
        num_tokens = np.array([len(row) for row in ids], np.int32)
        flat = np.fromiter((token for row in ids for token in row), np.int32, num_tokens.sum())
        seen = np.concatenate([[0], np.cumsum(flat == self._unknown_id)])
        ends = np.cumsum(num_tokens, dtype=np.int64)
        num_unknown = (seen[ends] - seen[ends - num_tokens]).astype(np.int32)
        return Prepared(num_tokens, truncated, num_unknown, payload=(flat, ends - num_tokens))

    def embed(self, prepared: Prepared, rows: npt.NDArray[np.integer[Any]] | None = None) -> npt.NDArray[np.float32]:
        """See ``Encoder.embed``."""
        chosen = np.arange(len(prepared)) if rows is None else np.asarray(rows, dtype=np.int64)
        vectors_ND = np.empty((len(chosen), self.dim), np.float32)

        def run(batch: Indices) -> None:
            vectors_ND[batch] = self._forward(prepared, chosen[batch])

        started = time.perf_counter()
        for batch in token_batches(prepared.num_tokens[chosen], self._budget):
            run_halving(run, batch, self._did_not_fit)
        self.busy_seconds += time.perf_counter() - started
        return vectors_ND

    def _forward(self, prepared: Prepared, rows: Indices) -> npt.NDArray[np.float32]:
        """Vectors [B, D] of some rows, as one padded batch."""
        import torch

        flat, starts = prepared.payload
        lengths_B = prepared.num_tokens[rows]
        mask_BL = np.arange(lengths_B.max()) < lengths_B[:, None]
        if self._tokenizer.padding_side == "left":
            mask_BL = mask_BL[:, ::-1]
        ids_BL = np.full(mask_BL.shape, self._tokenizer.pad_token_id or 0, np.int64)
        ids_BL[mask_BL] = gather_tokens(flat, starts, prepared.num_tokens, rows)
        tensors = {"input_ids": ids_BL, "attention_mask": mask_BL.astype(np.int64)}
        features = {name: torch.from_numpy(array).to(self._device) for name, array in tensors.items()}
        with torch.inference_mode():
            vectors_BD = self._model({**features, **self._constants})["sentence_embedding"]
        result: npt.NDArray[np.float32] = vectors_BD[:, : self.dim].float().cpu().numpy()
        return result

    def _did_not_fit(self, batch: Indices) -> None:
        import torch

        if self.num_ooms == 0:
            logger.warning(
                "%d sentences did not fit into memory at once and run in halves; a --token-budget below %d is faster",
                len(batch),
                self._budget,
            )
        self.num_ooms += 1
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _tokenize(self, texts: list[str], truncation: bool) -> list[list[int]]:
        if not texts:
            return []
        most = {"max_length": self._max_tokens} if truncation else {}
        encoded = self._tokenizer(texts, truncation=truncation, padding=False, verbose=False, **most)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    @property
    def _unknown_id(self) -> int:
        """The id of unknown characters, -1 where there is none (then the id may double as another mark)."""
        tokenizer = self._tokenizer
        others = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        unknown = tokenizer.unk_token_id
        return -1 if unknown is None or unknown in others else int(unknown)

    def _plain_text_features(self, model: str) -> dict[str, Any]:
        """What the model takes beside ids and mask: that it is text, and how long the prompt is.

        Raises:
            CheckpointError: it does not take plain text.
        """
        import torch

        features = self._model.preprocess(["a"], prompt=self._prompt or None)
        if features.get("modality", "text") != "text" or "input_ids" not in features:
            raise CheckpointError(f"{model} does not take plain text but {features.get('modality', 'something else')}.")
        return {name: value for name, value in features.items() if not isinstance(value, torch.Tensor)}


def _load(path: Path, device: torch.device, dtype: str) -> Any:
    """The model in eval mode, without running code that came with it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        model = SentenceTransformer(str(path), device="cpu", local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever the library raises on files that are not what they seem
        raise CheckpointError(f"sentence-transformers cannot load {path}: {error}") from error
    return model.to(device=device, dtype=getattr(torch, dtype)).requires_grad_(False).eval()


def _set_threads(threads: int | None) -> None:
    """For the whole process: one worker is one process. The tokenizer reads its share from the environment."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads or 1))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if (threads or 1) > 1 else "false")
