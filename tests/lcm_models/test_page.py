"""The page about the models is true: its code runs, its table names the variants."""

from __future__ import annotations

import re
from pathlib import Path

from lcm_models import LCMS

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")


def test_the_examples_run_in_order() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/models.md", "exec"), names)  # noqa: S102
    assert tuple(names["predicted_BSD"].shape) == (2, 7, 1024)  # type: ignore[attr-defined]


def test_the_table_names_every_variant_and_its_file() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| `(\w+)\.py` \|", PAGE, flags=re.M)
    assert dict(rows) == {name: target.split(":")[0].removeprefix("lcm_models.") for name, target in LCMS.items()}
