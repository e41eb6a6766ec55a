"""Sentences by SaT ("Segment any Text", Frohmann et al. 2024): one multilingual model through the wtpsplit library.

Its boundary probabilities also steer capping, which gives the SaT-Capped scheme of "Large Concept Models" §2.2. The
network is never asked. wtpsplit and torch are imported when a segmenter is built.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lcm_data.errors import CheckpointError, MissingExtraError
from lcm_data.segment.base import Span, spans_between
from lcm_data.segment.codes import iso3

_DEFAULT = "sat-3l-sm"
_HUB_PREFIX = "segment-any-text"
_BASE_TOKENIZER = "facebookAI/xlm-roberta-base"  # what released SaT models tokenize with; not in their own repositories
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_STRIDE, _BLOCK = 64, 512  # tokens; wtpsplit's defaults for splitting


class SatSegmenter:
    """Sentence boundaries where SaT's probability is over the library's threshold for the model.

    Args:
        model: a folder with ``config.json``, ``model.safetensors`` and ``tokenizer.json``, or a released name such as
            ``sat-3l-sm`` (default) or ``sat-12l-sm`` that is already in the Hugging Face cache of this machine.
        threshold: probability from which on a sentence ends. Default: wtpsplit's, 0.25 for ``-sm`` models, 0.01 for
            ``-no-limited-lookahead`` ones, else 0.025.

    Raises:
        MissingExtraError: wtpsplit or torch is not installed.
        CheckpointError: the model is neither a folder nor in the cache, or cannot be read.
    """

    fingerprint: str

    def __init__(self, model: str | None = None, threshold: float | None = None) -> None:
        try:
            import torch
            import wtpsplit
        except ImportError as error:
            raise MissingExtraError("segmenter 'sat'", error.name or "wtpsplit", "sat") from None
        name = _DEFAULT if model is None else model
        folder, tokenizer = _find(name)
        try:
            with _no_progress_bar():
                self._sat: Any = wtpsplit.SaT(str(folder), tokenizer_name_or_path=str(tokenizer))
        except Exception as error:  # transformers and safetensors raise OSError, ValueError, KeyError and their own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"cannot load the SaT model in {folder}: {reason} Get the model again.") from error
        if torch.cuda.is_available():
            self._sat.half().to("cuda")
        self.threshold = _threshold(name) if threshold is None else threshold
        self.fingerprint = f"wtpsplit-{wtpsplit.__version__}/{Path(name).name}-{_digest(folder)}/{self.threshold}"

    def segment(self, paragraphs: Sequence[str], lang: str) -> list[list[Span]]:
        """Return the sentence spans of each paragraph; see ``Segmenter.segment``. SaT needs no language."""
        return [spans for spans, _ in self.segment_scored(paragraphs, lang)]

    def segment_scored(self, paragraphs: Sequence[str], lang: str) -> list[tuple[list[Span], Sequence[float]]]:
        """Return spans and boundary probabilities; see ``ScoredSegmenter.segment_scored``."""
        iso3(lang)  # refuse nonsense, as the other segmenters do
        filled = [text for text in paragraphs if text.strip()]
        probabilities = iter(self._sat.predict_proba(filled, stride=_STRIDE, block_size=_BLOCK) if filled else ())
        results: list[tuple[list[Span], Sequence[float]]] = []
        for text in paragraphs:
            scores = [0.0] * len(text)
            if text.strip():
                scores = next(probabilities).tolist()
            cuts = [i + 1 for i, score in enumerate(scores) if score > self.threshold]
            results.append((spans_between(cuts, len(text)), scores))
        return results


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers' loading bar out of a worker's log, and leave its setting as it was."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _threshold(name: str) -> float:
    base = Path(name).name
    if "sm" in base:
        return 0.25
    return 0.01 if "no-limited-lookahead" in base else 0.025


def _find(name: str) -> tuple[Path, Path]:
    """Return the folders of the model and of its tokenizer, both on this machine."""
    folder = Path(name)
    if not folder.is_dir():
        if "/" in name or "\\" in name:
            raise CheckpointError(
                f"SaT model folder {name!r} does not exist. Give a folder, or a name like {_DEFAULT!r}."
            )
        folder = _cached(f"{_HUB_PREFIX}/{name}", "config.json")
    if not (folder / "config.json").is_file() or not any((folder / file).is_file() for file in _WEIGHTS):
        raise CheckpointError(f"{folder} holds no SaT model: it needs config.json and one of {', '.join(_WEIGHTS)}.")
    if (folder / "tokenizer.json").is_file():
        return folder, folder
    return folder, _cached(_BASE_TOKENIZER, "tokenizer.json")


def _cached(repository: str, file: str) -> Path:
    """Return the folder of ``file`` in the Hugging Face cache.

    Looking there by hand keeps the library from trying the network, where it would wait about 50 s before it fails.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    if not isinstance(found, str):
        raise CheckpointError(
            f"{repository!r} is not in the Hugging Face cache of this machine ({file} is missing). Where there is a "
            f"network, run 'hf download {repository}' first, or give a folder with model and tokenizer."
        )
    return Path(found).parent


def _digest(folder: Path) -> str:
    """Return a short digest of the weights."""
    path = next(folder / file for file in _WEIGHTS if (folder / file).is_file())
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:12]
