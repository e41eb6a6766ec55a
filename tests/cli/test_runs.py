"""Running the making verbs: what goes to which stream, dry runs, signals, and a second driver."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jobs import (
    COMMAND,
    ODD,
    SMALL_BOOK,
    check_whole,
    cli,
    commits_of,
    copy,
    digests,
    error_line,
    snapshot,
    start,
    wait_for,
)

PAUSE = {"ODD_PAUSE": "0.3"}
SEGMENT = ("--validation", 0.1, "--test", 0.2, "--unit-bytes", 1200)


def test_json_is_all_there_is_on_stdout(inputs: Path, finished: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    for verb, args in {
        "segment": (inputs, corpus, *SEGMENT),
        "encode": (corpus, *ODD),
        "quantize": (corpus, *SMALL_BOOK, "--iterations", 2),
        "normalize": (corpus,),
    }.items():
        ran = cli(verb, *args, "--json")
        assert "units" not in ran.err or verb == "quantize"  # no progress; the fit may warn of a small sample
        report = ran.json
        assert ran.out.endswith("}\n")
        if verb != "normalize":
            assert report["verb"] == verb
            assert report["units"] == report["units_done"] > 1
            assert report["manifest"]["complete"]
            assert report["manifest"]["rows_in"] == report["manifest"]["rows_done"] + sum(
                report["manifest"]["rejects"].values()
            )
    assert check_whole(corpus) == digests(finished)


def test_a_report_for_people(inputs: Path, tmp_path: Path) -> None:
    ran = cli("segment", inputs, tmp_path / "corpus", *SEGMENT, env={"COLUMNS": "80"})
    assert "segment: 0/" in ran.err  # progress, one line as stderr is no terminal
    assert ran.out.startswith("segment: ")
    lines = dict(line.strip().split("  ", 1) for line in ran.out.splitlines()[1:] if not line.startswith(" "))
    assert lines["documents in"].strip() == "14"
    assert lines["rejected"].strip() == "2 (null_text 1, wrong_type 1)"
    assert "skipped files" not in lines
    assert "nothing left to do" in cli("segment", inputs, tmp_path / "corpus", *SEGMENT).out
    ran = cli("encode", tmp_path / "corpus", *ODD, "--quiet")
    assert ran.err == ""
    assert "sentences out" in ran.out


def test_the_errors_of_a_codebook_are_told_apart(finished: Path) -> None:
    text = cli("quantize", finished, *SMALL_BOOK, "--iterations", 2, env={"COLUMNS": "80"}).out
    assert re.search(r"^unexplained length² +\d+\.\d% *$", text, flags=re.M)
    assert re.search(r"^held-out variance left +\d+\.\d%, cosine \d", text, flags=re.M)
    assert "nothing left to do" in text


def test_files_of_other_formats_are_named(inputs: Path, tmp_path: Path) -> None:
    folder = copy(inputs, tmp_path / "in")
    (folder / "README.pdf").write_bytes(b"%PDF")
    assert "README.pdf" in cli("segment", folder, tmp_path / "corpus").out


def test_dry_runs_create_nothing(inputs: Path, finished: Path, tmp_path: Path) -> None:
    plan = cli("segment", inputs, tmp_path / "corpus", *SEGMENT, "--dry-run", "--json").json
    assert (plan["rows_open"], plan["units_open"]) == (14, len(commits_of(finished, "segments")))
    assert plan["bytes_out"] > 0
    assert plan["seconds"] > 0
    assert list(tmp_path.iterdir()) == []

    corpus = copy(finished, tmp_path / "corpus")
    for stage in ("embeddings", "codes", "codebook"):
        subprocess.run(["rm", "-r", str(corpus / stage)], check=True)
    before = snapshot(tmp_path)
    text = cli("encode", corpus, *ODD, "--dry-run").out
    assert "open of" in text
    assert "about" in text
    assert snapshot(tmp_path) == before
    cli("encode", corpus, *ODD)
    before = snapshot(tmp_path)
    assert "once there is a codebook" in cli("quantize", corpus, *SMALL_BOOK, "--dry-run").out
    plan = cli("quantize", corpus, "--codebook", finished / "codebook", "--dry-run", "--json").json
    assert plan["bytes_out"] > 0
    assert snapshot(tmp_path) == before


def test_a_dry_run_of_what_is_finished_or_overwritten(finished: Path) -> None:
    before = snapshot(finished)
    done = cli("encode", finished, *ODD, "--dry-run", "--json").json
    assert (done["units_open"], done["seconds"]) == (0, 0)
    assert done["units"] > 1
    again = cli("encode", finished, *ODD[:2], "--model", "two", "--overwrite", "--dry-run", "--json").json
    assert again["units_open"] == done["units"]
    assert snapshot(finished) == before


def started(corpus: Path, *args: object, **environment: str) -> subprocess.Popen[str]:
    """A slow ``encode`` that has committed something."""
    shutil.rmtree(corpus / "embeddings")
    driver = start("encode", corpus, *ODD, *args, env={**PAUSE, **environment})
    commits = corpus / "embeddings/_lcm/commits"
    wait_for(lambda: driver.poll() is not None or 0 < len(list(commits.glob("*.json"))) < units(corpus))
    assert driver.poll() is None, driver.communicate()
    return driver


def units(corpus: Path) -> int:
    return len(json.loads((corpus / "segments/_lcm/manifest.json").read_text())["shards"])


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_signals(finished: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    corpus = copy(finished, tmp_path / "corpus")
    driver = started(corpus)
    driver.send_signal(number)
    out, err = driver.communicate(timeout=60)
    assert (driver.returncode, out) == (code, "")
    done = len(commits_of(corpus, "embeddings"))
    assert 0 < done < units(corpus)
    assert f"lcm-data: stopped by {number.name} with {done} of {units(corpus)} units committed." in err
    assert "Traceback" not in err
    assert cli("encode", corpus, *ODD, "--json").json["units_done"] == units(corpus) - done
    assert check_whole(corpus) == digests(finished)


def test_two_drivers(finished: Path, tmp_path: Path) -> None:
    corpus = copy(finished, tmp_path / "corpus")
    driver = started(corpus, ODD_PAUSE="1.5")  # two more commands start and end meanwhile
    for args in ((), ("--overwrite",)):
        message = error_line("encode", corpus, *ODD, *args, code=1)
        assert f"is being written by process {driver.pid}" in message
    stages: list[Any] = cli("status", corpus, "--json").json["stages"]
    assert stages[1]["state"] == "running"
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 0, out + err
    assert check_whole(corpus) == digests(finished)


def test_a_reader_that_goes_away(finished: Path) -> None:
    command = " ".join(f"'{word}'" for word in [*COMMAND, "inspect", str(finished), "--head", "500", "--json"])
    ran = subprocess.run(
        ["bash", "-c", f"{command} | head -c 100; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=False
    )
    assert len(ran.stdout) == 100
    assert ran.stderr == ""
    assert ran.returncode in (0, 1)  # Click ends quietly with 1


def test_failed_units_end_with_3(finished: Path, tmp_path: Path) -> None:
    """A shard of the stage before cannot be read: the message names it, and a rerun finishes once it is restored."""
    corpus = copy(finished, tmp_path / "corpus")
    shard = sorted((corpus / "segments/data").rglob("*.parquet"))[0]
    content = bytearray(shard.read_bytes())
    content[200:260] = bytes(60)
    shard.write_bytes(content)
    ran = cli("encode", corpus, *ODD, "--overwrite", code=3)
    assert shard.name in ran.err.splitlines()[-1] + ran.err.splitlines()[-2]
    assert 0 < len(commits_of(corpus, "embeddings")) < units(corpus)
    shard.write_bytes((finished / shard.relative_to(corpus)).read_bytes())
    cli("encode", corpus, *ODD)
    assert check_whole(corpus) == digests(finished)
