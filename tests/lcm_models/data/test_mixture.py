"""Sources come in their shares, to one document, at any time."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from conceptfiles import config, one_pass, seen

from lcm_models.data import ConceptLoader


def shares(loader: ConceptLoader, num: int) -> list[float]:
    counts = seen(itertools.islice(loader, num))
    by_source = [sum(n for (source, _, _), n in counts.items() if source == number) for number in range(3)]
    return [n / sum(by_source) for n in by_source]


@pytest.mark.parametrize("pack", [True, False])
def test_weights_are_shares_of_the_concepts(
    nested: dict[str, Path], pack: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcm_models.data.mixture.GROUP_CONCEPTS", 500)
    how = config(*nested.values(), weights=[1, 6, 3], pack=pack, max_len=16, batch_rows=8)
    assert shares(ConceptLoader(how), 300) == pytest.approx([0.1, 0.6, 0.3], abs=0.005)


def test_by_default_sources_come_by_their_size(nested: dict[str, Path]) -> None:
    how = config(*nested.values(), max_len=16, batch_rows=8)
    sizes = [ConceptLoader(config(folder)).num_concepts for folder in nested.values()]
    assert ConceptLoader(how).num_concepts == sum(sizes)
    expected = [size / sum(sizes) for size in sizes]
    assert shares(ConceptLoader(how), 512) == pytest.approx(expected, abs=0.02)


def test_one_pass_reads_every_source_once(nested: dict[str, Path]) -> None:
    how = config(*nested.values(), weights=[1, 6, 3])
    together = seen(itertools.chain(*one_pass(how, 2)))
    apart = [seen(one_pass(config(folder))[0]) for folder in nested.values()]
    assert together == apart[0] + apart[1] + apart[2]
    assert set(together.values()) == {1}
