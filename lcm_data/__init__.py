"""lcm-data: multilingual text to corpora of sentence embeddings for Large Concept Models.

``open_corpus`` reads what the command ``lcm-data`` writes. Importing this package is cheap; Arrow comes with the
first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lcm_data.version import __version__

if TYPE_CHECKING:
    from lcm_data.corpus import Batch, Corpus, CorpusDocument, StageData, open_corpus
    from lcm_data.errors import LcmDataError

__all__ = ["Batch", "Corpus", "CorpusDocument", "LcmDataError", "StageData", "__version__", "open_corpus"]

_HOME = {"LcmDataError": "lcm_data.errors"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_HOME.get(name, "lcm_data.corpus")), name)
    raise AttributeError(f"module 'lcm_data' has no attribute {name!r}")
