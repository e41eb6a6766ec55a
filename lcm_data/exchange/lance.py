"""A Lance dataset for each stage, with language and split as columns: random access, vector search, versions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from lcm_data.errors import MissingExtraError, UsageError
from lcm_data.exchange.layouts import Export, OutFile, file_facts, rows_of
from lcm_data.schema import STAGES


class LanceLayout:
    """``STAGE.lance``."""

    stages = STAGES
    default = ("embeddings",)

    def files(self, export: Export) -> Iterator[OutFile]:
        require_lance()
        if "://" in export.place:
            raise UsageError(f"a Lance dataset is written to a local disk, got {export.place}. Copy it from there.")
        for stage in export.stages:
            shards = export.shards(stage)
            if shards:
                paths = [path for path, _ in shards]
                yield OutFile(f"{stage}.lance", sum(rows for _, rows in shards), partial(_write, export, stage, paths))

    def extras(self, export: Export, files: Sequence[OutFile]) -> Mapping[str, bytes]:
        return {}


def require_lance() -> None:
    """Refuse to begin without the package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import lance  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("the layout 'lance'", "pylance", "lance") from error


def _write(export: Export, stage: str, paths: Sequence[str], folder: Path) -> None:
    import lance

    data = export.data(stage)
    groups = (group for path in paths for group in rows_of(data, path, ("lang", "split")))
    first = next(groups)
    facts = {name: value for name, value in file_facts(data, paths[0]).items() if name not in _OF_ONE_FILE}
    schema = first.schema.with_metadata(facts)
    batches = (batch for group in itertools.chain([first], groups) for batch in group.cast(schema).to_batches())
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), str(folder), mode="create")


_OF_ONE_FILE = {"lcm.split", "lcm.lang"}
