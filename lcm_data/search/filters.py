"""Rows by an SQL expression over their columns, evaluated by DuckDB with nothing in reach but these rows.

The connection lives in memory, sees no files, no network, no extensions and no Python variables, and takes one
expression, not a statement; its settings are locked.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lcm_data.errors import MissingExtraError, UsageError
from lcm_data.search.rows import Rows

_SETTINGS: dict[str, Any] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}
_ROWS, _ROW = (f"lcm_{uuid.uuid4().hex}" for _ in range(2))
"""Names of the table, which is one shard after another, and of its row numbers: no expression can speak of them."""


def matching(rows: Rows, where: str, chosen_N: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which of the ``chosen`` rows the expression is true for; shards without chosen rows are not read.

    Raises:
        UsageError: it is no expression over the columns of a row.
        MissingExtraError: DuckDB is not installed.
    """
    columns = _columns(rows, where)
    found = np.zeros(len(rows), bool)
    with _connection() as connection:
        for number, (start, end) in enumerate(zip(rows.starts, rows.starts[1:], strict=False)):
            if not chosen_N[start:end].any():
                continue
            table = rows.shard(number, columns)
            numbered = table.append_column(_ROW, pa.array(np.arange(len(table))))
            found[start + _true_rows(connection, numbered, where, rows.schema.names)] = True
    return found & chosen_N


def _columns(rows: Rows, where: str) -> list[str]:
    """The columns that the expression names; all of them if it does not bind with these alone."""
    every = list(rows.schema.names)
    words = {word.lower() for word in re.findall(r"\w+", where)}
    named = [name for name in every if name.lower() in words]
    if not named or "columns" in words or "*" in where:  # patterns of columns bind to any
        named = every
    with _connection() as connection:
        try:
            _true_rows(connection, _empty(rows, named), where, every)
        except UsageError:
            _true_rows(connection, _empty(rows, every), where, every)
            return every
    return named


def _empty(rows: Rows, names: Sequence[str]) -> pa.Table:
    table = pa.schema([rows.schema.field(name) for name in names]).empty_table()
    return table.append_column(_ROW, pa.array([], pa.int64()))


def _true_rows(connection: Any, table: pa.Table, where: str, known: Sequence[str]) -> npt.NDArray[np.int64]:
    import duckdb

    connection.register(_ROWS, table)
    try:
        found = connection.table(_ROWS).filter(where).project(_ROW).fetchnumpy()[_ROW]
    except duckdb.Error as error:
        problem = str(error).splitlines()[0].rstrip(".")
        raise UsageError(
            f"--where {where!r} is no condition on a row: {problem}. Columns: {', '.join(known)}. "
            "Example: --where \"length(text) > 20 AND lang <> 'eng_Latn'\"."
        ) from error
    finally:
        connection.unregister(_ROWS)
    return np.asarray(found, np.int64)


def _connection() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtraError("filtering by --where", "duckdb", "analysis") from error
    return duckdb.connect(":memory:", config=_SETTINGS)
