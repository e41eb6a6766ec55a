"""What a trainer meets before anything starts: one line, the right exit code, the fix named, nothing left behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from jobs import copy, snapshot

from lcm_data.normalize import Normalizer
from pipelines import encode, normalize
from pipelines.encode import EncodeConfig
from pipelines.normalize import NormalizeConfig

QUICK = ("--preset", "tiny", "--set", "data.max_len=8", "--set", "data.batch_rows=2", "--out", "{tmp}/run")
HAS_BOTH = "data.sources=[{{path='{ready}'}},{{path='{%s}'}}]"


class Refused(NamedTuple):
    args: tuple[str, ...]
    message: str
    code: int = 2


REFUSED = {
    "no corpus": Refused(("base", "--data", "{tmp}"), r"is not a corpus: .*'lcm-data segment INPUT\.\.\. CORPUS'"),
    "not encoded": Refused(("base", "--data", "{bare}"), r"bare/embeddings holds no .*Run 'lcm-data encode' first"),
    "no normaliser": Refused(
        ("base", "--data", "{raw}"), r"no normaliser: .*Run 'lcm-data normalize .*raw', or set model\.normalizer to"
    ),
    "other normaliser": Refused(
        ("base", "--data", "{ready}", "--set", "model.normalizer={wide}"),
        r"for 17 dimensions, .*ready has 16\. Fit one .*'lcm-data normalize .*ready'",
    ),
    "wrong dimension": Refused(
        ("base", "--data", "{ready}", "--set", "model.concept_dim=1024"),
        r"model\.concept_dim is 1024, the corpus has 16 dimensions: leave it out",
    ),
    "no codes": Refused(
        ("quant-d", "--data", "{ready}"), r"has no codes, which this model learns\. Run 'lcm-data quantize .*ready'"
    ),
    "no such split": Refused(
        ("base", "--set", "data.sources=[{{path='{ready}',splits=['dev']}}]"),
        r"no split 'dev' in .*It has: test, train",
    ),
    "no such language": Refused(
        ("base", "--set", "data.sources=[{{path='{ready}',langs=['deu']}}]"), r"no language 'deu_Latn' in .*It has: eng"
    ),
    "nothing long enough": Refused(
        ("base", "--data", "{ready}", "--set", "data.min_len=200", "--set", "data.max_len=400"),
        r"no document that is long enough\. Hold some .*or set train\.valid_every=0",
    ),
    "mixed encoders": Refused(
        ("base", "--set", HAS_BOTH % "foreign"),
        r"is of the space .* is of the space elsewhere .*Encode one of them again with the encoder of the other",
        code=4,
    ),
    "fragility": Refused(
        ("two-tower", "--data", "{ready}", "--set", "model.diffusion.weighting=fragility"),
        r"set model\.diffusion\.regressor to the file",
    ),
    "epsilon": Refused(
        ("one-tower", "--data", "{ready}", "--set", "model.diffusion.prediction=epsilon"),
        r"choose 'x0' or 'v', or set schedule\.zero_terminal_snr to false",
    ),
}


@pytest.fixture(scope="module")
def places(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A corpus ready to train on, and others that lack something or are of another encoder."""
    root = tmp_path_factory.mktemp("places")
    found = {name: copy(finished, root / name) for name in ("bare", "raw", "ready", "foreign")}
    for name, without in {"bare": ("embeddings", "codes"), "ready": ("codes", "codebook")}.items():
        for part in without:
            (found[name] / part).rename(root / f"{name}-{part}")
    how: dict[str, Any] = {"backend": "oddencoder:OddEncoder", "executor": "local", "overwrite": True}
    encode.run(EncodeConfig(corpus=str(found["foreign"]), model="one@elsewhere", **how))
    for name in ("ready", "foreign"):
        normalize.run(NormalizeConfig(corpus=str(found[name])))
    Normalizer.fit(np.random.default_rng(0).normal(size=(50, 17)).astype(np.float32)).save(root / "wide")
    return {**found, "wide": root / "wide"}


@pytest.mark.parametrize("name", REFUSED)
def test_one_line_names_the_fix(call: Callable[..., Any], places: dict[str, Path], tmp_path: Path, name: str) -> None:
    args, message, code = REFUSED[name]
    before = snapshot(places["ready"])
    called = call("train", *(arg.format(tmp=tmp_path, **places) for arg in (*args[:1], *QUICK, *args[1:])), code=code)
    assert called.out == ""
    assert called.err.startswith("lcm-data: ")
    assert called.err.count("\n") == 1
    assert re.search(message, called.err), called.err
    assert list(tmp_path.iterdir()) == []
    assert snapshot(places["ready"]) == before
