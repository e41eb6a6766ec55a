"""The page about generation is true: its code runs, and it names every reason to stop and every figure shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from lcm_data.cli.evaluate import NEXT, WRITTEN
from lcm_models.generate.stop import Stop

PAGE = (Path(__file__).parents[2] / "docs" / "generation.md").read_text("utf-8")


def test_the_example_runs() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)
    exec(compile(block, "docs/generation.md", "exec"), {})  # noqa: S102


def test_reasons_and_figures_are_named() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.M)) == set(get_args(Stop)) - {"not_finite"}
    titles = {title for title, _ in (*NEXT.values(), *WRITTEN.values())}
    named = {name for row in re.findall(r"^\| ([^|`]+) \|", PAGE, flags=re.M) for name in row.split(", ")}
    assert titles <= named
