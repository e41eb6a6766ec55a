"""Training: one loop for one process, torchrun, local processes and Ray Train, for any model with a summed loss.

``loop`` trains a ``task`` (model, data, what to store); ``launch`` decides where; nothing here knows a model's inside.
"""

from __future__ import annotations
