"""What to do with a batch that does not fit into memory: run it as two halves. Which batches there are is elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from lcm_data.encode.batching import Indices

_OOM_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, on a GPU or a CPU (there it is a RuntimeError like any other)."""
    return any(text in str(error).lower() for text in _OOM_TEXTS)


def run_halving(run: Callable[[Indices], None], batch: Indices, on_out_of_memory: Callable[[Indices], None]) -> None:
    """Call ``run(batch)``; if it runs out of memory, ``on_out_of_memory(batch)`` and then both halves, likewise.

    Raises:
        RuntimeError: another error, or a single row does not fit.
    """
    try:
        return run(batch)
    except RuntimeError as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    # Outside the handler: its traceback keeps the tensors of the failed batch alive.
    on_out_of_memory(batch)
    run_halving(run, batch[: len(batch) // 2], on_out_of_memory)
    run_halving(run, batch[len(batch) // 2 :], on_out_of_memory)
    return None
