"""The default decoder backend: ``lcm_data.sonar`` on one CPU or GPU.

A batch holds a fixed number of hypotheses, results come back in the order of the input, and if a batch does not fit
into memory, half of it is tried. Reading vectors and writing texts are the caller's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lcm_data.decode.base import Decoded, DecoderOptions, check_vectors
from lcm_data.encode.halving import is_out_of_memory

if TYPE_CHECKING:
    from lcm_data.sonar.files import ModelFiles
    from lcm_data.sonar.settings import Hypothesis

logger = logging.getLogger(__name__)

BATCH_ROWS = {"cpu": 160, "cuda": 640}
"""Hypotheses at once. Every step reads all weights, so few are slow; caches and logits of many need memory."""


class NativeDecoder:
    """``lcm_data.decode.base.Decoder`` over ``lcm_data.sonar.text_decoder.TextDecoder``."""

    def __init__(self, options: DecoderOptions) -> None:
        import torch

        from lcm_data.sonar.checkpoint import load_text_decoder, resolve_device

        if options.threads is not None:
            torch.set_num_threads(options.threads)  # for the whole process: one worker is one process
        self._device = resolve_device(options.device)
        model = load_text_decoder(options.model, device=str(self._device), dtype=options.dtype)
        self._network = model.decoder.pack()
        self._tokenizer = model.tokenizer
        self._how = options.generation
        rows = options.batch_rows or BATCH_ROWS.get(self._device.type, BATCH_ROWS["cpu"])
        self._seats = max(1, rows // self._how.width)
        self.dim = model.dim
        self.busy_seconds = 0.0
        self.num_ooms = 0
        self.provenance = {
            **_identity(model.files, options),
            "device": self._device.type,
            "batch_rows": str(rows),
        }

    @staticmethod
    def describe(options: DecoderOptions) -> dict[str, str]:
        """See ``Decoder.describe``. Reads the header of a safetensors file, maps a torch file."""
        from lcm_data.sonar.files import find_model

        return _identity(find_model(options.model, "decoder"), options)

    def decode(
        self, emb: npt.NDArray[np.floating[Any]], lang: str, keys: npt.NDArray[np.int64] | None = None
    ) -> Decoded:
        """See ``Decoder.decode``."""
        vectors, names = check_vectors(emb, keys, self.dim)
        lang_id = self._tokenizer.lang_id(lang)
        found: list[Hypothesis | None] = [None] * len(vectors)
        sound = np.flatnonzero(np.isfinite(vectors).all(axis=1))
        started = time.perf_counter()
        self._say(vectors, names, lang_id, sound, found)
        self.busy_seconds += time.perf_counter() - started
        return Decoded(
            texts=["" if one is None else self._tokenizer.decode(one.ids) for one in found],
            scores=np.array([np.nan if one is None else one.score for one in found], np.float32),
            num_tokens=np.array([0 if one is None else len(one.ids) for one in found], np.int32),
            truncated=np.array([one is not None and one.at_limit for one in found], np.bool_),
        )

    def _say(
        self,
        emb_ND: npt.NDArray[np.float32],
        keys: npt.NDArray[np.int64],
        lang_id: int,
        rows: npt.NDArray[np.int64],
        found: list[Hypothesis | None],
    ) -> None:
        """Fill in the best hypothesis of each of ``rows``; out of memory, with half as many at once."""
        seats = max(1, min(self._seats, len(rows)))
        done = np.zeros(len(rows), np.bool_)
        while not done.all():
            left = np.flatnonzero(~done)
            try:
                for place, best in self._stream(emb_ND[rows[left]], lang_id, keys[rows[left]].tolist(), seats):
                    done[left[place]] = True
                    found[rows[left[place]]] = best if np.isfinite(best.score) else None
                continue
            except RuntimeError as error:
                if seats == 1 or not is_out_of_memory(error):
                    raise
            # Outside the handler: the traceback keeps the tensors of the failed batch alive.
            if self.num_ooms == 0:
                logger.warning(
                    "a batch of %d hypotheses did not fit into memory and goes on with half; batch_rows below it is "
                    "faster",
                    seats * self._how.width,
                )
            self.num_ooms += 1
            seats = (seats + 1) // 2
            if self._device.type == "cuda":
                import torch

                torch.cuda.empty_cache()

    def _stream(
        self, emb_ND: npt.NDArray[np.float32], lang_id: int, keys: list[int], seats: int
    ) -> Iterator[tuple[int, Hypothesis]]:
        import torch

        from lcm_data.sonar.generate import stream

        on_device = torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext()
        with on_device:
            for row, best in stream(self._network, torch.from_numpy(emb_ND), lang_id, self._how, keys, seats):
                yield row, best[0]


def _identity(files: ModelFiles, options: DecoderOptions) -> dict[str, str]:
    """Who decodes, and how; refuses what this network cannot do."""
    config = files.layout("decoder").config
    options.generation.check_fits(config.vocab_size, config.max_tokens)
    return {
        **files.identity("decoder"),
        "decoder_backend": "native",
        "compute_dtype": options.dtype,
        **options.describe(),
    }
