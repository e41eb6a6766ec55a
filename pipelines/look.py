"""``lcm-data status``, ``verify`` and ``inspect``: what is there, is it whole, what does it say. Nothing is changed."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lcm_data import schema
from lcm_data.corpus import Corpus, StageData, open_corpus
from lcm_data.errors import InputError, LcmDataError, UnknownNameError, VerificationError
from lcm_data.normalize import Normalizer
from lcm_data.quantize.codebook import MANIFEST, TENSORS, Codebook
from lcm_data.store.commits import Commit, digest, read_commits, read_rejects
from lcm_data.store.files import Files, LocalFiles, open_files
from lcm_data.store.lock import is_locked
from lcm_data.store.manifest import MANIFEST_PATH, build_manifest, load_manifest
from lcm_data.store.plan import load_plan
from lcm_data.store.verify import LEVELS, Problem, verify_stage
from pipelines.look_recordings import recordings_of
from pipelines.normalize import FILE as NORMALIZER
from pipelines.stage import is_outdated
from pipelines.statistics import SECONDS, Count, count_stage

_IN_TABLES = (
    *("lang", "source_lang", "doc_id", "sent_idx", "text", "n_chars", "n_tokens"),
    *("t_start", "t_end", "channel", "speech_ratio", "loudness_db"),
    *("score", "norm", "codes", "resid_norm"),
)
_OF_VECTORS = ("encoder", "encoder_revision", "space", "dim")
_REJECTS_SHOWN = 100


def corpus_status(root: str) -> list[dict[str, Any]]:
    """One record a stage: its state, counts, and the time left at the pace of the latest units."""
    corpus = open_corpus(root, allow_partial=True)
    records = []
    for name in corpus.stages:
        files = corpus.files.child(name)
        plan = load_plan(files)
        assert plan is not None
        commits = read_commits(files)
        manifest = build_manifest(plan, commits)
        complete = files.size(MANIFEST_PATH) is not None
        running = not complete and is_locked(files)
        state = "complete" if complete else "running" if running else "stopped, rerun to resume"
        records.append(
            {
                "stage": name,
                "state": "outdated, rerun with --overwrite" if is_outdated(corpus.files, name) else state,
                "units": len(plan.units),
                "units_done": len(commits),
                "rows_in": manifest.rows_in,
                "rows": manifest.rows,
                "rejected": sum(manifest.rejects.values()),
                "bytes": manifest.bytes,
                "left": _time_left(commits, plan.rows) if running else "-",
                **{fact: manifest.provenance.get(fact) for fact in _OF_VECTORS if name != "segments"},
            }
        )
    return records


def _time_left(commits: dict[int, Commit], total_rows: int) -> str:
    latest = sorted(commits.values(), key=lambda commit: commit.finished)[-20:]
    if len(latest) < 2 or latest[-1].finished == latest[0].finished:
        return "unknown yet"
    pace = sum(commit.rows_in for commit in latest[1:]) / (latest[-1].finished - latest[0].finished)
    left = total_rows - sum(commit.rows_in for commit in commits.values())
    return f"{left / pace:,.0f} s" if pace else "unknown yet"


def verify_corpus(root: str, level: str) -> dict[str, Any]:
    """Compare the shards of every stage with its commits."""
    checked = next((each for each in LEVELS if each == level), None)
    if checked is None:
        raise UnknownNameError("level", level, LEVELS)
    corpus = open_corpus(root, allow_partial=True)
    stages: list[dict[str, Any]] = []
    for name in corpus.stages:
        files = corpus.files.child(name)
        plan, commits = load_plan(files), read_commits(files)
        assert plan is not None
        found = [*verify_stage(files, commits, checked), *_manifest_problems(files, commits)]
        problems = [dataclasses.asdict(problem) for problem in found]
        shards = sum(len(commit.shards) for commit in commits.values())
        rows = sum(commit.rows_out for commit in commits.values())
        units = {"units": len(plan.units), "units_done": len(commits)}
        stages.append({"stage": name, **units, "shards": shards, "rows": rows, "problems": problems})
    beside = [dataclasses.asdict(problem) for problem in _problems_beside(corpus.files)] if level == "hash" else []
    total = sum(len(stage["problems"]) for stage in stages) + len(beside)
    return {"corpus": root, "level": level, "problems": total, "stages": stages, "beside": beside}


def _manifest_problems(files: Files, commits: dict[int, Commit]) -> Iterator[Problem]:
    if files.size(MANIFEST_PATH) is None:
        return
    try:
        if load_manifest(files).digest != digest(commits):
            yield Problem(MANIFEST_PATH, None, "it does not agree with the commit records; run the stage again")
    except VerificationError as error:
        yield Problem(MANIFEST_PATH, None, str(error))


def _problems_beside(corpus: Files) -> Iterator[Problem]:
    """What is wrong with the codebook and the normaliser beside the stages."""
    yield from _problem_of(corpus, "codebook/", (MANIFEST, TENSORS), lambda path: Codebook.load(path, verify=True))
    yield from _problem_of(corpus, "", (NORMALIZER,), lambda path: _check_normalizer(corpus, path / NORMALIZER))


def stale_normalizer(root: str) -> str:
    """What is wrong with the normaliser of a corpus, "" if nothing is."""
    files = open_files(root)
    found = _problem_of(files, "", (NORMALIZER,), lambda path: _check_normalizer(files, path / NORMALIZER))
    return next((problem.what for problem in found), "")


def _problem_of(
    corpus: Files, folder: str, names: tuple[str, ...], check: Callable[[Path], object]
) -> Iterator[Problem]:
    """What ``check`` raises on the local folder of these files, or a local copy of it; nothing if none exists."""
    if all(corpus.size(folder + name) is None for name in names):
        return
    with tempfile.TemporaryDirectory(prefix="lcm-data-") as copy:
        try:
            if not isinstance(corpus, LocalFiles):
                for name in names:
                    Path(copy, name).write_bytes(corpus.read(folder + name))
            check(Path(corpus.root, folder) if isinstance(corpus, LocalFiles) else Path(copy))
        except (LcmDataError, FileNotFoundError) as error:
            yield Problem(folder or NORMALIZER, None, str(error))


def _check_normalizer(corpus: Files, path: Path) -> None:
    info = Normalizer.load(path).info
    if corpus.size("embeddings/_lcm/plan.json") is None:
        return
    if not info.is_of(load_manifest(corpus.child("embeddings"), allow_partial=True).provenance):
        raise VerificationError(
            "it was fitted on vectors of other weights than the embeddings have now. Run 'lcm-data normalize "
            f"{corpus.root} --overwrite'; models trained with the old one need the old one."
        )


def _pick(root: str, stage: str | None) -> tuple[Corpus, StageData]:
    corpus = open_corpus(root, allow_partial=True)
    if stage is not None and stage not in schema.STAGES:
        raise UnknownNameError("stage", stage, schema.STAGES)
    name = stage or corpus.stages[-1]
    return corpus, StageData(corpus.files.child(name), allow_partial=True)


def statistics(
    root: str, stage: str | None, langs: Sequence[str] | None, splits: Sequence[str] | None
) -> dict[str, Any]:
    """Per language: documents, sentences, and means of what the stage has (characters, tokens, norms, ...).

    Where there are recordings, also ``recordings`` and ``durations``: see ``look_recordings.recordings_of``.
    """
    corpus, data = _pick(root, stage)
    counted = count_stage(data, langs, splits)
    rows = [_language_row(lang, counted.total(lang=lang)) for lang in counted.langs]
    facts = {"stages": ", ".join(corpus.stages), "digest": data.manifest.digest}
    facts |= {name: value for name, value in data.metadata.items() if value and name != "plan_hash"}
    title = f"{data.manifest.stage} of {root}: {len(data):,} sentences"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    spoken = recordings_of(corpus, data, langs, splits)
    for row, each in itertools.product(rows, spoken.get("recordings", ())):
        if row["lang"] == each["lang"]:
            row |= {"speech": each["segments"], "hours": each["speech hours"]}
            row |= {name: each[name] for name in ("seconds mean", "seconds max")}
    rejects = data.manifest.rejects
    return {"title": title, "columns": columns, "rows": rows, "facts": facts, "rejects": rejects, **spoken}


def _language_row(lang: str, count: Count) -> dict[str, Any]:
    row: dict[str, Any] = {"lang": lang, "documents": count.documents, "sentences": count.sentences}
    for name, measure in count.measures.items():
        if name != SECONDS:
            most = measure.most if measure.num else 0
            row[f"{name} mean"] = round(measure.mean, 4)
            row[f"{name} max"] = int(most) if measure.whole else round(most, 4)
    if count.truncated is not None:
        row["truncated"] = count.truncated
    return row


def head_rows(
    root: str, stage: str | None, num_rows: int, langs: Sequence[str] | None, splits: Sequence[str] | None
) -> dict[str, Any]:
    """The first rows with all their columns; ``columns`` are those that fit a terminal."""
    _, data = _pick(root, stage)
    rows = itertools.islice(_rows(data, langs, splits), num_rows)
    return {"title": f"{data.manifest.stage} of {root}", "columns": _IN_TABLES, "rows": list(rows)}


def document_rows(
    root: str, stage: str | None, doc_id: str, langs: Sequence[str] | None, splits: Sequence[str] | None
) -> dict[str, Any]:
    """All rows of a document, in every language it has, as ``head_rows`` gives them.

    Raises:
        InputError: there is no such document.
    """
    _, data = _pick(root, stage)
    rows: list[dict[str, Any]] = []
    for path in data.shards(langs, splits):
        rows += _document_in(data, path, doc_id)
    if not rows:
        raise InputError(
            f"no document {doc_id!r} in {data.files.root}. 'lcm-data inspect {root} --head 5' shows ids as they are; "
            "'--rejects' shows what was left out."
        )
    return {"title": f"document {doc_id} in {data.manifest.stage} of {root}", "columns": _IN_TABLES, "rows": rows}


def _document_in(data: StageData, path: str, doc_id: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    filters = [("doc_id", "==", doc_id)]
    source = data.files.open(path)
    table = pq.read_table(source, filters=filters, partitioning=None)
    split, lang = (part.split("=")[1] for part in path.split("/")[1:3])
    return [_plain(row, lang, split) for row in table.to_pylist()]


def _rows(data: StageData, langs: Sequence[str] | None, splits: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    for batch in data.batches(64, langs=langs, splits=splits):
        for row in batch.table.to_pylist():
            yield _plain(row, batch.lang, batch.split)


def _plain(row: dict[str, Any], lang: str, split: str) -> dict[str, Any]:
    """A row as plain Python values, language and split first."""
    plain: dict[str, Any] = {"lang": lang, "split": split}
    for name, value in row.items():
        plain[name] = np.asarray(value).tolist() if isinstance(value, list | np.floating) else value
    return plain


def reject_rows(root: str, stage: str | None, limit: int = 0) -> dict[str, Any]:
    """The rejected rows of a stage, the first ``limit`` (100 if it is 0) of them."""
    _, data = _pick(root, stage)
    units = [unit for unit, commit in sorted(read_commits(data.files).items()) if commit.rejects]
    found = itertools.chain.from_iterable(_rejects_of(data.files, unit) for unit in units)
    rows = list(itertools.islice(found, limit or _REJECTS_SHOWN))
    total = sum(data.manifest.rejects.values())
    few = f"the first {len(rows):,} of " if len(rows) < total else ""
    title = f"{few}{total:,} rejects of {data.manifest.stage} in {root}"
    return {"title": title, "columns": ("doc_id", "reason", "error", "text"), "rows": rows}


def _rejects_of(files: Files, unit: int) -> Iterator[dict[str, Any]]:
    for row in read_rejects(files, unit):
        yield {"unit": unit, **row}
