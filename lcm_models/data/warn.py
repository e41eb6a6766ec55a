"""Warnings about training data, each said once in a process: a run opens its sources several times."""

from __future__ import annotations

import logging

log = logging.getLogger("lcm_models.data")


class _Once(logging.Filter):
    """Lets a text pass the first time."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_new = text not in self._said
        self._said.add(text)
        return is_new


log.addFilter(_Once())
