"""Generation: documents written on concept by concept, many at once. Knows any ``ConceptModel``; text is elsewhere.

``loop`` runs requests on the seats of a batch, ``stop`` decides when one ends, ``seats`` lets new ones in, ``worker``
does it for the units of a corpus.
"""

from __future__ import annotations

from lcm_models.generate.loop import Continuation, Request, generate
from lcm_models.generate.stop import StopRules

__all__ = ["Continuation", "Request", "StopRules", "generate"]
