"""How a decoder chooses its tokens: the settings of a generation; needs no torch. ``lcm_data.sonar.generate`` acts."""

from __future__ import annotations

from dataclasses import dataclass, field

from lcm_data.errors import UnknownNameError, UsageError

__all__ = ["MODES", "PROMPT_LENGTH", "Generation", "Hypothesis"]

MODES = ("beam", "greedy", "sample")

PROMPT_LENGTH = 2
"""``</s>`` and the language."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How tokens are chosen; the defaults are those of sonar-space's ``EmbeddingToTextModelPipeline``.

    Attributes:
        mode: "beam" (the most likely sequence that beam search finds), "greedy" (the likeliest token each time) or
            "sample" (tokens drawn by their probability).
        beam_size: hypotheses per sentence of a beam search.
        max_tokens: longest sequence, the two tokens of the prompt and ``</s>`` included; None is the network's
            maximum. At the last position only ``</s>`` is allowed.
        min_tokens: fewest tokens generated, ``</s>`` included.
        temperature: logits are divided by it. (sonar-space samples with 0.6 unless told otherwise.)
        top_p: draw from the likeliest tokens that together have this probability, where the token that crosses the
            threshold still counts; None is all.
        top_k: draw from this many likeliest tokens; None is all. With ``top_p``, ``top_k`` comes first.
        seed: of the draws.
        unk_penalty: subtracted from the log probability of ``<unk>``.
        len_penalty: scores are divided by (tokens with prompt and ``</s>``, minus 1) to this power; 0 leaves them sums.
    """

    mode: str = "beam"
    beam_size: int = 5
    max_tokens: int | None = None
    min_tokens: int = 1
    temperature: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int = 0
    unk_penalty: float = 0.0
    len_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UnknownNameError("mode", self.mode, MODES)
        for name, least in (("beam_size", 1), ("min_tokens", 1), ("top_k", 1), ("max_tokens", PROMPT_LENGTH + 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} must be at least {least}, got {value}.")
        if not self.temperature > 0:
            raise UsageError(f"temperature must be positive, got {self.temperature}. Use mode='greedy' for no chance.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, got {self.top_p}.")
        for name in ("top_p", "top_k"):
            if self.mode != "sample" and getattr(self, name) is not None:
                raise UsageError(f"{name} only has a meaning with mode='sample', and mode is {self.mode!r}.")

    @property
    def width(self) -> int:
        """Hypotheses per sentence."""
        return self.beam_size if self.mode == "beam" else 1

    def check_fits(self, vocab_size: int, most: int) -> None:
        """Refuse what a network cannot follow that knows ``vocab_size`` tokens and takes sequences of ``most``.

        Raises:
            UsageError: more hypotheses than it has candidates for, or longer sequences.
        """
        if 2 * self.width > vocab_size:
            raise UsageError(f"beam_size {self.beam_size} is too large for {vocab_size} tokens; at most half.")
        if self.max_tokens is not None and self.max_tokens > most:
            raise UsageError(
                f"max_tokens {self.max_tokens} is more than the decoder's maximum of {most}. Leave it out to get that."
            )

    def limit(self, most: int) -> int:
        """Longest sequence for a network that takes ``most`` tokens (``check_fits``)."""
        return most if self.max_tokens is None else self.max_tokens


@dataclass(frozen=True)
class Hypothesis:
    """One generated sentence.

    Attributes:
        ids: tokens after the prompt, the last one ``</s>``.
        score: log probability per token, that of the language token in the prompt included.
        at_limit: whether ``</s>`` came at the last position, where nothing else was allowed: the text may be cut.
    """

    ids: list[int] = field(repr=False)
    score: float
    at_limit: bool
