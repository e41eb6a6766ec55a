"""The default encoder backend: ``lcm_data.sonar`` on one CPU or GPU, without padding.

Batches hold a fixed number of tokens, results come back in the order of the input, and a batch that does not fit into
memory is halved. Reading sentences and writing vectors are the worker's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lcm_data.encode.base import EncoderOptions, Prepared
from lcm_data.encode.batching import Indices, gather_tokens, token_batches
from lcm_data.encode.halving import run_halving
from lcm_data.errors import UsageError
from lcm_data.sonar.tokenizer import Tokens

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_GPU_BUDGET = 32768
"""Large batches hide the launches of the kernels; at full size this takes some 2 GB in half precision."""


def default_token_budget(device: str, model_dim: int) -> int:
    """Tokens of a batch that are fastest: on a CPU as many as stay in its cache, 1,024 at the published width."""
    return _GPU_BUDGET if device == "cuda" else min(max(2**20 // model_dim, 1024), 16384)


class NativeEncoder:
    """``lcm_data.encode.base.Encoder`` over ``lcm_data.sonar.text_encoder.TextEncoder``."""

    def __init__(self, options: EncoderOptions) -> None:
        import torch

        from lcm_data.sonar.checkpoint import load_text_encoder, resolve_device

        if options.threads is not None:
            torch.set_num_threads(options.threads)  # for the whole process: one worker is one process
        self._device = resolve_device(options.device)
        int8 = options.dtype == "int8"
        if int8 and self._device.type != "cpu":
            raise UsageError(
                f"int8 runs on CPUs only, got device {self._device}. Use --dtype bfloat16 or --device cpu."
            )
        model = load_text_encoder(
            options.model,
            device=str(self._device),
            dtype="float32" if int8 else options.dtype,
            threads=options.threads or 1,
        )
        self._network = model.encoder
        self._network.pack(int8=int8)
        self._tokenizer = model.tokenizer
        self.token_budget = options.token_budget or default_token_budget(self._device.type, model.dim)
        self.dim = model.dim
        self.busy_seconds = 0.0
        self.num_ooms = 0
        self.provenance = {
            **_identity(model.files.identity(), options),
            "device": self._device.type,
            "token_budget": str(self.token_budget),
        }

    @staticmethod
    def describe(options: EncoderOptions) -> dict[str, str]:
        """See ``Encoder.describe``. Reads the header of a safetensors file, maps a torch file."""
        from lcm_data.sonar.files import find_model

        return _identity(find_model(options.model).identity(), options)

    def prepare(self, texts: Sequence[str], lang: str) -> Prepared:
        """See ``Encoder.prepare``."""
        tokens = self._tokenizer.encode(texts, lang)
        return Prepared(tokens.lengths, tokens.truncated, tokens.num_unknown, payload=tokens)

    def embed(self, prepared: Prepared, rows: npt.NDArray[np.integer[Any]] | None = None) -> npt.NDArray[np.float32]:
        """See ``Encoder.embed``. Copies to and from a GPU overlap with its work; it is waited for once, at the end."""
        tokens: Tokens = prepared.payload
        chosen = np.arange(len(prepared)) if rows is None else np.asarray(rows, dtype=np.int64)
        if len(chosen) == 0:
            return np.zeros((0, self.dim), np.float32)
        with self._on_device():
            run = _Run(self, tokens, chosen)
            for batch in token_batches(tokens.lengths[chosen], self.token_budget):
                run_halving(run.batch, batch, run.did_not_fit)
            return run.finish()

    def _on_device(self) -> contextlib.AbstractContextManager[Any]:
        """Streams and events belong to the thread's current GPU, which need not be ours."""
        import torch

        return torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext()


class _Run:
    """One ``embed`` call: where its vectors land and what its batches cost."""

    def __init__(self, encoder: NativeEncoder, tokens: Tokens, chosen: Indices) -> None:
        import torch

        self._encoder = encoder
        self._tokens = tokens
        self._starts = tokens.starts
        self._chosen = chosen
        self._on_gpu = encoder._device.type == "cuda"
        # Vectors lie in the order of the batches until the end: one contiguous copy a batch instead of a scatter.
        self._sorted_ND = torch.empty(len(chosen), encoder.dim, pin_memory=self._on_gpu)
        self._order: list[Indices] = []
        self._filled = 0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._pinned: list[torch.Tensor] = []  # kept until the copies that read them are done

    def batch(self, batch: Indices) -> None:
        """Run the network on some sentences (indices into the chosen rows, sorted by length)."""
        import torch

        with torch.inference_mode():
            vectors = self._forward(self._chosen[batch])
        self._sorted_ND[self._filled : self._filled + len(batch)].copy_(vectors, non_blocking=self._on_gpu)
        self._order.append(batch)
        self._filled += len(batch)

    def finish(self) -> npt.NDArray[np.float32]:
        """Wait for the device and return the vectors [N, D] in the order of the chosen rows."""
        import torch

        if self._on_gpu:
            torch.cuda.synchronize(self._encoder._device)
            self._encoder.busy_seconds += sum(begin.elapsed_time(end) for begin, end in self._events) / 1e3
        order = np.concatenate(self._order)
        assert self._filled == len(order) == len(self._chosen), "a batch was lost"
        vectors_ND = np.empty((len(order), self._encoder.dim), np.float32)
        vectors_ND[order] = self._sorted_ND.numpy()
        return vectors_ND

    def _forward(self, rows: Indices) -> torch.Tensor:
        import torch

        ids = torch.from_numpy(gather_tokens(self._tokens.ids, self._starts, self._tokens.lengths, rows))
        lengths: list[int] = self._tokens.lengths[rows].tolist()
        if not self._on_gpu:
            started = time.perf_counter()
            vectors: torch.Tensor = self._encoder._network(ids.to(self._encoder._device), lengths)
            self._encoder.busy_seconds += time.perf_counter() - started
            return vectors
        self._pinned.append(ids.pin_memory())
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        vectors = self._encoder._network(self._pinned[-1].to(self._encoder._device, non_blocking=True), lengths)
        end.record()
        self._events.append((begin, end))
        return vectors

    def did_not_fit(self, batch: Indices) -> None:
        """Note that a batch is about to be run as two halves, and make room."""
        import torch

        if self._encoder.num_ooms == 0:
            logger.warning(
                "a batch of %d tokens did not fit into memory and runs in halves; a --token-budget below %d is faster",
                int(self._tokens.lengths[self._chosen[batch]].sum()),
                self._encoder.token_budget,
            )
        self._encoder.num_ooms += 1
        if self._on_gpu:
            torch.cuda.empty_cache()


def _identity(identity: dict[str, str], options: EncoderOptions) -> dict[str, str]:
    return {**identity, "encoder_backend": "native", "compute_dtype": options.dtype}
