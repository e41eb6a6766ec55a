"""Search by meaning in the embeddings of a corpus: an index kept beside it, filters that are exact, and the rows found.

Vectors go in, rows come out. Encoding a question is ``pipelines.search``; measuring spaces is ``lcm_data.quality``.
"""

from lcm_data.search.engine import CorpusSearch, Found, Hit
from lcm_data.search.kinds import KINDS

__all__ = ["KINDS", "CorpusSearch", "Found", "Hit"]
