"""Training data: batches of concepts from mixtures of corpora, in an order that can be resumed exactly.

A source (``corpus``, ``nested``, ``pairs``) gives blocks of documents by number, ``order`` says which document comes
next, ``mixture`` and ``windows`` plan batches of them, ``loader`` copies the concepts. The model normalises.
"""

from __future__ import annotations

from lcm_models.data.artefacts import find_codebook, find_normalizer
from lcm_models.data.config import DataConfig, SourceConfig
from lcm_models.data.loader import ConceptLoader

__all__ = ["ConceptLoader", "DataConfig", "SourceConfig", "find_codebook", "find_normalizer"]
