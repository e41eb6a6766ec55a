"""Where a corpus comes from, for people: commands, settings, inputs and dates; and the health of its codebook."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson

from lcm_data.corpus import Corpus, StageData
from lcm_data.errors import LcmDataError
from lcm_data.quantize.codebook import MANIFEST
from lcm_data.space import space_of
from lcm_data.store.commits import read_commits
from lcm_data.store.plan import load_plan
from lcm_data.store.runs import read_runs
from pipelines.stage import is_outdated

_SHOWN_INPUTS = 12
_VERBS = {"segments": "segment", "embeddings": "encode", "codes": "quantize"}


def stage_provenance(corpus: Corpus, stage: str) -> dict[str, Any]:
    """What is recorded about how a stage was made, as text."""
    files = corpus.files.child(stage)
    plan, commits, runs = load_plan(files), read_commits(files), read_runs(files)
    assert plan is not None
    data = StageData(files, allow_partial=True)
    finished = [commit.finished for commit in commits.values() if commit.finished]
    hosts = sorted({commit.host for commit in commits.values() if commit.host})
    inputs = [{"name": name, "fingerprint": what} for name, what in sorted(plan.inputs.items())]
    together = hashlib.sha256(orjson.dumps(plan.inputs, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return {
        "stage": stage,
        "verb": _VERBS[stage],
        "outdated": is_outdated(corpus.files, stage),
        "facts": {
            "begun": _date(min((run.started for run in runs), default=min(finished, default=0))),
            "finished": _date(max(finished, default=0)),
            "on": ", ".join(hosts) or "unknown",
            "units": f"{len(commits):,} of {len(plan.units):,}",
            "rows": f"{data.manifest.rows_in:,} in, {data.manifest.rows:,} out",
            "digest": data.manifest.digest,
            "plan": plan.hash,
            "layout": str(plan.schema),
            **({"space": space_of(data.manifest.provenance)} if space_of(data.manifest.provenance) else {}),
        },
        "runs": [
            {"command": run.command or "started from Python", "when": _date(run.started), "units": run.units,
             "versions": ", ".join(f"{name} {value}" for name, value in run.versions.items())}
            for run in runs
        ],
        "settings": _flat({**plan.config, "provenance": data.manifest.provenance}),
        "inputs": inputs[:_SHOWN_INPUTS],
        "num_inputs": len(inputs),
        "inputs_sha256": together,
    }  # fmt: skip


def codebook_facts(corpus: Corpus) -> dict[str, Any]:
    """The quality of the codebook as it was fitted, and how its units are used by all codes of the corpus."""
    data = StageData(corpus.files.child("codes"), allow_partial=True)
    manifest = _codebook_manifest(corpus, data)
    fitted = {each["level"]: each for each in manifest.get("quality", [])}
    units = int(manifest.get("num_units", 0))
    levels = []
    for number, counts in enumerate(_usage(data, units), start=1):
        shares = counts[counts > 0] / max(1, counts.sum())
        level = fitted.get(number, {})
        levels.append(
            {
                "level": number,
                "nmse": level.get("heldout_nmse"),
                "cosine": level.get("heldout_cosine"),
                "used": int((counts > 0).sum()),
                "units": units or len(counts),
                "perplexity": float(2 ** -(shares * np.log2(shares)).sum()) if len(shares) else 0.0,
                "most": float(shares.max(initial=0)),
            }
        )
    return {"levels": levels, "units": units, "rows": data.manifest.rows, "drawing": None}


def _codebook_manifest(corpus: Corpus, data: StageData) -> dict[str, Any]:
    """That beside the corpus; without it, only the codes tell about usage."""
    try:
        found: dict[str, Any] = orjson.loads(corpus.files.read(f"codebook/{MANIFEST}"))
        return found if found.get("num_levels") == data.dim else {}
    except (FileNotFoundError, ValueError, LcmDataError):
        return {}


def _usage(data: StageData, units: int) -> list[Any]:
    """How often each unit of each level stands in the codes."""
    counts = np.zeros((data.dim, max(units, 1)), np.int64)
    for batch in data.batches(columns=["codes"]):
        codes = batch.vectors("codes").astype(np.int64)
        if (most := int(codes.max(initial=0)) + 1) > counts.shape[1]:
            counts = np.pad(counts, ((0, 0), (0, most - counts.shape[1])))
        flat = codes + np.arange(data.dim) * counts.shape[1]
        counts += np.bincount(flat.ravel(), minlength=counts.size).reshape(counts.shape)
    return list(counts)


def _flat(values: dict[str, Any], prefix: str = "") -> list[dict[str, str]]:
    rows = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append({"name": f"{prefix}{name}", "value": "-" if value is None else str(value)})
    return rows


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC") if seconds else "unknown"
