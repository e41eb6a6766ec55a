"""Downloads one large file so that what lies under its final name is whole: resumed, checked, renamed last.

Standard library only. Which files a model needs is ``lcm_data.sonar.hub``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lcm_data.errors import CheckpointError, StorageError
from lcm_data.sonar.fingerprint import file_sha256

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20
_TIMEOUT_S = 30.0
_REPORT_EVERY_S = 10.0


class NotOnServerError(CheckpointError):
    """The server answered that it has no such file."""


def fetch(url: str, target: Path, *, sha256: str | None = None, attempts: int = 4, pause_s: float = 1.0) -> Path:
    """Make ``target`` exist and be the file of ``url``.

    A file that is already there is checked against the size and sha256 noted when it was downloaded. Otherwise the
    download goes to ``<target>.part``, continues there after interruptions (of this or an earlier process), is
    checked and renamed. Two processes do not download the same file at once: the second waits, saying so.

    Args:
        sha256: the known content, if it is known. Without it the first download is trusted, and noted.
        attempts: tries in a row that bring no new byte before giving up.
        pause_s: wait before the second try, doubled each time.

    Raises:
        NotOnServerError: the server has no such file.
        CheckpointError: no connection, refused, cut off too often, or the content is not the expected one.
        StorageError: the disk is full or not writable.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if not target.is_file():
                sha256 = _download(url, target, sha256, attempts, pause_s) or sha256
            _check(url, target, sha256)
    except OSError as error:  # HTTP errors are handled closer to the wire
        raise StorageError(f"cannot store {url} as {target}: {error.strerror or error}.") from error
    return target


def _download(url: str, target: Path, sha256: str | None, attempts: int, pause_s: float) -> str | None:
    """Fill ``target``; returns the sha256 that the server named, if it did."""
    part = target.with_name(target.name + ".part")
    tries = 0
    logger.info("downloading %s to %s", url, target)
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            named = _continue(url, part)
            break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            _refuse_final(url, error)
            gained = part.exists() and part.stat().st_size > before
            tries = 1 if gained else tries + 1
            if tries >= attempts:
                reason = getattr(error, "reason", None) or error
                raise CheckpointError(
                    f"cannot download {url} ({reason}). Get the file on another machine and put it at {target}"
                ) from error
            logger.info("%s was cut off (%s), trying again", url, error)
            time.sleep(pause_s * 2 ** (tries - 1))
    expected = sha256 or named
    if expected is not None and file_sha256(part) != expected:
        got = file_sha256(part)
        part.unlink()
        part.with_name(part.name + ".json").unlink(missing_ok=True)
        raise CheckpointError(f"{url} has sha256 {got}, expected {expected}; the download was discarded. Try again.")
    os.replace(part, target)
    part.with_name(part.name + ".json").unlink(missing_ok=True)
    return named


def _continue(url: str, part: Path) -> str | None:
    """One request for what ``part`` lacks, written as it comes. Returns the sha256 the server named, if any.

    Raises:
        ConnectionError: the body ended early.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "lcm-data", "Accept-Encoding": "identity"})
    tag = _note(part).get("tag")
    if have and tag:
        # If-Range: the server sends the whole file when it has changed since, so two versions are never joined.
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag)
    redirects = _Redirects()
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is longer than the file, or complete: start over, it is the rare case
            part.unlink(missing_ok=True)
            raise ConnectionError("the server refused to continue, starting over") from error
        raise
    with response:
        total = _total(response, have)
        resumed = response.status == 206
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        # A weak tag ("W/...") promises no equal bytes, so it cannot be used to continue.
        note = {"tag": None if tag is None or tag.startswith("W/") else tag, "url": url}
        part.with_name(part.name + ".json").write_text(json.dumps(note))
        with part.open("ab" if resumed else "wb") as file:
            _copy(response, file, total, url)
            file.flush()
            os.fsync(file.fileno())
    if part.stat().st_size != total:
        raise ConnectionError(f"got {part.stat().st_size} of {total} bytes")
    return redirects.sha256


def _copy(response: http.client.HTTPResponse, file: IO[bytes], total: int, url: str) -> None:
    reported = time.monotonic()
    while block := response.read(_BLOCK):
        file.write(block)
        if time.monotonic() - reported > _REPORT_EVERY_S:
            reported = time.monotonic()
            logger.info("%s: %.0f of %.0f MB", url, file.tell() / 1e6, total / 1e6)


def _total(response: http.client.HTTPResponse, have: int) -> int:
    """Size of the whole file, from the headers."""
    if response.status == 206:
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if not span.startswith(f"{have}-") or not total.isdigit():
            raise http.client.HTTPException(f"unexpected Content-Range {response.headers.get('Content-Range')!r}")
        return int(total)
    length = response.headers.get("Content-Length")
    if length is None:
        raise http.client.HTTPException("the server does not say how long the file is")
    return int(length)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps the content hash that the Hugging Face Hub names on the way."""

    sha256: str | None = None

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        named = str(headers.get("X-Linked-Etag", "")).strip('"').lower()
        if len(named) == 64 and set(named) <= set("0123456789abcdef"):
            self.sha256 = named
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse_final(url: str, error: Exception) -> None:
    """Raise for answers that another try cannot change."""
    code = getattr(error, "code", None)
    if code in (404, 410):
        raise NotOnServerError(f"{url} does not exist (HTTP {code}). Check the model's name.") from error
    if code is not None and 400 <= code < 500 and code not in (408, 425, 429):
        raise CheckpointError(f"{url} was refused (HTTP {code}). Is the model private or gated?") from error


def _check(url: str, target: Path, sha256: str | None) -> None:
    """Compare the file with what is known about it, or note it on first sight (also one put there by hand)."""
    noted = _note(target)
    size, digest = target.stat().st_size, file_sha256(target)
    expected = sha256 or noted.get("sha256")
    if (expected is not None and digest != expected) or noted.get("bytes", size) != size:
        raise CheckpointError(
            f"{target} is not what was downloaded: {size} bytes, sha256 {digest}, expected "
            f"{noted.get('bytes', size)} bytes, sha256 {expected}. Delete it to download it again."
        )
    if not noted:
        note = target.with_name(target.name + ".json")
        with contextlib.suppress(OSError):  # a read-only cache is fine
            note.write_text(json.dumps({"url": url, "bytes": size, "sha256": digest}) + "\n")


def _note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.with_name(path.name + ".json").read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Hold ``<target>.lock`` exclusively; the system frees it when the process dies."""
    try:
        import fcntl
    except ImportError:  # Windows: two downloads at once waste bandwidth, and the checks still hold
        yield
        return
    with target.with_name(target.name + ".lock").open("a") as file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    logger.info("another process is downloading %s, waiting for it", target.name)
                waiting = True
                time.sleep(0.2)
        yield
