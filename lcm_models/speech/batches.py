"""Draws batches from prepared clips: which, how varied, of how many seconds.

A batch is a function of (seed, epoch, number), so a loader's state is two numbers.

Shapes: B clips, S positions (50 a second), D width of the targets, N negatives, L letters of all transcripts, F frames,
C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lcm_data.sonar.speech_config import STACK
from lcm_data.sonar.speech_features import stacked, standardized
from lcm_models.speech.augment import mask, vary
from lcm_models.speech.config import SpeechBatchConfig
from lcm_models.speech.prepared import Array, PreparedClips
from lcm_models.train.turns import Endless, Turns

_MIXED_BATCHES = 50
"""Batches whose clips are sorted by length together: of about one length in a batch, of any in an epoch's order."""
_FRAMES = 100
"""A second."""


class SpeechBatch(NamedTuple):
    """Clips as the network sees them, what their vectors should be and what not, and transcripts one after the other.

    The negatives are targets of other clips, here and there of one that says the same.
    """

    features_BSF: Tensor
    lengths: list[int]
    target_BD: Tensor
    negative_ND: Tensor
    letters_L: Tensor
    num_letters_B: Tensor

    def to(self, device: torch.device | str) -> SpeechBatch:
        """The batch on another device."""
        parts = self._asdict().items()
        moved: dict[str, Any] = {k: v.to(device, non_blocking=True) for k, v in parts if isinstance(v, Tensor)}
        return self._replace(**moved)


class SpeechBatches:
    """The batches of every epoch of some prepared clips, by number."""

    def __init__(self, data: PreparedClips, config: SpeechBatchConfig) -> None:
        self._data, self._config = data, config
        self._starts_N = data.starts()
        self._lengths_N = np.asarray(data.ends_N) - self._starts_N
        self._learned_N = np.flatnonzero(~np.asarray(data.held_out_N))
        group_N = np.asarray(data.groups_N)[self._learned_N]
        groups = [self._learned_N[group_N == group] for group in np.unique(group_N)]
        self._turns = Turns(groups, config.temperature, config.seed)

    def epoch(self, number: int) -> list[Array]:
        """The clips of every batch of an epoch, in their order."""
        clips_N, rng = self._turns.epoch(number)
        budget = self._config.batch_seconds * _FRAMES
        batches: list[Array] = []
        block = max(1, int(_MIXED_BATCHES * budget / max(1.0, float(self._lengths_N[clips_N].mean()))))
        for start in range(0, len(clips_N), block):
            part = clips_N[start : start + block]
            batches += cut(part[np.argsort(self._lengths_N[part], kind="stable")], self._lengths_N, budget)
        return [batches[index] for index in rng.permutation(len(batches))]

    def held_out(self) -> Iterator[SpeechBatch]:
        """The clips to validate on in one pass, as they are."""
        clips_N = np.flatnonzero(self._data.held_out_N)
        clips_N = clips_N[np.random.default_rng(0).permutation(len(clips_N))]
        for part in cut(clips_N, self._lengths_N, self._config.batch_seconds * _FRAMES):
            yield self.make(part, None)

    def make(self, clips_N: Array, rng: np.random.Generator | None) -> SpeechBatch:
        """The batch of some clips, varied if there is a generator to draw with."""
        data, features, spelling = self._data, [], []
        for clip in clips_N.tolist():
            bank_FC = torch.from_numpy(np.asarray(data.banks_FC[self._starts_N[clip] : data.ends_N[clip]], np.float32))
            if rng is None:
                x_FC = standardized(bank_FC)
            else:
                x_FC = mask(standardized(vary(bank_FC, self._config, rng)), self._config, rng)
            features.append(x_FC)
            spelling.append(data.spelling(clip))
        negatives_N = self._negatives(rng or np.random.default_rng(0))
        return SpeechBatch(
            features_BSF=stacked(features),
            lengths=[len(x_FC) // STACK for x_FC in features],
            target_BD=torch.from_numpy(np.asarray(data.targets_ND[clips_N])),
            negative_ND=torch.from_numpy(np.asarray(data.targets_ND[negatives_N])),
            letters_L=torch.from_numpy(np.concatenate(spelling)),
            num_letters_B=torch.tensor([len(each) for each in spelling]),
        )

    def _negatives(self, rng: np.random.Generator) -> Array:
        """The clips whose targets are a batch's negatives: drawn from those to learn, in the order they lie on disk."""
        num = min(self._config.negatives, len(self._learned_N))
        return np.sort(rng.choice(self._learned_N, num, replace=False))


def cut(clips_N: Array, lengths_N: Array, budget: float) -> list[Array]:
    """Clips in their order in batches of at most ``budget`` frames, padding included, or of one clip."""
    batches, first, longest = [], 0, 0
    for place, clip in enumerate(clips_N.tolist()):
        longest = max(longest, int(lengths_N[clip]))
        if place > first and longest * (place + 1 - first) > budget:
            batches.append(clips_N[first:place])
            first, longest = place, int(lengths_N[clip])
    return [*batches, clips_N[first:]] if first < len(clips_N) else batches


class SpeechLoader(Endless):
    """Batches of one process without end."""

    def __init__(self, data: PreparedClips, config: SpeechBatchConfig, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(SpeechBatches(data, config), config.seed, rank, world_size)
