"""The benchmarks of the models run, compare like with like, and count operations rightly."""

from __future__ import annotations

import argparse

import pytest
from benchmark import benchmark

from lcm_models import build_model


@pytest.mark.parametrize("variant", ["base", "two-tower"])
def test_contenders_are_the_same_network(variant: str) -> None:
    """``check_same`` inside compares losses and next concepts; all contenders are timed."""
    models = benchmark("models")
    rows = models.training(variant, "tiny", rows=2, concepts=6, rounds=1)
    assert {"ours", "plain"} <= {row["who"] for row in rows}
    assert len({row["million_parameters"] for row in rows if row["who"] != "x-transformers"}) == 1
    rows = models.generation(variant, "tiny", rows=2, concepts=6, rounds=1)
    assert rows[0]["who"] == "ours"
    assert all(row["cpu_ms_a_concept"] > 0 for row in rows)


def test_operations_are_counted_by_formula() -> None:
    """6 operations a weight and concept in the products with weights, and attention over the whole square."""
    model, rows, concepts = build_model("base", "tiny"), 4, 16
    weights = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    products = 6 * weights * rows * concepts - 2 * rows * concepts * 1024 * 128  # inputs take no gradient
    layers, width = 4, 128
    attention = layers * 2 * (2 * rows * concepts * concepts * width)
    found = benchmark("models_gpu").step_flops("base", "tiny", rows, concepts)
    # Backward it is 2 times as many operations, or 2.5 where scores are computed again.
    assert products + 3 * attention <= found <= products + 3.5 * attention


def test_the_rehearsal_of_the_gpu_run_measures_everything() -> None:
    given = argparse.Namespace(
        device="cpu", preset="tiny", rounds=1, batches=[1], micro_batch=2, concepts=4, compile=False
    )
    rows = benchmark("models_gpu").measure(given)
    assert [row["what"].split(",")[0] for row in rows] == [
        "matrix rate",
        "base tiny training",
        "base tiny next concept",
        "two-tower tiny training",
        "two-tower tiny next concept",
    ]
    assert all(row["share_of_matrix_rate"] > 0 for row in rows if "share_of_matrix_rate" in row)
