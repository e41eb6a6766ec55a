"""``lcm-data export`` and ``card``: a corpus in another layout, file after file, and a card for it as it is.

An export is built beside its place (``OUT.unfinished``) and gets its name when everything is there; a rerun of a killed
one goes on with the files that were done. On an object store, where nothing can be renamed, ``export.json`` is written
last and says that the rest is whole.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
from pydantic import BaseModel, ConfigDict, Field

from lcm_data.corpus import Corpus, open_corpus
from lcm_data.end_of_text import END_OF_TEXT
from lcm_data.errors import UsageError
from lcm_data.exchange.card import CARD, MARK, corpus_pattern, write_card
from lcm_data.exchange.layouts import LAYOUTS, Export, Layout, OutFile
from lcm_data.schema import STAGES, StoreDtype
from lcm_data.store.files import Files, LocalFiles, open_files, storage_errors
from lcm_data.store.lock import LOCK_PATH, stage_lock
from lcm_data.store.manifest import MANIFEST_PATH
from lcm_data.tables import resolve
from pipelines.config import Languages
from pipelines.derived import overlaps
from pipelines.stage import refuse_outdated

log = logging.getLogger("lcm_data.export")

RECORD = "export.json"
UNFINISHED, REPLACED = ".unfinished", ".replaced"
_STARTED = "_lcm/export.json"
_VERSION = 1

Say = Callable[[str, int, int], None]
"""Told the file that is written, how many are done, and how many there are."""


class ExportConfig(BaseModel):
    """Settings of ``lcm-data export``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: str = Field(description="Corpus folder or fsspec URL.")
    out: str = Field(description="Folder or fsspec URL to make.")
    layout: str = Field(description="meta, hf, npy or lance.")
    stages: list[str] | None = Field(None, description="Stages to export; by default what the layout is for.")
    langs: Languages = Field(None, description="Only these languages.")
    splits: list[str] | None = Field(None, description="Only these splits.")
    dtype: StoreDtype | None = Field(None, description="Numbers of vectors, for meta (float32 by default) and npy.")
    name: str | None = Field(None, description="Name on the card; by default that of the folder.")
    licence: str = Field("unknown", description="Licence on the card: an identifier of the Hugging Face Hub.")
    overwrite: bool = Field(False, description="Replace an export that is there.")


@dataclass(frozen=True)
class ExportReport:
    """What an export left behind. ``files_done`` were written by this run."""

    layout: str
    root: str
    stages: list[str]
    rows: dict[str, int]
    files: int
    files_done: int
    bytes: int
    seconds: float


def run(config: ExportConfig, say: Say = lambda path, done, total: None) -> ExportReport:
    """Write what is not there yet.

    Raises:
        UsageError: the place is taken, or the layout has no such stage.
        PlanMismatchError: a stage is outdated.
    """
    begun = time.monotonic()
    layout = cast(Layout, resolve(LAYOUTS, config.layout, "layout")())
    corpus = open_corpus(config.corpus)
    out = open_files(config.out)
    if any(overlaps(corpus.files, place) for place in _places(out)):
        raise UsageError(
            f"{out.root} is {corpus.files.root}, lies in it or around it. Give a folder of its own; to open the corpus "
            "itself with 'datasets', 'lcm-data card' writes a card into it."
        )
    export = _export(config, layout, corpus, out)
    files = list(layout.files(export))
    if not files:
        raise UsageError("nothing to export: no rows of these languages in these splits. Leave out --lang or --split.")
    signature = _signature(config, export)
    rows = {stage: sum(count for _, count in export.shards(stage)) for stage in export.stages}
    done = _record(out)
    if done is None or done.get("signature") != signature or config.overwrite:
        _refuse_taken(out, done, config.overwrite)
        written = _write(layout, export, files, out, signature, rows, say)
    else:
        written = 0
    sizes = out.list()
    return ExportReport(
        config.layout, out.root, list(export.stages), rows, len(files), written, sum(sizes.values()),
        time.monotonic() - begun,
    )  # fmt: skip


def _places(out: Files) -> list[Files]:
    """The place of an export, and those it is built in and replaced by way of."""
    if not isinstance(out, LocalFiles):
        return [out]
    return [out, *(LocalFiles(out.root + suffix) for suffix in (UNFINISHED, REPLACED))]


def _export(config: ExportConfig, layout: Layout, corpus: Corpus, out: Files) -> Export:
    """What is to be exported; the stages must be finished and up to date."""
    stages = config.stages or _finished(corpus, layout.default)
    for stage in stages:
        if stage not in layout.stages:
            raise UsageError(f"the layout {config.layout} holds {', '.join(layout.stages)}, not {stage!r}.")
        refuse_outdated(corpus.files, stage)
    if config.dtype is not None and config.layout not in ("meta", "npy"):
        raise UsageError(f"the layout {config.layout} keeps the numbers as they are: leave --dtype out.")
    ordered = tuple(stage for stage in STAGES if stage in stages)
    export = Export(
        corpus=corpus,
        stages=ordered,
        langs=tuple(config.langs) if config.langs else None,
        splits=tuple(config.splits) if config.splits else None,
        dtype=config.dtype,
        place=out.root,
        licence=config.licence,
        options={"name": config.name},
    )
    for stage in ordered:
        export.shards(stage)  # raises where a language, a split or the whole stage is not there
    return export


def _finished(corpus: Corpus, wanted: Sequence[str]) -> list[str]:
    """Of several stages those that are finished; a single one must be."""
    if len(wanted) == 1:
        return [*wanted]
    return [stage for stage in wanted if corpus.files.size(f"{stage}/{MANIFEST_PATH}") is not None]


def _signature(config: ExportConfig, export: Export) -> dict[str, Any]:
    settings = config.model_dump(mode="json", exclude={"corpus", "out", "overwrite"})
    digests = {stage: export.data(stage).manifest.digest for stage in export.stages}
    return {"version": _VERSION, "settings": {**settings, "stages": [*export.stages]}, "digests": digests}


def _record(files: Files, path: str = RECORD) -> dict[str, Any] | None:
    try:
        found = orjson.loads(files.read(path))
    except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _refuse_taken(out: Files, record: dict[str, Any] | None, overwrite: bool) -> None:
    """Refuse a place with files, unless they are an export and may be replaced; and what lies in the way beside it."""
    for place in _places(out)[1:]:
        beside = [path for path in place.list() if not path.startswith("_lcm/")]
        if beside and _record(place) is None and _record(place, _STARTED) is None:
            raise UsageError(
                f"{place.root} holds files that are no export, such as {min(beside)}, and is needed for this one. Move "
                "it away, or give another folder."
            )
    if isinstance(out, LocalFiles) and Path(out.root).is_file():
        raise UsageError(f"{out.root} is a file. Give a folder to make.")
    found = [path for path in out.list() if not path.startswith("_lcm/")]
    if isinstance(out, LocalFiles):
        if record is None and found:
            raise UsageError(f"{out.root} holds files that are no export, such as {min(found)}. Give another folder.")
    elif record is None and found and _record(out, _STARTED) is None:
        raise UsageError(f"{out.root} holds objects that are no export, such as {min(found)}. Give another place.")
    if record is not None and not overwrite:
        raise UsageError(
            f"{out.root} holds an export of other data or with other settings. Add --overwrite to replace it, or give "
            "another folder."
        )


def _write(
    layout: Layout, export: Export, files: list[OutFile], out: Files, signature: dict[str, Any], rows: dict[str, int],
    say: Say,
) -> int:  # fmt: skip
    """Build the export aside (remote: in place), and give it its name."""
    is_local = isinstance(out, LocalFiles)
    building = LocalFiles(out.root + UNFINISHED) if is_local else out
    with stage_lock(building):
        if is_local and (_record(building) or {}).get("signature") == signature:  # killed before it got its name
            _rename(Path(building.root), Path(out.root))
            return 0
        _prepare(building, signature)
        written = _write_files(building, files, say)
        if (concept := _end_of_text(export)) is not None:
            building.write(END_OF_TEXT, concept)
        for path, content in layout.extras(export, files).items():
            building.write(path, content)
        record = {"signature": signature, "rows": rows, "files": {file.path: file.rows for file in files}}
        building.write(RECORD, orjson.dumps(record, option=orjson.OPT_INDENT_2))
        if is_local:
            _rename(Path(building.root), Path(out.root))
        else:
            building.remove(_STARTED)
    return written


def _prepare(building: Files, signature: dict[str, Any]) -> None:
    """Keep what an earlier run of the same export left, else begin anew."""
    building.remove(RECORD)
    building.sweep()
    if _record(building, _STARTED) != signature:
        for path in building.list():
            if path != LOCK_PATH:
                building.remove(path)
        if isinstance(building, LocalFiles):  # folders of Lance datasets must not be met again
            for folder in Path(building.root).iterdir():
                if folder.is_dir() and folder.name != "_lcm":
                    shutil.rmtree(folder)
        building.write(_STARTED, orjson.dumps(signature))


def _write_files(building: Files, files: list[OutFile], say: Say) -> int:
    written = 0
    for number, file in enumerate(files):
        say(file.path, number, len(files))
        if _is_there(building, file.path):
            continue
        with building.scratch() as scratch:
            made = scratch / file.path.rpartition("/")[2]
            with storage_errors("write", str(made)):
                file.write(made)
            _publish(building, made, file.path)
        written += 1
    return written


def _is_there(building: Files, path: str) -> bool:
    if isinstance(building, LocalFiles):
        return Path(building.root, path).exists()
    return building.size(path) is not None


def _publish(building: Files, made: Path, path: str) -> None:
    if made.is_file():
        building.publish(made, path)
        return
    assert isinstance(building, LocalFiles)  # layouts that make folders refuse other places
    target = Path(building.root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(made, target)


def _end_of_text(export: Export) -> bytes | None:
    if export.corpus.files.size(END_OF_TEXT) is None:
        return None
    return export.corpus.files.read(END_OF_TEXT)


def _rename(building: Path, out: Path) -> None:
    """Give a finished export its name; what had it before goes away.

    The lock moves along, so that nobody begins to build in ``building`` before it has gone.
    """
    old = out.with_name(out.name + REPLACED)
    with storage_errors("write", str(out)):
        shutil.rmtree(old, ignore_errors=True)  # an export, see ``_refuse_taken``
        if out.exists() and building.exists():
            os.rename(out, old)
        try:
            os.rename(building, out)
        except OSError:
            if old.exists():
                os.rename(old, out)
            raise
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(out / "_lcm", ignore_errors=True)


class CardConfig(BaseModel):
    """Settings of ``lcm-data card``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: str
    name: str | None = None
    licence: str = "unknown"
    overwrite: bool = False


def write_corpus_card(config: CardConfig) -> str:
    """Write the card of a corpus into it; returns where.

    Raises:
        UsageError: there is a README.md that we did not write.
    """
    corpus = open_corpus(config.corpus)
    stages = tuple(_finished(corpus, STAGES))
    if not stages:
        raise UsageError(f"{corpus.files.root} has no finished stage yet. Run 'lcm-data status' to see which is open.")
    options = {"name": config.name}
    export = Export(corpus, stages, place=corpus.files.root, licence=config.licence, options=options)
    try:
        old = corpus.files.read(CARD)
    except FileNotFoundError:
        old = MARK.encode()
    if MARK.encode() not in old and not config.overwrite:
        raise UsageError(
            f"{corpus.files.root}/{CARD} was not written by lcm-data. Move it away, or add --overwrite to replace it."
        )
    corpus.files.write(CARD, write_card(export, corpus_pattern).encode())
    return f"{corpus.files.root}/{CARD}"
