"""Checkpoint folders: written aside, made visible by one rename, listed only if whole, thinned out by age.

What is in one is the caller's; ``state`` puts the trainer's there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from lcm_data.store.files import storage_errors
from lcm_models.train.distributed import World
from lcm_models.train.weights import sync_file

COMPLETE = "complete.json"
"""Written last: the size of every file."""
_NAME = re.compile(r"step-(\d{8,})")


def step_of(folder: Path) -> int:
    """The step a checkpoint was made after."""
    match = _NAME.fullmatch(folder.name)
    assert match is not None, folder
    return int(match[1])


def complete_ones(folder: Path) -> list[Path]:
    """The whole checkpoints in ``folder``, oldest first."""
    if not folder.is_dir():
        return []
    named = [child for child in folder.iterdir() if _NAME.fullmatch(child.name)]
    return sorted((child for child in named if is_complete(child)), key=step_of)


def is_complete(checkpoint: Path) -> bool:
    """Whether every file is there and has its size."""
    try:
        sizes = json.loads((checkpoint / COMPLETE).read_text("utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def save_checkpoint(folder: Path, step: int, world: World, write: Callable[[Path], None]) -> Path:
    """Make the checkpoint of ``step``; every process calls this, and ``write`` puts its files into the folder given.

    Raises:
        StorageError: it cannot be written; earlier ones are as they were.
    """
    final = folder / f"step-{step:08d}"
    if is_complete(final):
        return final
    partial = folder / f".{final.name}.partial"
    with storage_errors("write", str(final)):
        if world.rank == 0:
            for left in _remains(folder):
                shutil.rmtree(left, ignore_errors=True)
            partial.mkdir(parents=True)
        world.wait()
        write(partial)
        world.wait()
        if world.rank == 0:
            _finish(partial, final)
        world.wait()
    return final


def _remains(folder: Path) -> list[Path]:
    """What a run that was killed left here: half written, perhaps at another step, or half deleted by ``thin_out``.

    The latter has lost its ``complete.json``; one that has it is left alone, even if it is damaged.
    """
    found = [*folder.glob(".step-*.partial")]
    for child in folder.iterdir() if folder.is_dir() else ():
        if _NAME.fullmatch(child.name) and child.is_dir() and COMPLETE not in os.listdir(child):
            found.append(child)
    return found


def _finish(partial: Path, final: Path) -> None:
    files = [path for path in sorted(partial.rglob("*")) if path.is_file()]
    for path in files:
        sync_file(path)
    sizes = {str(path.relative_to(partial)): path.stat().st_size for path in files}
    (partial / COMPLETE).write_text(json.dumps(sizes, indent=1), "utf-8")
    sync_file(partial / COMPLETE)
    sync_file(partial)
    shutil.rmtree(final, ignore_errors=True)  # one that is there and not whole
    partial.rename(final)
    sync_file(final.parent)


def thin_out(folder: Path, keep_last: int, keep_every: int) -> None:
    """Delete all whole checkpoints but the newest ``keep_last`` and those of steps divisible by ``keep_every``."""
    for old in complete_ones(folder)[:-keep_last]:
        if keep_every == 0 or step_of(old) % keep_every:
            (old / COMPLETE).unlink()  # first, so that what a crash leaves of it is not taken for whole
            shutil.rmtree(old)


def link_tree(source: Path, target: Path) -> None:
    """The files below ``source`` below ``target`` as well, without a copy where the file system can."""
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, place)
            except OSError:
                shutil.copyfile(path, place)
