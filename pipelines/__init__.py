"""One module a verb: a ``Config`` and ``run(config) -> Report``. Composition only; nothing here travels to a worker."""
