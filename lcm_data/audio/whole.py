"""Is a recording whole? What its header promises against what was decoded, and marks of files that were cut off.

FFmpeg decodes what there is of a truncated file without a word; this module says so.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

from lcm_data.audio.model import AudioError
from lcm_data.documents.streams import file_system, storage_errors

_SLACK_SECONDS, _SLACK_SHARE = 1.0, 0.01
_HEAD_BYTES, _TAIL_BYTES = 64 << 10, 128 << 10

_DECLARE_LENGTH = {"flac", "mov", "matroska", "aiff", "caf", "w64", "mp3", "ogg", "au", "asf"}
"""Containers whose header (or index) tells the length; for others FFmpeg guesses it from the bit rate."""

_OPEN_ENDED = 0xFFFF_0000
"""A WAV whose writer could not go back to fill in the size has this or more, or nothing."""


def check_whole(
    uri: str,
    format_name: str,
    declared_seconds: float | None,
    seconds: float,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a truncated recording.

    Args:
        format_name: FFmpeg's name of the container.
        declared_seconds: the length that the file claims, None if it does not.
        seconds: what was decoded.

    Raises:
        AudioError: ``truncated_audio``.
        StorageError: reading failed.
    """
    names = set(format_name.split(","))
    head, tail, size = _edges(uri, storage_options) if names & {"wav", "mp3", "ogg"} else (b"", b"", 0)
    if "wav" in names:
        _check_wav(head, size)
    if "ogg" in names:
        _check_ogg(tail)
    has_length = bool(names & _DECLARE_LENGTH) and ("mp3" not in names or _has_length_tag(head))
    if has_length and declared_seconds is not None:
        slack = max(_SLACK_SECONDS, _SLACK_SHARE * declared_seconds)
        if seconds + slack < declared_seconds:
            raise _truncated(f"{seconds:,.1f} s could be decoded of the {declared_seconds:,.1f} s its header names")


def _truncated(error: str) -> AudioError:
    return AudioError("truncated_audio", f"{error}. Copy it again, or write what is left anew: ffmpeg -i IN OUT")


def _edges(uri: str, storage_options: Mapping[str, Any] | None) -> tuple[bytes, bytes, int]:
    """The first and last bytes of a file, and its size."""
    fs, path = file_system(uri, storage_options)
    with storage_errors(uri):
        size = int(fs.info(path)["size"])
        with fs.open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, size - _TAIL_BYTES))
            return head, file.read(_TAIL_BYTES), size


def _check_wav(head: bytes, size: int) -> None:
    """The size of the ``data`` chunk against the size of the file."""
    at = 12
    while head[:4] == b"RIFF" and at + 8 <= len(head):
        name, length = struct.unpack_from("<4sI", head, at)
        if name == b"data":
            if length < _OPEN_ENDED and at + 8 + length > size + 1:
                raise _truncated(f"the header names {length:,} bytes of samples, {size - at - 8:,} are there")
            return
        at += 8 + length + length % 2


def _check_ogg(tail: bytes) -> None:
    """The last page of an Ogg file says that it is the last."""
    pages = [match.start() for match in re.finditer(rb"OggS\0", tail)]
    if pages and len(tail) > pages[-1] + 5 and not tail[pages[-1] + 5] & 4:
        raise _truncated("the end of the stream is missing")


def _has_length_tag(head: bytes) -> bool:
    """Whether an mp3 has a tag of its encoder with the number of frames."""
    at = 0
    if head[:3] == b"ID3" and len(head) > 10:
        at = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    if at >= len(head):
        return False  # a cover picture comes first; nothing is claimed then
    return any(tag in head[at : at + 2048] for tag in (b"Xing", b"Info", b"VBRI"))
