"""Our decoder and beam search against what sonar-space computed (``tests/parity/make_golden.py``)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from m2m100 import decoder_logits, m2m100_decoder
from safetensors.torch import load_file

from lcm_data.sonar.checkpoint import SonarTextDecoder, load_text_decoder
from lcm_data.sonar.generate import generate
from lcm_data.sonar.settings import Generation, Hypothesis

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def reference(golden: Path) -> State:
    return load_file(golden / "decoder_golden.safetensors")


@pytest.fixture(scope="module")
def searches(golden: Path) -> list[dict[str, Any]]:
    return json.loads((golden / "searches.json").read_text())


@pytest.fixture
def model(golden: Path) -> SonarTextDecoder:
    return load_text_decoder(golden, device="cpu")


def n_best(reference: State) -> list[list[tuple[list[int], float]]]:
    """Ids and scores of every search, one list for each vector of each setting."""
    ids = reference["search.ids"].long().split(reference["search.lengths"].tolist())
    flat = list(zip((row.tolist() for row in ids), reference["search.scores"].tolist(), strict=True))
    lists, start = [], 0
    for count in reference["search.counts"].tolist():
        lists.append(flat[start : start + count])
        start += count
    assert start == len(flat)
    return lists


def search(model: SonarTextDecoder, reference: State, settings: dict[str, Any]) -> list[list[Hypothesis]]:
    how = dict(settings)
    model.decoder.decoder.layer_norm.bias.data = reference["norm_biases"][how.pop("strength")]
    lang_id = model.tokenizer.lang_id(how.pop("lang"))
    return generate(model.decoder, reference["emb"], lang_id, Generation(**how))


def test_logits_equal_those_of_sonar_space(model: SonarTextDecoder, reference: State) -> None:
    with torch.inference_mode():
        logits = model.decoder(reference["emb"][:4], reference["prefixes"].long())
    assert reference["logits"].std() > 1
    torch.testing.assert_close(logits, reference["logits"], atol=1e-5, rtol=0)


def test_transformers_computes_the_same(model: SonarTextDecoder, reference: State) -> None:
    pytest.importorskip("transformers")
    network = m2m100_decoder(model.decoder.full_state(), num_heads=4)
    logits = decoder_logits(network, reference["emb"][:4], reference["prefixes"].long())
    torch.testing.assert_close(logits, reference["logits"], atol=1e-5, rtol=0)


def test_beam_searches_equal_those_of_fairseq2(
    model: SonarTextDecoder, reference: State, searches: list[dict[str, Any]]
) -> None:
    wanted = n_best(reference)
    assert len(wanted) >= 300
    start, worst = 0, 0.0
    for settings in searches:
        for hypotheses in search(model, reference, settings):
            theirs = wanted[start]
            assert [one.ids for one in hypotheses] == [ids for ids, _ in theirs], (settings, start)
            assert [one.at_limit for one in hypotheses] == [len(ids) + 2 == settings["max_tokens"] for ids, _ in theirs]
            for one, (_, score) in zip(hypotheses, theirs, strict=True):
                worst = max(worst, abs(one.score - score) / max(1.0, abs(score)))  # some are sums over many tokens
            start += 1
    assert start == len(wanted)
    assert worst < 1e-5


def test_the_searches_cover_the_traps(reference: State, searches: list[dict[str, Any]]) -> None:
    wanted = n_best(reference)
    num = len(reference["emb"])
    limits = [settings["max_tokens"] for settings in searches for _ in range(num)]
    forced = [len(best[0][0]) + 2 == limit for best, limit in zip(wanted, limits, strict=True)]
    lengths = Counter(len(best[0][0]) for best in wanted)
    assert 0.1 < sum(forced) / len(forced) < 0.7  # some run into the limit, most end by themselves
    assert len(lengths) > 15
    assert any(len(best) == 1 for best in wanted), "no room for more than one hypothesis"
    assert any(1 in best[0][0] for best in wanted), "no <unk>"
    firsts = [{ids[0] for ids, _ in best} for best in wanted]
    assert sum(len(first) > 1 for first in firsts) > 100, "beams hardly part"
    assert len({tuple(best[0][0]) for best in wanted}) > 100, "the vectors hardly matter"


def test_half_the_batch_gives_the_same(
    model: SonarTextDecoder, reference: State, searches: list[dict[str, Any]]
) -> None:
    settings = searches[4]
    whole = search(model, reference, settings)
    for row in (0, 7, 19):
        single = search(model, {**reference, "emb": reference["emb"][row : row + 1]}, settings)[0]
        assert [one.ids for one in single] == [one.ids for one in whole[row]]
