"""Groups of windows from several sources in fixed shares: which windows come next, and where that stands.

The next document is always of the source that is furthest behind its share of the concepts, so shares are exact to one
document at any time and nothing is drawn by chance. A group is the windows of some batches; where it begins is a few
numbers, from which it can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lcm_data.errors import UsageError
from lcm_models.data.config import DataConfig
from lcm_models.data.order import Place, Stream
from lcm_models.data.windows import Limits, Window, batches_by_length, batches_of_rows, cut, pack

GROUP_CONCEPTS = 16384
GROUP_BATCHES = 4
"""Size of a group at least: enough to pack and sort well; as many concepts are in memory."""


class Batches(NamedTuple):
    """The batches of a group, each some rows of windows, and the state from which it was made."""

    plans: list[list[list[Window]]]
    begin: dict[str, Any]


class Mixture:
    """Endless groups of batches from the streams of one process; with ``endless`` off, those of one pass."""

    def __init__(self, config: DataConfig, streams: Sequence[Stream], weights: Sequence[float], limits: Limits) -> None:
        self._config, self._streams, self._weights, self._limits = config, streams, weights, limits
        self._given = [0] * len(streams)  # concepts of each source
        self._short = [0] * len(streams)  # documents left out
        self._open = [True] * len(streams)
        self._waiting = [0] * len(streams)  # epoch of the last window
        self._carried: list[Window] = []
        self._number = 0
        rows = config.batch_rows or (config.batch_concepts or 0) // config.max_len
        self._batch_rows = max(1, rows)
        batch = self._batch_rows * config.max_len if config.pack or config.batch_rows else config.batch_concepts or 0
        self._group = batch * max(GROUP_BATCHES, -(-GROUP_CONCEPTS // batch))

    def group(self) -> Batches | None:
        """The next group, None after the last."""
        begin = self.state()
        windows = self._take(self._group - sum(len(window) for window in self._carried))
        if not windows and not self._carried:
            return None
        # The rank takes no part: what it reads is different anyway.
        rng = np.random.default_rng([self._config.seed, self._number]) if self._config.shuffle else None
        if self._config.pack:
            rows, self._carried = pack(
                windows, self._carried, self._group // self._config.max_len, self._config.max_len
            )
            plans = batches_of_rows(rows, self._batch_rows, rng)
        else:
            plans = batches_by_length(windows, self._config.batch_rows, self._config.batch_concepts, rng)
        self._number += 1
        return Batches(plans, begin)

    def _take(self, num_concepts: int) -> list[Window]:
        """Windows of at least so many concepts, unless the pass ends."""
        windows: list[Window] = []
        while num_concepts > 0 and any(self._open):
            behind = [
                (given / weight, number)
                for number, (given, weight) in enumerate(zip(self._given, self._weights, strict=True))
                if self._open[number]
            ]
            number = min(behind)[1]
            found = self._next(number)
            for window in found:
                windows.append(window)
                num_concepts -= len(window)
                self._given[number] += len(window)
        return windows

    def _next(self, number: int) -> list[Window]:
        """The windows of the next document of a source; none when it is left out, or the source is at its end."""
        stream = self._streams[number]
        entry = stream.next()
        if entry is None:
            self._open[number] = False
            return []
        windows = cut(number, entry, self._limits)
        if windows:
            self._waiting[number] = entry.place.epoch
        else:
            self._short[number] += 1
            if entry.place.epoch > self._waiting[number] + 1:
                raise UsageError(
                    f"all documents of source {number + 1} are shorter than min_len ({self._limits.min_len} concepts, "
                    "end of text included): lower min_len."
                )
        return windows

    @property
    def counts(self) -> dict[str, list[int]]:
        """Of each source: concepts given (end of text included) and documents left out as too short."""
        return {"concepts": list(self._given), "short_documents": list(self._short)}

    def state(self) -> dict[str, Any]:
        """Where the next group begins, as JSON values."""
        return {
            "group": self._number,
            "places": [list(stream.place) for stream in self._streams],
            "concepts": list(self._given),
            "short_documents": list(self._short),
            "carried": [[window.source, *window.place, window.number] for window in self._carried],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where a state was."""
        self._number = state["group"]
        self._given, self._short = list(state["concepts"]), list(state["short_documents"])
        self._open = [True] * len(self._streams)
        self._waiting = [place[0] for place in state["places"]]
        carried: dict[tuple[int, ...], Window] = {}
        for source, *place, number in sorted(state["carried"]):  # page by page
            window = cut(source, self._streams[source].at(Place(*place)), self._limits)[number]
            carried[source, *place, number] = window
        self._carried = [carried[tuple(key)] for key in state["carried"]]
        for stream, place in zip(self._streams, state["places"], strict=True):
            stream.place = Place(*place)
