"""Corpora to other layouts and back: what files of vectors look like elsewhere, read and written as streams.

The way in: ``inputs`` finds files, ``sources`` reads their rows, ``columns`` says which column is what, ``slices``
turns rows into sentences of documents, ``lcm_data.workers.imported`` makes shards of them. The way out: ``layouts``
names the layouts, ``meta``, ``hf``, ``npy`` and ``lance`` write them, ``card`` describes a corpus. Units, commits and
settings are the business of ``pipelines``.
"""
