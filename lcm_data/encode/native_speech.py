"""The default speech encoder backend: ``lcm_data.sonar`` on one CPU or GPU.

Features are computed where the network runs, batch by batch, so what waits in memory is the waveforms. Batches hold a
fixed number of positions, results come back in the order of the input, and a batch that does not fit into memory is
halved. Reading audio and writing vectors are the worker's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_data.encode.base import EncoderOptions, Prepared
from lcm_data.encode.batching import Indices, padded_batches
from lcm_data.encode.halving import run_halving
from lcm_data.encode.speech import Float32, prepare_waves
from lcm_data.errors import UsageError

logger = logging.getLogger(__name__)

_BUDGETS = {"cuda": 32768, "cpu": 1024}
"""Positions of a batch: eleven minutes of speech hide the launches of the kernels, twenty seconds fill a CPU."""


class NativeSpeechEncoder:
    """``lcm_data.encode.speech.SpeechEncoder`` over ``lcm_data.sonar.speech_encoder.SpeechEncoder``."""

    def __init__(self, options: EncoderOptions) -> None:
        import torch

        from lcm_data.sonar.speech_checkpoint import load_speech_encoder

        described = self.describe(options)
        if options.threads is not None:
            torch.set_num_threads(options.threads)  # for the whole process: one worker is one process
        model = load_speech_encoder(options.model, device=options.device, dtype=options.dtype)
        self._network = model.encoder
        self._network.pack()
        self._max_positions = model.encoder.config.max_positions
        self._device = model.encoder.layer_norm.weight.device
        self.token_budget = options.token_budget or _BUDGETS.get(self._device.type, _BUDGETS["cpu"])
        self.dim = model.dim
        self.busy_seconds = 0.0
        self.num_ooms = 0
        self.provenance = {**described, "device": self._device.type, "token_budget": str(self.token_budget)}

    @staticmethod
    def describe(options: EncoderOptions) -> dict[str, str]:
        """See ``SpeechEncoder.describe``. Reads the header of a safetensors file, maps a torch file."""
        from lcm_data.sonar.speech_checkpoint import find_speech_model

        if options.dtype == "int8":
            raise UsageError("speech encoders have no int8. Use --dtype bfloat16, or float32.")
        identity = find_speech_model(options.model).identity()
        return {**identity, "encoder_backend": "native", "compute_dtype": options.dtype}

    def prepare(self, waves: Sequence[Float32]) -> Prepared:
        """See ``SpeechEncoder.prepare``."""
        return prepare_waves(waves, self._max_positions)

    def embed(self, prepared: Prepared, rows: npt.NDArray[np.integer[Any]] | None = None) -> Float32:
        """See ``SpeechEncoder.embed``."""
        import torch

        chosen = np.arange(len(prepared)) if rows is None else np.asarray(rows, dtype=np.int64)
        vectors_NE = np.empty((len(chosen), self.dim), np.float32)
        ready: list[tuple[Indices, torch.Tensor]] = []

        def run(batch: Indices) -> None:
            ready.append((batch, self._forward(prepared, chosen[batch])))

        started = time.perf_counter()
        for batch in padded_batches(prepared.num_tokens[chosen], self.token_budget):
            run_halving(run, batch, self._did_not_fit)
        for batch, vectors in ready:  # a GPU is waited for once, at the end
            vectors_NE[batch] = vectors.cpu().numpy()
        self.busy_seconds += time.perf_counter() - started
        return vectors_NE

    def _forward(self, prepared: Prepared, rows: Indices) -> Any:
        """Vectors [B, E] of some clips, on the device."""
        import torch

        from lcm_data.sonar.speech_features import speech_features

        with torch.inference_mode():
            waves = [torch.from_numpy(prepared.payload[row]).to(self._device) for row in rows.tolist()]
            return self._network(speech_features(waves), prepared.num_tokens[rows].tolist())

    def _did_not_fit(self, batch: Indices) -> None:
        import torch

        if self.num_ooms == 0:
            logger.warning(
                "a batch of %d clips did not fit into memory and runs in halves; a token budget for speech below %d is "
                "faster",
                len(batch),
                self.token_budget,
            )
        self.num_ooms += 1
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
