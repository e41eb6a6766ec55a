"""Training a speech encoder for a space of text that exists: teacher and student, as SONAR does (arXiv 2308.11466).

``prepare`` turns clips and what they say into features and target vectors, ``batches`` draws from them and ``augment``
varies them, ``model`` is the network with the loss, ``task`` gives them to the trainer of ``lcm_models.train``,
``export`` writes what ``lcm_data.sonar`` loads.
"""

from __future__ import annotations
