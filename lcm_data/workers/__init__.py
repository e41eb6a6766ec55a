"""What runs on a worker: one module a stage, all with the same three steps, and the harness that overlaps them."""
