"""Downloads one large file so that what lies under its final name is whole: resumed, checked, renamed last.

Standard library only. Which files a model needs is ``lcm_data.sonar.hub``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from lcm_data.errors import CheckpointError, StorageError
from lcm_data.sonar.fingerprint import file_sha256, remember_sha256

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with the file name, the bytes that are here and the bytes of the whole file."""

_BLOCK = 1 << 20
_TIMEOUT_S = 10.0
_REPORT_EVERY_S = 10.0


class NotOnServerError(CheckpointError):
    """The server answered that it has no such file."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    check: Callable[[Path], object] | None = None,
    progress: Progress | None = None,
    force: bool = False,
    attempts: int = 4,
    pause_s: float = 1.0,
) -> Path:
    """Make ``target`` exist and be the file of ``url``.

    A file that is already there is checked against the size and sha256 noted when it was downloaded. Otherwise the
    download goes to ``<target>.part``, continues there after interruptions (of this or an earlier process), is
    checked and renamed. Two processes do not download the same file at once: the second waits, saying so.

    Args:
        sha256: the known content, if it is known. Without it the first download is trusted, and noted.
        check: raises a CheckpointError for a file that cannot be what it should be; a download is then discarded.
        force: download even if ``target`` is there; it is replaced once the new one is whole.
        attempts: tries in a row that bring no new byte before giving up. A server that was never reached is given up
            at once, so that a machine without network does not wait.
        pause_s: wait before the second try, doubled each time.

    Raises:
        NotOnServerError: the server has no such file.
        CheckpointError: no connection, refused, cut off too often, or the content is not the expected one.
        StorageError: the disk is full or not writable.
    """
    try:
        if not force and target.is_file():  # no lock: a cache may be read-only
            _check(url, target, sha256)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if force or not target.is_file():
                named = _download(url, target, attempts, pause_s, progress)
                _accept(url, target, sha256 or named, check)
            _check(url, target, sha256)
    except OSError as error:  # HTTP errors are handled closer to the wire
        raise StorageError(f"cannot store {url} as {target}: {error.strerror or error}.") from error
    return target


def reachable(url: str, timeout_s: float = 5.0) -> bool:
    """Whether anything answers at this address, asked once; proxies of the environment are used."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "lcm-data"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException) as error:
        # Others may know certificates that we do not, so this is no reason to give up.
        return isinstance(getattr(error, "reason", error), ssl.SSLError)


def _download(url: str, target: Path, attempts: int, pause_s: float, progress: Progress | None) -> str | None:
    """Fill the ``.part`` of a file; returns the sha256 that the server named, if it did."""
    part = _part(target)
    tries = 0
    answered = False
    logger.info("downloading %s to %s", url, target)
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _continue(url, part, progress)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            _refuse_final(url, error)
            reason = getattr(error, "reason", None) or error
            gained = part.exists() and part.stat().st_size > before
            # No connection at all comes as a bare URLError; whatever breaks later does not.
            answered = answered or gained or type(error) is not urllib.error.URLError
            tries = 1 if gained else tries + 1
            if tries >= attempts or not answered:
                raise CheckpointError(
                    f"cannot download {url} ({reason}). Get the file on another machine and put it at {target}"
                ) from error
            logger.info("%s was cut off (%s), trying again", url, error)
            time.sleep(pause_s * 2 ** (tries - 1))


def _accept(url: str, target: Path, sha256: str | None, check: Callable[[Path], object] | None) -> None:
    """Give a complete download its name, or discard it if it is not what it should be."""
    part = _part(target)
    digest = file_sha256(part)
    try:
        if sha256 is not None and digest != sha256:
            raise CheckpointError(f"it has sha256 {digest}, expected {sha256}")
        if check is not None:
            check(part)
    except CheckpointError as error:
        part.unlink()
        _note_path(part).unlink(missing_ok=True)
        raise CheckpointError(f"what {url} sent was discarded: {error}") from error
    _note_path(target).unlink(missing_ok=True)  # that of a file which is replaced
    os.replace(part, target)
    remember_sha256(target, digest)
    _note_path(part).unlink(missing_ok=True)


def _continue(url: str, part: Path, progress: Progress | None) -> str | None:
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
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
            return redirects.sha256  # complete, and killed before it got its name
        if error.code == 416:  # longer than the file: start over, it is the rare case
            part.unlink(missing_ok=True)
            raise ConnectionError("the server refused to continue, starting over") from error
        raise
    with response:
        total = _total(response, have)
        resumed = response.status == 206
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        # A weak tag ("W/...") promises no equal bytes, so it cannot be used to continue.
        note = {"tag": None if tag is None or tag.startswith("W/") else tag, "url": url}
        _note_path(part).write_text(json.dumps(note))
        with part.open("ab" if resumed else "wb") as file:
            _copy(response, file, total, part.name.removesuffix(".part"), progress)
            file.flush()
            os.fsync(file.fileno())
    if part.stat().st_size != total:
        raise ConnectionError(f"got {part.stat().st_size} of {total} bytes")
    return redirects.sha256


def _copy(
    response: http.client.HTTPResponse, file: IO[bytes], total: int, name: str, progress: Progress | None
) -> None:
    reported = time.monotonic()
    while block := response.read1(_BLOCK):  # what is here: nothing that came is lost when the process is killed
        file.write(block)
        if progress is not None:
            progress(name, file.tell(), total)
        elif time.monotonic() - reported > _REPORT_EVERY_S:
            reported = time.monotonic()
            logger.info("%s: %.0f of %.0f MB", name, file.tell() / 1e6, total / 1e6)


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
        with contextlib.suppress(OSError):  # a read-only cache is fine
            _note_path(target).write_text(json.dumps({"url": url, "bytes": size, "sha256": digest}) + "\n")


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _note_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(_note_path(path).read_text())
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
