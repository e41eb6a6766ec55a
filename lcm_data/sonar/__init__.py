"""The SONAR networks in plain PyTorch: text encoder, tokenizer, checkpoint formats, downloads, random models.

SONAR (Duquenne et al. 2023, "SONAR: Sentence-Level Multimodal and Language-Agnostic Representations") maps a
sentence of any of 202 languages to one vector of 1024 numbers. This package only turns files into networks and token
ids into vectors; batching and devices are ``lcm_data.encode``. Nothing is imported here, so that modules which
do without torch, such as ``lcm_data.sonar.layout``, stay cheap.
"""
