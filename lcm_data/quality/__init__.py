"""How good an embedding space is: retrieval across languages, what a decoder gets back, norms, and how noise hurts.

``aligned`` reads translations, ``sentences`` holds the embedded sentences of one language, ``xsim``, ``roundtrip``,
``fragility`` and ``statistics`` measure, ``plots`` draws a ``report``. Loading models and the order of the work are in
``pipelines.evaluate_space``. Importing this package loads neither torch nor sacrebleu nor matplotlib.
"""
