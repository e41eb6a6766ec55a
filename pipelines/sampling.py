"""A sample of the embeddings of a corpus, for fitting a codebook or a normaliser on the driver."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from lcm_data import schema
from lcm_data.corpus import StageData
from lcm_data.errors import InputError
from lcm_data.quantize.sample import RowSampler, Sample, language_quotas
from lcm_data.store.shard import open_shard, parse_shard_path

_HELDOUT_SHARE, _HELDOUT_ROWS = 0.1, 50_000


def sample_embeddings(data: StageData, rows: int, *, seed: int, alpha: float, heldout: bool = True) -> Sample:
    """Choose up to ``rows`` training rows (and a tenth as many held-out ones) from the ``train`` split.

    Languages share the sample in proportion to ``rows ** alpha``. Vectors are only read where a row may be chosen.

    Raises:
        InputError: the corpus has no training rows.
    """
    counts = _train_rows(data)
    num_heldout = _num_heldout(counts.total()) if heldout else 0
    quotas = language_quotas(counts, min(rows, counts.total() - num_heldout), alpha)
    dtype = str(data.schema.field("emb").type.value_type.to_pandas_dtype().__name__)
    sampler = RowSampler(quotas, heldout_rows=num_heldout, seed=seed, dtype=dtype)
    for path in data.shards(splits=["train"]):
        _offer(sampler, data, path)
    sample = sampler.result()
    if heldout and not len(sample.heldout) and len(sample.train) > 1:  # of few rows, hashes may choose none
        return replace(
            sample, train=sample.train[:-1], train_sid=sample.train_sid[:-1],
            heldout=sample.train[-1:], heldout_sid=sample.train_sid[-1:],
        )  # fmt: skip
    return sample


def num_sample_rows(data: StageData, rows: int) -> int:
    """Training rows that ``sample_embeddings`` would choose, found without reading any.

    Raises:
        InputError: the corpus has no training rows.
    """
    total = _train_rows(data).total()
    return min(rows, total - _num_heldout(total))


def num_heldout_rows(data: StageData) -> int:
    """Rows ``sample_embeddings`` would hold out, about, found without reading any."""
    return _num_heldout(_train_rows(data).total())


def _num_heldout(total: int) -> int:
    return min(max(1, int(total * _HELDOUT_SHARE)), _HELDOUT_ROWS)


def _train_rows(data: StageData) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, num_rows in data.manifest.partitions.items():
        split, lang = name.split("/")
        if split == "train":
            counts[lang] += num_rows
    if not counts.total():
        has = ", ".join(data.manifest.partitions) or "no rows at all"
        raise InputError(f"{data.files.root} has no rows in the split 'train' to fit on; it has {has}.")
    return counts


def _offer(sampler: RowSampler, data: StageData, path: str) -> None:
    _, lang, _ = parse_shard_path(path)
    with open_shard(data.files, path) as shard:
        for group in range(shard.num_row_groups):
            sid = shard.read_row_group(group, columns=["sid"])["sid"].to_numpy()
            if sampler.wanted(sid, lang).any():
                emb = schema.vectors(shard.read_row_group(group, columns=["emb"])["emb"])
                sampler.add(sid, lang, emb)
