"""Fixtures for all tests: environment of worker processes, and a real S3 server on a free loopback port."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

SUPPORT = Path(__file__).with_name("support")

# A busy machine is not a failure: time is limited per test, not per example.
settings.register_profile("lcm", deadline=None)
settings.load_profile("lcm")


@pytest.fixture(autouse=True, scope="session")
def worker_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Worker processes find the helpers of tests/support, and keep to one thread each; caches are not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH", "")])))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture
def toy_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``pids`` and ``flags`` for the toy workers of this test (see tests/support/toystage.py)."""
    for name in ("pids", "flags"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"TOY_{name.upper()}", str(tmp_path / name))
    return tmp_path


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Endpoint of a moto server; child processes reach it through the environment."""
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    pytest.importorskip("s3fs", reason="needs s3fs")
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("FSSPEC_S3_ENDPOINT_URL", f"http://{host}:{port}")
        from fsspec.config import conf, set_conf_env

        set_conf_env(conf)  # fsspec reads the environment when it is imported, which may have been before
        yield f"http://{host}:{port}"
        conf.pop("s3", None)
    server.stop()


@pytest.fixture
def bucket(s3_server: str) -> str:
    """URL of an empty bucket."""
    import fsspec

    name = f"test-{uuid.uuid4().hex}"
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own, where mounting is allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
