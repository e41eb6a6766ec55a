"""Kills at random moments: whatever dies, however often, a rerun gives what an undisturbed run gives."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers import check_whole, digest_of, drive, kill, make, num_commits, pids, start_driver, wait_for
from toystage import Toy

TOY = Toy(units=120, rows=90, pause=0.05, special={"3:7": "raise", "50:0": "raise", "50:89": "raise"})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("undisturbed") / "codes"
    report = make(root, Toy(**{**TOY.__dict__, "pause": 0.0}))
    assert report.manifest.rejects == {"bad_row": 3}
    return check_whole(root)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_random_kills_of_drivers_and_workers(toy_env: Path, undisturbed: str, seed: int) -> None:
    root, rng = toy_env / "codes", random.Random(seed)
    environment = {"TOY_PAUSE": "0.002"}
    killed = {"driver": 0, "worker": 0}
    while sum(killed.values()) < 22:
        driver = start_driver(root, TOY, environment, workers=rng.choice([1, 2, 3]))
        if rng.random() < 0.3:  # while the driver starts, plans or resumes
            time.sleep(rng.uniform(0.1, 0.6))
        else:
            for _ in range(rng.randint(1, 4)):
                running = wait_for(lambda: pids(toy_env / "pids"))
                if rng.random() < 0.5:
                    seen = num_commits(root)
                    wait_for(lambda seen=seen: num_commits(root) > seen)
                time.sleep(rng.uniform(0.0, 0.2))
                killed["worker"] += kill(rng.choice(running))
            time.sleep(rng.uniform(0.0, 0.5))
        assert driver.poll() is None, driver.communicate()
        driver.kill()
        driver.communicate()
        killed["driver"] += 1
    assert killed["driver"] >= 5
    assert killed["worker"] >= 5
    wait_for(lambda: not pids(toy_env / "pids"))  # workers end with their driver
    assert 0 < num_commits(root) < TOY.units

    code, out, err = drive(root, TOY, workers=2)
    assert (code, out.strip()) == (0, undisturbed), err
    assert check_whole(root) == undisturbed


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A local Ray whose actors note their process ids; gives that folder and the address."""
    ray: Any = pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOY_PIDS", str(folder))
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield folder, ray.get_runtime_context().gcs_address
        ray.shutdown()


def test_kills_on_ray(ray_cluster: tuple[Path, str], tmp_path: Path, undisturbed: str) -> None:
    folder, address = ray_cluster
    root = tmp_path / "codes"
    # A driver of another process is killed while its actors work ...
    driver = start_driver(root, TOY, executor="ray", ray_address=address, workers=2)
    wait_for(lambda: num_commits(root) > 2)
    driver.kill()
    driver.communicate()
    before = num_commits(root)
    assert before < TOY.units
    wait_for(lambda: not pids(folder))

    # ... and so are three actors of the run that resumes.
    def kill_actors() -> None:
        rng = random.Random(0)
        for _ in range(3):
            seen = num_commits(root)
            wait_for(lambda seen=seen: num_commits(root) > seen)
            killed.append(kill(rng.choice(pids(folder))))

    killed: list[bool] = []
    killer = threading.Thread(target=kill_actors)
    killer.start()
    report = make(root, TOY, executor="ray", workers=2)
    killer.join()
    assert killed == [True] * 3
    assert report.units_done == TOY.units - before or report.units_done == TOY.units - before - 1
    assert check_whole(root) == undisturbed


@pytest.mark.slow
def test_poison_row_on_ray(ray_cluster: tuple[Path, str], tmp_path: Path) -> None:
    toy = Toy(units=3, special={"1:5": "kill"})
    report = make(tmp_path / "ray", toy, executor="ray", workers=2)
    assert report.manifest.rejects == {"crashed_worker": 1}
    make(tmp_path / "local", toy)
    assert check_whole(tmp_path / "ray") == check_whole(tmp_path / "local")


@pytest.mark.slow
def test_a_node_that_dies_is_survived(tmp_path: Path, undisturbed: str) -> None:
    ray: Any = pytest.importorskip("ray")
    utils: Any = pytest.importorskip("ray.cluster_utils")
    ray.shutdown()
    cluster = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        root = tmp_path / "codes"
        driver = start_driver(root, TOY, executor="ray", ray_address=cluster.address, workers=2)
        wait_for(lambda: num_commits(root) > 10, 60)
        cluster.remove_node(node, allow_graceful=False)
        out, err = driver.communicate(timeout=200)
        assert driver.returncode == 0, err
        assert out.strip() == undisturbed
        assert "died" in err
        assert check_whole(root) == digest_of(root) == undisturbed
    finally:
        cluster.shutdown()
