"""Training a SONAR space of one's own: encoder and decoder from sentence pairs and plain text, by SONAR's objective.

``prepare`` makes tokenizer and token arrays from texts, ``batches`` draws from them, ``model`` is the networks with the
loss, ``task`` gives them to the trainer of ``lcm_models.train``, ``export`` writes what ``lcm_data.sonar`` loads.
"""

from __future__ import annotations
