"""VITS models of Hugging Face by path: MMS has one for each of 1,100 languages (``facebook/mms-tts-deu``, say)."""

from __future__ import annotations

import threading

import numpy as np
import xxhash

from lcm_data.errors import CheckpointError, MissingExtraError, UsageError
from lcm_data.speak.base import FloatTrack


class Vits:
    """A VITS model, as ``Speaker``; it speaks the one language it was trained on.

    What is drawn by chance (rhythm and tone) depends on the sentence alone, so it sounds the same in every run.

    Raises:
        MissingExtraError: transformers is not installed.
        CheckpointError: the folder cannot be loaded.
    """

    def __init__(self, folder: str) -> None:
        try:
            from transformers import AutoTokenizer, VitsModel
        except ImportError as error:
            raise MissingExtraError("speech by VITS models", "transformers", "evaluate") from error
        try:
            self._model = VitsModel.from_pretrained(folder, local_files_only=True).eval()
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # of many kinds, by what is damaged
            raise CheckpointError(
                f"{folder} is no VITS model: {error}. Give a folder of a model like MMS's."
            ) from error
        if getattr(self._tokenizer, "is_uroman", False):
            raise UsageError(
                f"the model {folder} reads text in Latin letters by uroman, which is not supported; give another model."
            )
        self.rate = int(self._model.config.sampling_rate)
        self.name = f"VITS {self._model.config.name_or_path or folder}"
        self._lock = threading.Lock()  # the seed is global

    def say(self, text: str) -> FloatTrack:
        """See ``Speaker.say``; empty where nothing of the text is in the model's alphabet."""
        import torch

        tokens = self._tokenizer(text, return_tensors="pt")
        if not tokens["input_ids"].shape[1]:
            return np.zeros(0, np.float32)
        with self._lock, torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(xxhash.xxh32_intdigest(text.encode()))
            samples: FloatTrack = self._model(**tokens).waveform[0].float().numpy()
        return samples
