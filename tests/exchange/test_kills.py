"""The verbs import and export, killed at random moments: a rerun gives what an undisturbed run gives."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from exchanged import write_flat
from jobs import check_whole, children, cli, kill, start, wait_for

STAGES = ("segments", "embeddings")
QUIET = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flat(tmp_path_factory.mktemp("many"), num=240)


def importing(source: Path, corpus: Path) -> list[object]:
    return ["import", source, corpus, "--space", "signs-1", "--unit-rows", "11"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, many: Path) -> Path:
    corpus = tmp_path_factory.mktemp("undisturbed") / "corpus"
    cli(*importing(many, corpus))
    assert len(list(corpus.glob("segments/_lcm/commits/*.json"))) > 15
    return corpus


def num_commits(corpus: Path) -> int:
    return len(list(corpus.glob("*/_lcm/commits/*.json")))


@pytest.mark.parametrize(("seed", "kills"), [(1, 3), pytest.param(2, 14, marks=pytest.mark.slow)])
def test_import_killed_at_random(tmp_path: Path, many: Path, undisturbed: Path, seed: int, kills: int) -> None:
    rng, corpus = random.Random(seed), tmp_path / "corpus"
    command, killed, finished = importing(many, corpus), 0, 0
    while killed < kills and finished < 3:
        how = ["--executor", "local", "--workers", str(rng.choice([1, 2]))]
        if (corpus / "embeddings/_lcm/manifest.json").exists():  # killed while it starts anew
            how, finished = [*how, "--overwrite"], finished + 1
        driver = start(*command, *how, env=QUIET)
        if rng.random() < 0.25:
            time.sleep(rng.uniform(0.2, 1.0))
        else:
            seen = num_commits(corpus)
            wait_for(lambda seen=seen, driver=driver: num_commits(corpus) > seen or driver.poll() is not None)
            time.sleep(rng.uniform(0.0, 0.6))
            if (workers := children(driver.pid)) and rng.random() < 0.4:
                killed += kill(rng.choice(workers))
                time.sleep(rng.uniform(0.0, 0.3))
        workers = children(driver.pid)
        killed += driver.poll() is None and kill(driver.pid)
        out, err = driver.communicate()
        assert driver.returncode in (0, -9), out + err
        wait_for(lambda workers=workers: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    cli(*command, "--executor", "local", "--workers", "2", env=QUIET)
    assert killed >= 3
    assert check_whole(corpus, STAGES) == check_whole(undisturbed, STAGES)
    assert cli("verify", corpus, "--json").json["problems"] == 0


@pytest.mark.parametrize(
    ("layout", "kills"),
    [("hf", 2), *(pytest.param(name, 8, marks=pytest.mark.slow) for name in ("meta", "npy", "lance"))],
)
def test_export_killed_at_random(tmp_path: Path, undisturbed: Path, layout: str, kills: int) -> None:
    if layout == "lance":
        pytest.importorskip("lance", reason="needs the extra 'lance'")
    rng, out = random.Random(kills), tmp_path / "out"
    command: list[object] = ["export", undisturbed, out, "--layout", layout]
    unfinished = tmp_path / "out.unfinished"
    for _ in range(kills):
        driver = start(*command, env=QUIET)
        wait_for(lambda driver=driver: unfinished.exists() or out.exists() or driver.poll() is not None)
        time.sleep(rng.uniform(0.0, 0.5))
        was_killed = driver.poll() is None and kill(driver.pid)
        _, err = driver.communicate()
        assert driver.returncode in (0, -9), err
        if out.exists():  # it was quicker than the kill: all is there
            assert (out / "export.json").exists()
            break
        assert was_killed
    cli(*command, env=QUIET)
    cli("export", undisturbed, tmp_path / "whole", "--layout", layout, "--name", "out", env=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    if layout == "lance":
        import lance

        tables = [lance.dataset(str(folder / "embeddings.lance")).to_table() for folder in (out, tmp_path / "whole")]
        assert tables[0].equals(tables[1])
        return
    own, whole = ({str(p.relative_to(f)): p.read_bytes() for p in f.rglob("*") if p.suffix in (".parquet", ".npy")}
                  for f in (out, tmp_path / "whole"))  # fmt: skip
    assert own == whole
    assert len(own) > 5
