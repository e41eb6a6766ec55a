"""The default decoder backend: ``lcm_data.sonar`` on one CPU or GPU.

Batches hold a fixed number of hypotheses, results come back in the order of the input, and a batch that does not fit
into memory is halved. Reading vectors and writing texts are the caller's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lcm_data.decode.base import Decoded, DecoderOptions, check_vectors

if TYPE_CHECKING:
    from lcm_data.sonar.settings import Hypothesis

logger = logging.getLogger(__name__)

BATCH_ROWS = {"cpu": 80, "cuda": 640}
"""Hypotheses at once. Every step reads all weights, so few are slow; caches and logits of many need memory."""

_OOM_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")


class NativeDecoder:
    """``lcm_data.decode.base.Decoder`` over ``lcm_data.sonar.text_decoder.TextDecoder``."""

    def __init__(self, options: DecoderOptions) -> None:
        import torch

        from lcm_data.sonar.checkpoint import load_text_decoder, resolve_device

        if options.threads is not None:
            torch.set_num_threads(options.threads)  # for the whole process: one worker is one process
        self._device = resolve_device(options.device)
        model = load_text_decoder(options.model, device=str(self._device), dtype=options.dtype)
        self._network = model.decoder
        self._tokenizer = model.tokenizer
        self._how = options.generation
        rows = options.batch_rows or BATCH_ROWS.get(self._device.type, BATCH_ROWS["cpu"])
        self._batch_size = max(1, rows // self._how.width)
        self.dim = model.dim
        self.busy_seconds = 0.0
        self.num_ooms = 0
        self.provenance = {
            **_identity(model.files.decoder_identity(), options),
            "device": self._device.type,
            "batch_rows": str(rows),
        }

    @staticmethod
    def describe(options: DecoderOptions) -> dict[str, str]:
        """See ``Decoder.describe``. Reads the header of a safetensors file, maps a torch file."""
        from lcm_data.sonar.checkpoint import find_model

        return _identity(find_model(options.model, "decoder").decoder_identity(), options)

    def decode(
        self, emb: npt.NDArray[np.floating[Any]], lang: str, keys: npt.NDArray[np.int64] | None = None
    ) -> Decoded:
        """See ``Decoder.decode``."""
        vectors, names = check_vectors(emb, keys, self.dim)
        lang_id = self._tokenizer.lang_id(lang)
        found: list[Hypothesis | None] = [None] * len(vectors)
        sound = np.flatnonzero(np.isfinite(vectors).all(axis=1))
        started = time.perf_counter()
        for start in range(0, len(sound), self._batch_size):
            rows = sound[start : start + self._batch_size]
            for row, hypothesis in zip(rows, self._batch(vectors[rows], names[rows], lang_id), strict=True):
                found[row] = hypothesis if np.isfinite(hypothesis.score) else None
        self.busy_seconds += time.perf_counter() - started
        return Decoded(
            texts=["" if one is None else self._tokenizer.decode(one.ids) for one in found],
            scores=np.array([np.nan if one is None else one.score for one in found], np.float32),
            num_tokens=np.array([0 if one is None else len(one.ids) for one in found], np.int32),
            truncated=np.array([one is not None and one.at_limit for one in found], np.bool_),
        )

    def _batch(self, emb_PD: npt.NDArray[np.float32], keys: npt.NDArray[np.int64], lang_id: int) -> list[Hypothesis]:
        """The best hypothesis of each vector; out of memory, in halves."""
        import torch

        from lcm_data.sonar.generate import generate

        on_device = torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext()
        try:
            with on_device:
                many = generate(self._network, torch.from_numpy(emb_PD), lang_id, self._how, keys.tolist())
                return [hypotheses[0] for hypotheses in many]
        except RuntimeError as error:
            if len(emb_PD) == 1 or not any(text in str(error).lower() for text in _OOM_TEXTS):
                raise
        # Outside the handler: the traceback keeps the tensors of the failed batch alive.
        if self.num_ooms == 0:
            rows = len(emb_PD) * self._how.width
            logger.warning(
                "a batch of %d hypotheses did not fit into memory and runs in halves; batch_rows below it is faster",
                rows,
            )
        self.num_ooms += 1
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(emb_PD) // 2
        return self._batch(emb_PD[:half], keys[:half], lang_id) + self._batch(emb_PD[half:], keys[half:], lang_id)


def _identity(identity: dict[str, str], options: DecoderOptions) -> dict[str, str]:
    return {**identity, "decoder_backend": "native", "compute_dtype": options.dtype, **options.describe()}
