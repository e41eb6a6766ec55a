"""A cluster started as users start one, with ``ray start``, and joined by its address."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import cli

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a head node whose machine has a token, as every machine that has run Ray has."""
    pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    port = free_port()
    command = ["start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    head = subprocess.Popen(
        [str(Path(sys.executable).with_name("ray")), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    yield f"127.0.0.1:{port}"
    os.killpg(head.pid, signal.SIGTERM)
    head.wait(60)


def test_a_cluster_is_joined_by_its_address(cluster: str, inputs: Path, tmp_path: Path) -> None:
    alone, joined = tmp_path / "alone", tmp_path / "joined"
    cli("segment", inputs, alone, "--unit-bytes", "2000")
    done = cli("segment", inputs, joined, "--unit-bytes", "2000", "--workers", "2", "--ray-address", cluster, "--json")
    assert done.json["units_done"] > 2
    assert done.json["manifest"]["digest"] == cli("inspect", alone, "--json").json["facts"]["digest"]
