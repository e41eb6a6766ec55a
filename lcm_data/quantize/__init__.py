"""Residual vector quantization of sentence embeddings: sample, fit, encode, decode.

``sample`` chooses rows, ``fit`` makes a codebook from them, ``codebook`` is the artefact that encodes and decodes.
Importing this package imports neither FAISS nor torch. Reading embeddings and writing code shards is the business
of ``lcm_data.workers``.
"""
