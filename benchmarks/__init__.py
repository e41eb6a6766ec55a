"""Side-by-side runs: peer and ours on the same work, in one run, printing ratios: ``python -m benchmarks.NAME``."""
