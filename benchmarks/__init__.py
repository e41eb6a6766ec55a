"""Side-by-side runs: peer and ours on the same work, in one run, printing ratios. Run as ``python -m benchmarks.NAME``."""
