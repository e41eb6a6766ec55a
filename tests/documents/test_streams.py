from __future__ import annotations

import gzip
import random
import struct
import tracemalloc

import pytest
import zstandard

from lcm_data.documents import ReadOptions, list_inputs, read
from lcm_data.documents import streams as streams_module
from lcm_data.documents.streams import line_stream, read_chunks
from lcm_data.errors import InputError

SKIPPABLE = struct.pack("<II", 0x184D2A50, 5) + b"skip!"


def content(path, compression):
    return b"".join(read_chunks(str(path), compression))


@pytest.mark.parametrize(
    "data",
    [
        zstandard.compress(b"a" * 100) + zstandard.compress(b"") + zstandard.compress(b"b"),
        SKIPPABLE + zstandard.compress(b"a" * 100) + SKIPPABLE + zstandard.compress(b"b") + SKIPPABLE,
        gzip.compress(b"a" * 100) + gzip.compress(b"") + gzip.compress(b"b"),
        gzip.compress(b"a" * 100) + gzip.compress(b"b") + b"\0" * 512,
    ],
    ids=["zstd-frames", "skippable-frames", "gzip-members", "gzip-padded"],  # gzip holds the time, ids must not
)
def test_members_and_frames(tmp_path, data):
    path = tmp_path / "a"
    path.write_bytes(data)
    assert content(path, "gz" if data.startswith(b"\x1f\x8b") else "zst") == b"a" * 100 + b"b"


def test_large_window(tmp_path):
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28, enable_ldm=True)
    data = random.Random(0).randbytes(1 << 20) * 2
    (tmp_path / "a").write_bytes(zstandard.ZstdCompressor(compression_params=parameters).compress(data))
    assert content(tmp_path / "a", "zst") == data


def test_high_ratio_comes_in_pieces(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(b"\0" * (20 << 20)))
    sizes = [len(chunk) for chunk in read_chunks(str(tmp_path / "a"), "gz")]
    assert sum(sizes) == 20 << 20
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_file_is_an_error(corpus, tmp_path, pack, suffix):
    data = pack(b"".join(b'{"text": "%d"}\n' % i for i in range(5000)), suffix)
    path = tmp_path / f"a.jsonl{suffix}"
    for size in (0, 3, len(data) // 4, len(data) // 2 + 1, len(data) - 3, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match=r"ends too early, after .* the file is truncated"):
            corpus().slices(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damaged_file_is_an_error(corpus, tmp_path, pack, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(b'{"text": "a"}\n' * 50, suffix) + b"garbage")
    with pytest.raises(InputError, match="damaged compressed data after 700 uncompressed bytes"):
        corpus().slices(path)
    path.write_bytes(b'{"text": "not compressed"}')
    with pytest.raises(InputError, match="damaged compressed data after 0"):
        corpus().slices(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_slices_in_order_decompress_once(corpus, tmp_path, pack, suffix, monkeypatch):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(b"".join(b'{"text": "%d"}\n' % i for i in range(300)), suffix))
    way = corpus(slice_bytes=100)
    parts = way.slices(path)
    opened = []

    def counting(*args):
        opened.append(args)
        return read_chunks(*args)

    monkeypatch.setattr(streams_module, "read_chunks", counting)
    rows = [row.text for part in parts for row in read(part, way.columns)]
    assert rows == [str(i) for i in range(300)]
    assert len(opened) == 1
    forward = [row.text for part in parts[::3] for row in read(part, way.columns)]
    assert len(opened) == 2
    backward = [[row.text for row in read(part, way.columns)] for part in reversed(parts[::3])]
    assert [text for texts in reversed(backward) for text in texts] == forward


def test_replaced_file_is_not_read_from_the_kept_stream(corpus, tmp_path, pack):
    path = tmp_path / "a.jsonl.gz"
    way = corpus(slice_bytes=1)
    for word in (b"old", b"new"):
        path.write_bytes(pack(b'{"text": "%s"}\n' % word * 2, ".gz"))
        first, second = way.slices(path)
        part = first if word == b"old" else second
        assert [row.text for row in read(part, way.columns)] == [word.decode()]


def test_changed_file_is_noticed(corpus, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 4)
    (part,) = corpus().slices(path)
    for changed in (b'{"text": "a"}\n' * 2, b'{"text": "a"}\n' * 3 + b"1\n2\n3\n4\n"):
        path.write_bytes(changed)
        with pytest.raises(InputError, match="the file has changed"):
            list(read(part, corpus().columns))
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        list(read(part, corpus().columns))


def test_long_line_takes_bounded_memory(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * (40 << 20) + b"\nend", 1))
    (file,) = list_inputs([path]).files
    tracemalloc.start()
    with line_stream(file, 0, ReadOptions(max_row_bytes=1 << 20)) as stream:
        lines = list(stream.lines())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(line.size, line.is_cut) for line in lines] == [((40 << 20) + 1, True), (3, False)]
    assert lines[1].data == b"end"
    assert peak < 10 << 20
