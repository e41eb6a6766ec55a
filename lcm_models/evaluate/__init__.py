"""Evaluation of Large Concept Models: figures over vectors, over texts, and with a language model; no running order.

``places`` says what is predicted and what a guess is worth, ``pool`` holds the candidates of contrastive accuracy,
``predict`` makes guesses of models and baselines, ``text``, ``information`` and ``coherence`` judge sentences.
"""
