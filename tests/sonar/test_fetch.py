"""Downloads against a real server on this machine: ranges, cut connections, wrong content, two processes at once."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcm_data.errors import CheckpointError, StorageError
from lcm_data.sonar.fetch import NotOnServerError, fetch, reachable

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` at any address but /missing, and misbehaves as told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag = '"v1"'
        self.cut_after: list[int] = []  # bytes to send before the connection breaks, one entry a request
        self.codes: list[int] = []  # answers to give instead, one a request
        self.ranges: list[str | None] = []
        self.served = 0
        self.linked_etag: str | None = None
        self.knows_ranges = True
        self.stall_after: int | None = None  # bytes after which nothing more comes

    def url(self, path: str = "/model.pt") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/model.pt")
            if server.linked_etag:
                self.send_header("X-Linked-Etag", f'"{server.linked_etag}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        code = 404 if self.path == "/missing" else server.codes.pop(0) if server.codes else 200
        if code != 200:
            self.send_error(code)
            return
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        start = 0
        if wanted and server.knows_ranges and self.headers.get("If-Range") == server.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        body = server.content[start:]
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.etag)
        self.end_headers()
        if server.stall_after is not None:
            self.wfile.write(body[: server.stall_after])
            server.served += server.stall_after
            time.sleep(30)
        if server.cut_after:
            body = body[: server.cut_after.pop(0)]
        self.wfile.write(body)
        server.served += len(body)
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_plain_download_is_noted_and_not_repeated(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model.pt"
    assert fetch(server.url(), target) == target
    assert target.read_bytes() == CONTENT
    note = json.loads((target.parent / "model.pt.json").read_text())
    assert note == {"url": server.url(), "bytes": len(CONTENT), "sha256": SHA256}
    fetch(server.url(), target)
    assert len(server.ranges) == 1
    assert sorted(p.name for p in target.parent.iterdir()) == ["model.pt", "model.pt.json", "model.pt.lock"]


def test_a_cut_connection_continues_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100_000, 50_000]
    target = fetch(server.url(), tmp_path / "model.pt", pause_s=0)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert server.served == len(CONTENT)


def test_a_later_process_continues_too(server: Server, tmp_path: Path) -> None:
    server.cut_after = [70_000, 0, 0]
    with pytest.raises(CheckpointError, match=r"cannot download .*put it at .*model\.pt"):
        fetch(server.url(), tmp_path / "model.pt", attempts=2, pause_s=0)
    assert not (tmp_path / "model.pt").exists()
    server.cut_after = []
    assert fetch(server.url(), tmp_path / "model.pt").read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=70000-"


def test_a_killed_process_is_continued(server: Server, tmp_path: Path) -> None:
    server.stall_after = 123_456
    code = "import sys, pathlib, lcm_data.sonar.fetch as f; f.fetch(sys.argv[1], pathlib.Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, server.url(), str(tmp_path / "model.pt")])
    deadline = time.monotonic() + 20
    while server.served < 123_456 and time.monotonic() < deadline:
        time.sleep(0.01)
    part = tmp_path / "model.pt.part"
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    have = part.stat().st_size
    assert not (tmp_path / "model.pt").exists()
    server.stall_after = None
    assert fetch(server.url(), tmp_path / "model.pt").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={have}-"]
    assert 0 < have <= 123_456


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    server.cut_after = [100_000]
    assert fetch(server.url(), tmp_path / "model.pt", pause_s=0).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]
    assert server.served == len(CONTENT) + 100_000


def test_two_versions_are_never_joined(server: Server, tmp_path: Path) -> None:
    server.cut_after = [70_000, 0]
    with pytest.raises(CheckpointError):
        fetch(server.url(), tmp_path / "model.pt", attempts=1, pause_s=0)
    server.cut_after = []
    server.etag, server.content = '"v2"', CONTENT[::-1]
    assert fetch(server.url(), tmp_path / "model.pt").read_bytes() == CONTENT[::-1]


def test_a_weak_tag_does_not_continue(server: Server, tmp_path: Path) -> None:
    server.etag = 'W/"v1"'
    server.cut_after = [70_000]
    assert fetch(server.url(), tmp_path / "model.pt", pause_s=0).read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_a_part_longer_than_the_file_starts_over(server: Server, tmp_path: Path) -> None:
    server.cut_after = [70_000]
    server.codes = [200, 416]
    assert fetch(server.url(), tmp_path / "model.pt", pause_s=0).read_bytes() == CONTENT


def test_a_part_that_is_complete_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    """As a process leaves it that is killed before it has checked and renamed."""
    (tmp_path / "model.pt.part").write_bytes(CONTENT)
    (tmp_path / "model.pt.part.json").write_text(json.dumps({"tag": server.etag}))
    assert fetch(server.url(), tmp_path / "model.pt").read_bytes() == CONTENT
    assert server.served == 0


def test_what_is_known_counts_more_than_what_the_server_says(server: Server, tmp_path: Path) -> None:
    server.linked_etag = "1" * 64
    assert fetch(server.url("/redirect"), tmp_path / "model.pt", sha256=SHA256).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_serves(server: Server, tmp_path: Path) -> None:
    target = fetch(server.url(), tmp_path / "model.pt")
    for file in tmp_path.iterdir():
        if file != target:
            file.unlink()
    for name in ("model.pt.lock", "model.pt.json"):
        (tmp_path / name).mkdir()  # so that neither can be opened, also by root
    assert fetch(server.url(), target) == target
    assert len(server.ranges) == 1


def test_wrong_content_is_discarded(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"has sha256 {SHA256}, expected {'0' * 64}"):
        fetch(server.url(), tmp_path / "model.pt", sha256="0" * 64)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock"] == []
    assert fetch(server.url(), tmp_path / "model.pt", sha256=SHA256).read_bytes() == CONTENT


def test_what_cannot_be_the_file_is_discarded(server: Server, tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        assert path.read_bytes() == CONTENT
        raise CheckpointError("it is no model")

    with pytest.raises(CheckpointError, match=r"what http.* sent was discarded: it is no model"):
        fetch(server.url(), tmp_path / "model.pt", check=refuse)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock"] == []


def test_force_and_progress(server: Server, tmp_path: Path) -> None:
    target = fetch(server.url(), tmp_path / "model.pt")
    server.content = CONTENT[::-1]
    seen: list[tuple[str, int, int]] = []
    fetch(server.url(), target, force=True, progress=lambda *state: seen.append(state))
    assert target.read_bytes() == CONTENT[::-1]
    assert seen[-1] == ("model.pt", len(CONTENT), len(CONTENT))
    fetch(server.url(), target)  # and its new size and hash are noted
    assert len(server.ranges) == 2


def test_the_hash_named_on_a_redirect_is_checked(server: Server, tmp_path: Path) -> None:
    server.linked_etag = "1" * 64
    with pytest.raises(CheckpointError, match=f"expected {'1' * 64}"):
        fetch(server.url("/redirect"), tmp_path / "model.pt")
    server.linked_etag = SHA256
    assert fetch(server.url("/redirect"), tmp_path / "model.pt").read_bytes() == CONTENT


@pytest.mark.parametrize("new", [CONTENT[:-1], b"x" + CONTENT[1:]])
def test_a_file_that_changed_later_is_an_error(server: Server, tmp_path: Path, new: bytes) -> None:
    target = fetch(server.url(), tmp_path / "model.pt")
    target.write_bytes(new)
    with pytest.raises(CheckpointError, match=r"is not what was downloaded.*Delete it"):
        fetch(server.url(), target)


def test_a_file_put_there_by_hand_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"by hand")
    assert fetch("http://127.0.0.1:9/none", tmp_path / "model.pt").read_bytes() == b"by hand"


def test_missing_and_forbidden_are_final(server: Server, tmp_path: Path) -> None:
    with pytest.raises(NotOnServerError, match="does not exist"):
        fetch(server.url("/missing"), tmp_path / "a")
    server.codes = [403]
    with pytest.raises(CheckpointError, match=r"refused .HTTP 403.*gated"):
        fetch(server.url(), tmp_path / "b")
    assert server.ranges == []


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.codes = [503, 429]
    assert fetch(server.url(), tmp_path / "model.pt", pause_s=0).read_bytes() == CONTENT


def test_a_server_that_hides_the_size_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not say how long"):
        fetch(server.url("/unsized"), tmp_path / "model.pt", attempts=1)


def test_no_connection_is_one_line(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"cannot download http://127.0.0.1:9/x .*put it at") as caught:
        fetch("http://127.0.0.1:9/x", tmp_path / "model.pt")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 1  # a server that was never reached is not waited for


def test_who_answers_is_reachable(server: Server) -> None:
    assert reachable(server.url("/missing"))
    assert not reachable("http://127.0.0.1:9/")


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot store"):
        fetch(server.url(), tmp_path / "file" / "model.pt")


def test_two_processes_download_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "model.pt"
    code = "import sys, pathlib, lcm_data.sonar.fetch as f; f.fetch(sys.argv[1], pathlib.Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, server.url(), str(target)]
    workers = [subprocess.Popen(command) for _ in range(3)]
    assert [worker.wait(30) for worker in workers] == [0, 0, 0]
    assert target.read_bytes() == CONTENT
    assert len(server.ranges) == 1
