"""The commands, killed at random moments: a rerun, with other workers, gives what an undisturbed run gives."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest
from jobs import ODD, SMALL_BOOK, STAGES, check_whole, children, cli, commits_of, kill, start, wait_for

VERBS = dict(zip(STAGES, ("segment", "encode", "quantize"), strict=True))
PAUSE = {"ODD_PAUSE": "0.05", "OMP_NUM_THREADS": "1"}


def command(verb: str, inputs: Path, corpus: Path) -> list[object]:
    if verb == "segment":
        splits = ("--validation", "0.2", "--test", "0.2")
        return [verb, inputs, corpus, "--unit-bytes", "1000", "--segmenter", "oddsegmenter:OddSegmenter", *splits]
    return [verb, corpus, *(ODD if verb == "encode" else SMALL_BOOK)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> dict[str, str]:
    corpus = tmp_path_factory.mktemp("undisturbed") / "corpus"
    for verb in VERBS.values():
        cli(*command(verb, inputs, corpus))
    assert all(len(commits_of(corpus, stage)) > 15 for stage in STAGES)
    return check_whole(corpus)


class Killer:
    """Kills drivers and workers of one stage at moments that ``rng`` chooses."""

    def __init__(self, stage: str, inputs: Path, corpus: Path, rng: random.Random) -> None:
        self.stage, self.corpus, self.rng = stage, corpus, rng
        self.command = command(VERBS[stage], inputs, corpus)
        self.killed = {"driver": 0, "worker": 0}

    @property
    def total(self) -> int:
        return sum(self.killed.values())

    def one_run(self) -> None:
        """Start a driver, kill some of its workers, then the driver itself."""
        finished = (self.corpus / self.stage / "_lcm" / "manifest.json").exists()
        again = ["--overwrite"] if finished else []  # killed in the middle of starting anew
        how = ["--executor", "local", "--workers", str(self.rng.choice([1, 2, 3]))]
        driver = start(*self.command, *how, *again, env=PAUSE)
        try:
            if self.rng.random() < 0.25:  # while it starts, plans, fits or resumes
                time.sleep(self.rng.uniform(0.1, 0.7))
            else:
                for _ in range(self.rng.randint(0, 2)):
                    self._kill_a_worker(driver)
                self._wait_for_a_commit(driver)
                time.sleep(self.rng.uniform(0, 0.1))
        finally:
            workers = children(driver.pid)
            self.killed["driver"] += driver.poll() is None and kill(driver.pid)
            out, err = driver.communicate()
        assert driver.returncode in (0, -9), out + err
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))  # workers end with their driver

    def _kill_a_worker(self, driver: subprocess.Popen[str]) -> None:
        self._wait_for_a_commit(driver)
        if workers := children(driver.pid):
            time.sleep(self.rng.uniform(0, 0.1))
            self.killed["worker"] += kill(self.rng.choice(workers))

    def _wait_for_a_commit(self, driver: subprocess.Popen[str]) -> None:
        seen = len(list((self.corpus / self.stage).glob("_lcm/commits/*.json")))

        def changed() -> bool:
            now = len(list((self.corpus / self.stage).glob("_lcm/commits/*.json")))
            return now != seen or driver.poll() is not None

        wait_for(changed)


@pytest.mark.parametrize(
    ("seed", "kills"), [(1, 2), pytest.param(2, 7, marks=pytest.mark.slow), pytest.param(3, 7, marks=pytest.mark.slow)]
)
def test_random_kills(tmp_path: Path, inputs: Path, undisturbed: dict[str, str], seed: int, kills: int) -> None:
    rng, corpus = random.Random(seed), tmp_path / "corpus"
    killed = {"driver": 0, "worker": 0}
    for stage in STAGES:
        killer = Killer(stage, inputs, corpus, rng)
        while killer.total < kills:
            killer.one_run()
        for kind, count in killer.killed.items():
            killed[kind] += count
        cli(*killer.command, "--executor", "local", "--workers", rng.choice([1, 2, 3]), env={"OMP_NUM_THREADS": "1"})
    assert sum(killed.values()) >= 3 * kills
    assert killed["driver"] >= 3
    assert check_whole(corpus) == undisturbed
    checked = cli("verify", corpus, "--json").json
    assert checked["problems"] == 0
    assert [stage["units_done"] for stage in checked["stages"]] == [stage["units"] for stage in checked["stages"]]
