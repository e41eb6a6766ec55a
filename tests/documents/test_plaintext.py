from __future__ import annotations

from lcm_data.documents import Document, Reject


def test_one_document_a_file(corpus, tmp_path, as_texts, pack):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfOne.\r\nTwo.\r\n")
    (tmp_path / "b.md").write_bytes(b"# Drei\n")
    (tmp_path / "sub" / "c.txt.gz").write_bytes(pack("Vier €".encode(), ".gz"))
    (tmp_path / "d.txt").write_bytes(b"")
    (tmp_path / "e.txt").write_bytes(b"\xe9t\xe9")
    (tmp_path / "f.txt").write_bytes("a".encode("utf-16"))
    (tmp_path / "g.txt").write_bytes(b"x" * 2000)
    for slice_bytes in (1, 40, 1 << 20):
        rows = corpus(slice_bytes=slice_bytes, piece_bytes=50, max_row_bytes=1000).rows(tmp_path)
        assert [row.doc_id for row in rows] == ["a.txt", "b.md", "d.txt", "e.txt", "f.txt", "g.txt", "sub/c.txt.gz"]
        bad = ["<empty_text>", "<invalid_utf8>", "<invalid_utf8>", "<too_long>"]
        assert as_texts(rows) == ["One.\r\nTwo.\r\n", "# Drei\n", *bad, "Vier €"]
    assert rows[0] == Document("a.txt", "One.\r\nTwo.\r\n", None, None, 0, "a.txt")
    assert isinstance(rows[4], Reject)
    assert "iconv" in rows[4].error


def test_small_files_share_slices(corpus, tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text("x" * 100)
    parts = corpus(slice_bytes=300).slices(tmp_path)
    assert [part.num_rows for part in parts] == [3, 3, 3, 1]
    assert [part.num_bytes for part in parts] == [300, 300, 300, 100]
