"""Models over concepts: what reads a corpus of embeddings for training. Imports ``lcm_data``, never the reverse."""

from __future__ import annotations

from lcm_models.loader import ConceptDocuments, Reader

__all__ = ["ConceptDocuments", "Reader"]
