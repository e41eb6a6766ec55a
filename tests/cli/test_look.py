"""status, verify and inspect on finished, unfinished and damaged corpora: they say what is there and change nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import ODD, check_whole, copy, digests, snapshot

from lcm_data.corpus import open_corpus


@pytest.fixture(autouse=True)
def nothing_changes(finished: Path) -> Iterator[None]:
    before = snapshot(finished)
    yield
    assert snapshot(finished) == before


def fields(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


# --- status ----------------------------------------------------------------------------------------------------------


def test_status(call: Callable[..., Any], finished: Path) -> None:
    stages = call("status", finished, "--json").json["stages"]
    assert [stage["stage"] for stage in stages] == ["segments", "embeddings", "codes"]
    for stage, earlier in zip(stages[1:], stages, strict=False):
        assert stage["rows_in"] == earlier["rows"]
    assert (stages[0]["rows_in"], stages[0]["rejected"], stages[0]["state"]) == (14, 2, "complete")
    assert all(stage["units_done"] == stage["units"] and stage["bytes"] > 0 for stage in stages)
    lines = call("status", finished).out.splitlines()
    assert fields(lines[1])[:5] == ["stage", "state", "units", "rows in", "sentences"]
    assert fields(lines[2])[:4] == ["segments", "complete", f"{stages[0]['units']}/{stages[0]['units']}", "14"]
    spaces = [re.sub(r":\w{12} ", ": ", line) for line in lines[5:]]
    said = "the space oddencoder:OddEncoder: (encoder one, 16 dimensions)"
    assert spaces == [f"embeddings: {said}", f"codes: {said}"]


def test_status_of_an_unfinished_corpus(call: Callable[..., Any], unfinished: Path) -> None:
    stage = call("status", unfinished, "--json").json["stages"][1]
    assert (stage["state"], stage["units_done"]) == ("stopped, rerun to resume", 3)
    assert stage["units"] > 3
    assert "stopped, rerun" in call("status", unfinished).out


def test_a_stage_being_written_is_running(call: Callable[..., Any], unfinished: Path) -> None:
    from lcm_data.store.files import open_files
    from lcm_data.store.lock import stage_lock

    with stage_lock(open_files(unfinished).child("embeddings")):
        stages = call("status", unfinished, "--json").json["stages"]
    assert [stage["state"] for stage in stages] == ["complete", "running", "complete"]


# --- verify ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["size", "footer", "hash"])
def test_verify(call: Callable[..., Any], finished: Path, level: str) -> None:
    result = call("verify", finished, "--level", level, "--json").json
    assert (result["problems"], result["level"]) == (0, level)
    lines = call("verify", finished, "--level", level).out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["segments", "embeddings", "codes"]
    assert all(line.endswith(" 0 problems") for line in lines)


def test_verify_says_what_is_unfinished(call: Callable[..., Any], unfinished: Path) -> None:
    lines = call("verify", unfinished).out.splitlines()
    assert re.search(r"^embeddings: 3 shards, .*, 0 problems, unfinished: 3 of \d+ units$", lines[1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[40] ^= 1  # in a data page: the file opens as before
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def stray(path: Path) -> None:
    path.with_name("part-999999.parquet").write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("damage", "level", "what"),
    [
        (flip, "hash", "content changed"),
        (cut, "size", r"it has \d+ bytes, recorded are \d+"),
        (Path.unlink, "size", "the file is missing"),
        (stray, "size", "no commit names this file"),
    ],
)
def test_a_tampered_shard(
    call: Callable[..., Any], finished: Path, tmp_path: Path, damage: Callable[[Path], Any], level: str, what: str
) -> None:
    corpus = copy(finished, tmp_path / "corpus")
    damage(next(iter(sorted((corpus / "embeddings" / "data").rglob("*.parquet")))))
    called = call("verify", corpus, "--level", level, code=5)
    assert re.search(what, called.out)
    assert "1 problem\n" in called.out
    assert "1 problem found" in called.err
    called = call("verify", corpus, "--level", level, "--json", code=5)
    assert [len(stage["problems"]) for stage in called.json["stages"]] == [0, 1, 0]
    # What the message advises repairs it.
    (problem,) = called.json["stages"][1]["problems"]
    (corpus / "embeddings" / problem["path"]).unlink(missing_ok=True)
    call("encode", corpus, *ODD, "--executor", "local")
    assert check_whole(corpus) == digests(finished)


# --- inspect ---------------------------------------------------------------------------------------------------------


def test_statistics(call: Callable[..., Any], finished: Path) -> None:
    result = call("inspect", finished, "--stage", "segments", "--json").json
    rows = {row["lang"]: row for row in result["rows"]}
    data = open_corpus(finished).segments
    for lang in ("eng_Latn", "fra_Latn"):
        table = data.table(langs=[lang])
        chars = table["n_chars"].to_pylist()
        assert rows[lang]["documents"] == 6
        assert rows[lang]["sentences"] == len(table)
        assert rows[lang]["chars mean"] == pytest.approx(sum(chars) / len(chars), abs=1e-3)
        assert rows[lang]["chars max"] == max(chars)
    assert result["rejects"] == {"null_text": 1, "wrong_type": 1}
    text = call("inspect", finished, "--stage", "segments").out
    assert fields(text.splitlines()[1])[:3] == ["lang", "documents", "sentences"]
    assert "digest: " in text


def test_statistics_of_the_last_stage_and_of_one_split(call: Callable[..., Any], finished: Path) -> None:
    result = call("inspect", finished, "--lang", "fra_Latn", "--split", "train", "--json").json
    assert "codes of" in result["title"]
    (row,) = result["rows"]
    data = open_corpus(finished).codes
    assert row["sentences"] == len(data.table(langs=["fra_Latn"], splits=["train"]))
    assert set(row) == {"lang", "documents", "sentences", "resid_norm mean", "resid_norm max"}


@pytest.mark.parametrize(
    ("stage", "measures"),
    [
        ("segments", {"text", "n_chars"}),
        ("embeddings", {"text", "n_tokens", "norm"}),
        ("codes", {"codes", "resid_norm"}),
    ],
)
def test_head(call: Callable[..., Any], finished: Path, stage: str, measures: set[str]) -> None:
    rows = call("inspect", finished, "--stage", stage, "--head", 3, "--json").json["rows"]
    assert len(rows) == 3
    data = getattr(open_corpus(finished), stage)
    assert list(rows[0]) == ["lang", "split", *data.schema.names]  # everything
    batch = next(data.batches(3))
    assert [row["sid"] for row in rows] == batch["sid"]
    if stage != "segments":
        name = "emb" if stage == "embeddings" else "codes"
        assert [row[name] for row in rows] == batch.vectors(name).tolist()
    text = call("inspect", finished, "--stage", stage, "--head", 3).out
    title, header = text.splitlines()[:2]
    assert title.strip().startswith(f"{stage} of ")
    assert set(header.split()) == {"lang", "doc_id", "sent_idx", *measures}
    assert all(len(line) <= 80 for line in text.splitlines())


def test_head_of_a_language(call: Callable[..., Any], finished: Path) -> None:
    rows = call("inspect", finished, "--head", 200, "--lang", "fra_Latn", "--split", "train", "--json").json["rows"]
    assert {(row["lang"], row["split"]) for row in rows} == {("fra_Latn", "train")}
    assert len(rows) == len(open_corpus(finished).codes.table(langs=["fra_Latn"], splits=["train"]))


def test_a_document(call: Callable[..., Any], finished: Path) -> None:
    rows = call("inspect", finished, "--doc", "bridge", "--stage", "segments", "--json").json["rows"]
    assert {row["lang"] for row in rows} == {"eng_Latn", "fra_Latn"}
    for lang in ("eng_Latn", "fra_Latn"):
        own = [row["sent_idx"] for row in rows if row["lang"] == lang]
        assert own == list(range(len(own)))
    assert {row["doc_id"] for row in rows} == {"bridge"}
    text = call("inspect", finished, "--doc", "bridge", "--lang", "eng_Latn", "--stage", "segments").out
    assert "The old stone bridge" in text
    assert "fra_Latn" not in text


def test_rejects(call: Callable[..., Any], finished: Path) -> None:
    result = call("inspect", finished, "--rejects", "--stage", "segments", "--json").json
    assert [(row["row"], row["reason"]) for row in result["rows"]] == [(0, "null_text"), (1, "wrong_type")]
    text = call("inspect", finished, "--rejects", "--stage", "segments").out
    assert text.startswith("2 rejects of segments")
    assert "nothing" in text
    assert "the text is null" in text
    text = call("inspect", finished, "--rejects", "--stage", "segments", "--head", 1).out
    assert text.startswith("the first 1 of 2 rejects of segments")
    assert call("inspect", finished, "--rejects", "--stage", "codes").out == f"0 rejects of codes in {finished}\n"


def test_rejects_of_all_stages(call: Callable[..., Any], finished: Path) -> None:
    result = call("inspect", finished, "--rejects", "--json").json
    assert [(row["stage"], row["reason"]) for row in result["rows"]] == [
        ("segments", "null_text"),
        ("segments", "wrong_type"),
    ]
    text = call("inspect", finished, "--rejects").out
    assert text.startswith("2 rejects of segments, embeddings, codes in ")
    assert fields(text.splitlines()[1])[0] == "stage"
    assert call("inspect", finished, "--rejects", "--head", 1).out.startswith("the first 1 of 2 rejects of ")


def test_a_document_is_shown_as_text(call: Callable[..., Any], finished: Path, tmp_path: Path) -> None:
    result = call("inspect", finished, "--doc", "bridge", "--json").json
    assert result["title"].startswith("document bridge in embeddings of ")
    corpus = copy(finished, tmp_path / "corpus")
    call("encode", corpus, *ODD, "--no-text", "--overwrite", "--executor", "local", "--quiet")
    assert call("inspect", corpus, "--doc", "bridge", "--json").json["title"].startswith("document bridge in segments ")


def test_inspect_shows_what_is_committed(call: Callable[..., Any], unfinished: Path) -> None:
    result = call("inspect", unfinished, "--stage", "embeddings", "--json").json
    commits = [json.loads(path.read_text()) for path in (unfinished / "embeddings/_lcm/commits").iterdir()]
    assert sum(row["sentences"] for row in result["rows"]) == sum(commit["rows_done"] for commit in commits) > 0


def test_numbers_of_a_column_line_up(call: Callable[..., Any], finished: Path) -> None:
    lines = call("inspect", finished).out.splitlines()[2:4]
    cells = [fields(line)[3:] for line in lines]
    assert len(cells[0]) == 2
    assert len({tuple(len(cell.partition(".")[2]) for cell in row) for row in cells}) == 1


def test_markup_in_texts_is_text(call: Callable[..., Any], tmp_path: Path) -> None:
    from jobs import write_jsonl

    from pipelines import segment

    row = {"id": "[red]", "lang": "eng_Latn", "text": "Some [bold]words[/bold] and [/] [1]."}
    path = write_jsonl(tmp_path / "in.jsonl", [row])
    corpus = str(tmp_path / "corpus")
    segment.run(segment.SegmentConfig(inputs=[str(path)], corpus=corpus, executor="local"))
    text = call("inspect", corpus, "--head", 1).out
    assert "Some [bold]words[/bold] and [/] [1]." in text
    assert "[red]" in text
    assert "[red]" in call("inspect", corpus, "--doc", "[red]").out.splitlines()[0]
