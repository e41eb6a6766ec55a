"""Files of one directory tree, local or behind any fsspec URL, with the three operations commits are made of.

``write`` replaces a small file atomically, ``create`` writes it only if nobody has, ``publish`` moves a finished
local file under its final name. Errors of the file system become ``StorageError`` with one line that says what to
do. What the files mean is the business of the other modules of ``lcm_data.store``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

from lcm_data.errors import LcmDataError, MissingExtraError, StorageError, UsageError

_ADVICE = {
    errno.ENOSPC: "the disk is full. Free some space",
    errno.EDQUOT: "the disk quota is used up. Free some space",
    errno.EROFS: "the file system is read-only. Make it writable",
    errno.EACCES: "permission denied. Check the owner and mode of the folder",
    errno.ENOLCK: "the file system has no file locks. Mount it with locking, or use another folder",
    errno.EPERM: "the operation is not permitted. Check the owner and mode of the folder",
}
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}
"""Answers of file systems without hard links (exFAT, some FUSE mounts): there, check and write are two steps."""
_NEEDS_FILE = {"read", "list", "delete"}
_STORAGE_PACKAGES = {
    *("adlfs", "aiobotocore", "aiohttp", "asyncio", "azure", "botocore", "fsspec", "gcsfs", "google", "httpx"),
    *("huggingface_hub", "requests", "s3fs", "urllib3"),
}


class Files(Protocol):
    """A directory tree; ``path`` arguments are relative, with forward slashes."""

    root: str

    def child(self, name: str) -> Files: ...
    def read(self, path: str) -> bytes:
        """Content of a file. Raises ``FileNotFoundError`` if there is none."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Create or replace a file atomically and durably."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write a file only if it does not exist; False (and nothing written) if it does."""
        ...

    def publish(self, local: Path, path: str) -> None:
        """Give the finished local file ``local`` its final name ``path``; readers see all of it or nothing."""
        ...

    def size(self, path: str) -> int | None:
        """Bytes of a file, None if it does not exist."""
        ...

    def list(self, prefix: str = "") -> dict[str, int]:
        """Every file below ``prefix`` with its size; empty if there is nothing."""
        ...

    def remove(self, path: str) -> None:
        """Delete a file if it exists."""
        ...

    def remove_tree(self, path: str = "") -> None:
        """Delete everything below ``path``."""
        ...

    def open(self, path: str) -> Any:
        """A source pyarrow can read: a path for local files (memory-mapped there), a seekable file otherwise."""
        ...

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A private local folder to build a file in before it is published; gone afterwards."""
        ...

    def sweep(self) -> None:
        """Delete the scratch folders and half-written files that killed processes left behind."""
        ...


def open_files(root: str | os.PathLike[str]) -> Files:
    """The tree at ``root``: a local path, ``file://``, or any URL fsspec knows (``s3://``, ``gs://``, ``memory://``)."""
    text = os.fspath(root)
    if "://" in text and not text.startswith("file://"):
        return RemoteFiles(text)
    return LocalFiles(text.removeprefix("file://"))


def absolute(name_or_path: str) -> str:
    """A local path that exists as an absolute one, for workers that run elsewhere; anything else as it is."""
    path = Path(name_or_path).expanduser()
    return str(path.absolute()) if "://" not in name_or_path and path.exists() else name_or_path


@contextlib.contextmanager
def storage_errors(action: str, where: str) -> Iterator[None]:
    """Turn errors of the file system into one line; a file that is not there to be read or deleted passes."""
    try:
        yield
    except LcmDataError:
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError) and action in _NEEDS_FILE:
            raise
        advice = _ADVICE.get(error.errno or 0, f"{error.strerror or error}. Check the storage")
        raise StorageError(f"cannot {action} {where}: {advice}, then run the same command again to resume.") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in _STORAGE_PACKAGES:
            raise
        raise StorageError(
            f"cannot {action} {where}: {error}. Check credentials and network, then run the same command again."
        ) from error


class LocalFiles:
    """A folder on a local or network disk."""

    def __init__(self, root: str) -> None:
        self.root = str(Path(root).expanduser().absolute())

    def __reduce__(self) -> tuple[Any, ...]:
        return (LocalFiles, (self.root,))

    def _path(self, path: str) -> Path:
        return Path(self.root, path)

    def child(self, name: str) -> Files:
        return LocalFiles(str(self._path(name)))

    def read(self, path: str) -> bytes:
        with storage_errors("read", str(self._path(path))):
            return self._path(path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        with storage_errors("write", str(self._path(path))), self._temporary(path, data) as temporary:
            os.replace(temporary, self._path(path))
            _sync_folder(self._path(path).parent)

    def create(self, path: str, data: bytes) -> bool:
        with storage_errors("write", str(self._path(path))), self._temporary(path, data) as temporary:
            try:
                os.link(temporary, self._path(path))
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if self._path(path).exists():
                    return False
                os.replace(temporary, self._path(path))
            _sync_folder(self._path(path).parent)
            return True

    @contextlib.contextmanager
    def _temporary(self, path: str, data: bytes) -> Iterator[Path]:
        target = self._path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def publish(self, local: Path, path: str) -> None:
        target = self._path(path)
        with storage_errors("write", str(target)):
            with open(local, "rb+") as file:
                os.fsync(file.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(local, target)
            _sync_folder(target.parent)

    def size(self, path: str) -> int | None:
        try:
            return self._path(path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list(self, prefix: str = "") -> dict[str, int]:
        with storage_errors("list", str(self._path(prefix))):
            found = {path.relative_to(self.root).as_posix(): size for path, size in self._walk(prefix)}
        return {path: size for path, size in found.items() if not _is_temporary(path.rpartition("/")[2])}

    def _walk(self, prefix: str) -> Iterator[tuple[Path, int]]:
        # A folder that cannot be listed must not look empty: its units would be taken for undone.
        for folder, _, names in os.walk(self._path(prefix), onerror=_unless_missing):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    yield Path(folder, name), Path(folder, name).stat().st_size

    def remove(self, path: str) -> None:
        with storage_errors("delete", str(self._path(path))):
            self._path(path).unlink(missing_ok=True)

    def remove_tree(self, path: str = "") -> None:
        with storage_errors("delete", str(self._path(path))), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._path(path))

    def open(self, path: str) -> str:
        return str(self._path(path))

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        # On the same file system as the target, so that publishing is a rename.
        folder = self._path("_lcm/tmp") / uuid.uuid4().hex
        with storage_errors("write", str(folder)):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        self.remove_tree("_lcm/tmp")
        with storage_errors("list", self.root):
            for path, _ in self._walk(""):
                if _is_temporary(path.name):
                    path.unlink(missing_ok=True)


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RemoteFiles:
    """A prefix of an object store (or any other fsspec file system); every write is one whole object."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._fs: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (RemoteFiles, (self.root,))

    @property
    def fs(self) -> Any:
        if self._fs is None:
            import fsspec

            protocol = self.root.partition("://")[0]
            try:
                # Listings must show what other processes wrote a moment ago. The connection itself is shared.
                self._fs = fsspec.filesystem(protocol, use_listings_cache=False)
            except ImportError as error:
                extra = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "hf": "hf"}.get(protocol, "s3")
                raise MissingExtraError(f"{protocol}:// URLs", str(error), extra) from error
            except ValueError as error:
                raise UsageError(f"cannot open {self.root!r}: {error}. Use a local path or an fsspec URL.") from error
        return self._fs

    def _url(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def child(self, name: str) -> Files:
        return RemoteFiles(self._url(name))

    def read(self, path: str) -> bytes:
        with storage_errors("read", self._url(path)):
            return cast(bytes, self.fs.cat_file(self._url(path)))

    def write(self, path: str, data: bytes) -> None:
        with storage_errors("write", self._url(path)):
            self.fs.pipe_file(self._url(path), data)

    def create(self, path: str, data: bytes) -> bool:
        # S3 (If-None-Match) and GCS (ifGenerationMatch=0) decide this on the server. Some S3-compatible servers
        # ignore the condition; asking first leaves them a race of milliseconds, which the callers settle.
        if self.size(path) is not None:
            return False
        with storage_errors("write", self._url(path)):
            try:
                self.fs.pipe_file(self._url(path), data, mode="create")
            except FileExistsError:
                return False
            return True

    def publish(self, local: Path, path: str) -> None:
        # One PUT (or one completed multipart upload) of a finished file: streaming through pyarrow would complete
        # a partial object when the writer raises.
        with storage_errors("write", self._url(path)):
            self.fs.put_file(str(local), self._url(path))

    def size(self, path: str) -> int | None:
        with storage_errors("read", self._url(path)):
            try:
                return int(self.fs.info(self._url(path))["size"])
            except FileNotFoundError:
                return None

    def list(self, prefix: str = "") -> dict[str, int]:
        with storage_errors("list", self._url(prefix)):
            try:
                found = self.fs.find(self._url(prefix), detail=True)
            except FileNotFoundError:
                return {}
        base = self.fs._strip_protocol(self.root).rstrip("/") + "/"
        return {name.removeprefix(base): int(info["size"]) for name, info in found.items()}

    def remove(self, path: str) -> None:
        with storage_errors("delete", self._url(path)), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self._url(path))

    def remove_tree(self, path: str = "") -> None:
        with storage_errors("delete", self._url(path)), contextlib.suppress(FileNotFoundError):
            self.fs.rm(self._url(path), recursive=True)

    def open(self, path: str) -> Any:
        with storage_errors("read", self._url(path)):
            return self.fs.open(self._url(path), "rb")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        with storage_errors("write", tempfile.gettempdir()):
            folder = tempfile.TemporaryDirectory(prefix="lcm-data-")
        with folder:
            yield Path(folder.name)

    def sweep(self) -> None:
        self.remove_tree("_lcm/tmp")
