"""Diffusion in concept space: schedules and conversions, the training objective, the DDIM sampler.

``model`` puts them together for the variants that denoise; networks are theirs.
"""
