"""Extension tables: a name maps to ``"module:Attribute"``, imported only when it is used.

Every extension point of the project (segmenters, encoders, pools) is a plain dict of this shape; a new entry
is one line. Nothing here knows what the entries do.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from lcm_data.errors import UnknownNameError, UsageError


def resolve(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Import the object registered under ``name``, or a user's own given as ``"package.module:Attribute"``.

    Raises:
        UnknownNameError: ``name`` is neither in the table nor of the form ``module:Attribute``.
        UsageError: a ``module:Attribute`` path that cannot be imported.
    """
    target = table.get(name)
    if target is None:
        if ":" not in name:
            raise UnknownNameError(kind, name, table)
        target = name
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
        return getattr(module, attribute)
    except (ImportError, AttributeError) as error:
        if name in table:
            raise
        raise UsageError(f"cannot import {kind} {name!r}: {error}. Give it as 'package.module:Attribute'.") from error
