"""One page about a corpus for a browser: samples, drawings and the page. ``pipelines.report`` collects the facts."""
